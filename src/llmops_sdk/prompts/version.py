"""The version of a prompt: what identifies it, and when it is computed anew."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from llmops_sdk.prompts.closure import Closure
    from llmops_sdk.prompts.source import Sources
    from llmops_sdk.prompts.watch import Watch

log = logging.getLogger("llmops_sdk")

# While one thread computes, imports in the body may run; one of them may wait for a thread that waits here.
_PATIENCE_S = 5.0
_MANY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptVersion:
    """One version of a prompt. Two versions ask alike if their `hash` is equal.

    Attributes:
        name: the prompt's name, by default `module.qualname`.
        hash: SHA-256, in hex, of everything in the code that determines the request.
        signature_hash: the same of the parameters, their annotations and the output.
        number: for a file that numbers versions, which there is not yet: None.
        labels: for the same file: empty.
        source: the text of the prompt's function; "" where there is none.
        captured: names of the constants, closure variables and defaults whose values are part of the hash.
        opaque: names of what the code uses and the hash does not cover.
        environment: (distribution, version) of the installed packages that the code uses; not part of the hash.
    """

    name: str
    hash: str
    signature_hash: str
    number: int | None = None
    labels: tuple[str, ...] = ()
    source: str = field(default="", repr=False)
    captured: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


class _Known(NamedTuple):
    version: PromptVersion
    watch: Watch


class VersionTracker:
    """Knows the version of one prompt as its code stands now. Safe to use from many threads.

    The first `current()` reads sources and captures values; those after it compare what names stand for, by identity, and
    compute anew only where one was bound to something else. What happens inside of a value after it was captured is not
    followed.

    Args:
        function: what was decorated.
        name: the prompt's name; None for `module.qualname`.
        declared: what the decorator was given that determines the request, by keyword.
    """

    def __init__(self, function: object, *, name: str | None, declared: Mapping[str, object]) -> None:
        self.declared = declared
        self._function = function
        self._name = name
        self._known: _Known | None = None
        self._sources: Sources | None = None
        self._lock = threading.RLock()
        self._computed = 0
        self._failed = False

    def current(self) -> PromptVersion:
        """The version. Never raises: what cannot be computed gives a version that is named, opaque and logged once."""
        known = self._known
        if known is not None and known.watch.holds():
            return known.version
        mine = self._lock.acquire(timeout=_PATIENCE_S)
        try:
            known = self._known
            if known is None or not known.watch.holds():
                known = self._known = self._compute()
            return known.version
        finally:
            if mine:
                self._lock.release()

    def _compute(self) -> _Known:
        from llmops_sdk.prompts.source import Sources
        from llmops_sdk.prompts.watch import Watch

        self._sources = self._sources or Sources()
        self._sources.refresh()
        watch = Watch({}, {})
        try:
            closure = self._closure(self._sources)
            closure.walk()
            version = self._version(closure)
            watch = Watch(closure.resolver.names, closure.resolver.cells)
        except Exception as error:  # any object of the user's may raise anything, and a version is no reason to fail
            version = self._unknown(error)
        self._count(version)
        return _Known(version, watch)

    def _closure(self, sources: Sources) -> Closure:
        from llmops_sdk.prompts.closure import Closure

        return Closure(self._function, self.declared, sources)

    def _version(self, closure: Closure) -> PromptVersion:
        from llmops_sdk.prompts.first_party import environment
        from llmops_sdk.prompts.normal_form import digest
        from llmops_sdk.prompts.signature import signature_form

        found = closure.sources.function(closure.root)
        signature = signature_form(closure.root, found, self.declared.get("output"), closure.resolver)
        return PromptVersion(
            name=self._name or closure.parts[0].name,
            hash=digest(closure.text),
            signature_hash=digest(signature),
            source=found.text if found is not None else "",
            captured=tuple(sorted(closure.captured)),
            opaque=tuple(sorted(closure.forms.opaques)),
            environment=environment(closure.forms.modules),
        )

    def _unknown(self, error: Exception) -> PromptVersion:
        from llmops_sdk.prompts.normal_form import digest

        name = (
            self._name or f"{getattr(self._function, '__module__', '')}.{getattr(self._function, '__qualname__', '')}"
        )
        if not self._failed:
            self._failed = True
            log.warning(
                "llmops: the version of the prompt %s cannot be computed; it is recorded as opaque.",
                name,
                exc_info=error,
            )
        told = digest(f"unknown 1\n{name}")
        return PromptVersion(name=name, hash=told, signature_hash=told, opaque=(name,))

    def _count(self, version: PromptVersion) -> None:
        self._computed += 1
        if self._computed == _MANY:
            log.warning(
                "llmops: the version of the prompt %s was computed %d times, since something that it reads is bound anew "
                "again and again: one of %s. Pass what changes as an argument.",
                version.name,
                _MANY,
                ", ".join(version.captured) or "its helpers",
            )
