"""One frozen `Settings`: defaults, `[tool.llmops]`, `LLMOPS_*` variables and `configure()`, in that order.

Nothing is read at import. The settings of the process are held at module level: they must be the same in every thread and
event loop, which a context variable cannot promise.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from llmops_sdk.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("llmops_sdk")

Capture: TypeAlias = Literal["local", "span", "event", "span_and_event", "none"]
Redaction: TypeAlias = str | Callable[[str], str]

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}
_CAPTURE = {"": "local", "false": "local", "true": "span", "span_only": "span", "event_only": "event"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set for the whole process.

    Attributes:
        project: name of the project on spans; the folder name of the project root by default.
        home: folder of the store, caches, indexes and models; None means found by `find_home`.
        otlp: OTLP/HTTP endpoint (base address, without `/v1/traces`) that spans are also sent to.
        capture: where message content goes. "local": to the local store only. "span", "event", "span_and_event": also
            onto what leaves through exporters. "none": nowhere.
        redact: further patterns (regular expressions, or functions of a string) beside the built-in ones. A str is one
            pattern, commas and all.
        sample: share of traces that are recorded, 0 to 1.
        store: whether the local store is written.
        disabled: turns recording off, and nothing else.
        first_party: further top-level modules whose code counts as the project's own in prompt versions, beside those that
            the `[tool.llmops]` of a prompt's own project names.
        queue_bytes: bound of the recorder's queue.
        on_full: what a full queue does: count and drop, or wait.
        network: "loopback" refuses every model request that would leave this machine.
        model: overrides the model of every prompt.
        close_timeout_s: how long a cancelled call may go on to clean up.
    """

    project: str = ""
    home: Path | None = None
    otlp: str | None = None
    capture: Capture = "local"
    redact: tuple[Redaction, ...] = ()
    sample: float = 1.0
    store: bool = True
    disabled: bool = False
    first_party: tuple[str, ...] = ()
    queue_bytes: int = 64 * 1024 * 1024
    on_full: Literal["drop", "block"] = "drop"
    network: Literal["allow", "loopback"] = "allow"
    model: str | None = None
    close_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        """Refuse values that cannot be right."""
        if not 0.0 <= self.sample <= 1.0:
            raise UsageError(f"sample must be between 0 and 1; it is {self.sample!r}.")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} must be one of {', '.join(allowed)}; it is {getattr(self, name)!r}.")
        if self.queue_bytes <= 0:
            raise UsageError(f"queue_bytes must be positive; it is {self.queue_bytes!r}.")
        if self.otlp is not None and not self.otlp.startswith(("http://", "https://")):
            raise UsageError(f"otlp is an address such as http://localhost:4318; it is {self.otlp!r}.")
        for rule in self.redact:
            _check_redaction(rule)


def _check_redaction(rule: Redaction) -> None:
    """Raise `UsageError` for what is no pattern."""
    if callable(rule):
        return
    import re

    try:
        re.compile(rule)
    except (re.error, TypeError) as error:
        raise UsageError(f"redact={rule!r} is neither a regular expression nor a function: {error}.") from error


_CHOICES: dict[str, tuple[str, ...]] = {
    "capture": ("local", "span", "event", "span_and_event", "none"),
    "on_full": ("drop", "block"),
    "network": ("allow", "loopback"),
}
_FIELDS = {f.name: f for f in dataclasses.fields(Settings)}


def find_project_root(start: Path) -> Path | None:
    """The nearest folder at or above `start` that has `.llmops`, `pyproject.toml` or `.git`."""
    for folder in (start, *start.parents):
        if any((folder / mark).exists() for mark in (".llmops", "pyproject.toml", ".git")):
            return folder
    return None


def find_home(settings: Settings) -> Path:
    """The home folder: as configured, else `.llmops` beside the project's marks, else in the working directory."""
    if settings.home is not None:
        return settings.home
    here = _working_folder()
    return (find_project_root(here) or here) / ".llmops"


def _working_folder() -> Path:
    from pathlib import Path

    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UsageError(
            "The working folder does not exist any more. Change into one that does, or set LLMOPS_HOME."
        ) from None


def make_folder(folder: Path) -> None:
    """Make a folder of ours, for its owner only, and what is missing above it; a home is also kept out of git."""
    if folder.is_dir():
        return
    home = find_home(current_settings())
    for place in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
        private = place == folder or home in (place, *place.parents)
        place.mkdir(mode=0o700 if private else 0o777, exist_ok=True)
        if place == home:
            (place / ".gitignore").write_text("*\n", encoding="utf-8")


def make_file(path: Path) -> None:
    """Make an empty file that only its owner can read, where there is none."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def is_loopback(host: str) -> bool:
    """Whether a host, as a URL writes it, is this machine: all that `network="loopback"` lets through.

    Names are not looked up: only `localhost` and names below it count.
    """
    import ipaddress

    name = host.strip("[]").partition("%")[0].rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback or address.is_unspecified)


def _flag(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise UsageError(f"{name} must be true or false; it is {value!r}.")


def _number(name: str, value: Any, kind: type[float | int]) -> float | int:
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} must be a number; it is {value!r}.") from None


def _names(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value)


def _convert(name: str, value: Any) -> Any:
    """One setting, from a variable, a TOML value or an argument, as its type."""
    if name not in _FIELDS:
        raise UsageError(f"There is no setting {name!r}. There are: {', '.join(sorted(_FIELDS))}.")
    if name in ("store", "disabled"):
        return _flag(name, value)
    if name in ("sample", "close_timeout_s"):
        return _number(name, value, float)
    if name == "queue_bytes":
        return _number(name, value, int)
    if name == "home":
        from pathlib import Path

        return None if value in (None, "") else Path(value).expanduser()
    if name == "redact":
        return (value,) if isinstance(value, str) or callable(value) else tuple(value)
    if name == "first_party":
        return _names(value)
    if name == "otlp":
        return str(value).rstrip("/").removesuffix("/v1/traces") if value else None
    if name == "capture":
        word = str(value).lower()
        return _CAPTURE.get(word, word)
    return value


def _from_project(root: Path | None) -> dict[str, Any]:
    """`[tool.llmops]` of the pyproject.toml in `root`; a file that does not parse is said and passed over."""
    import tomllib

    path = root / "pyproject.toml" if root else None
    if path is None or not path.is_file() or not _is_ours(path):
        return {}
    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool")
        table = tool.get("llmops", {}) if isinstance(tool, dict) else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        log.warning("llmops: %s cannot be read (%s); its [tool.llmops] is not used.", path, error)
        return {}
    if not isinstance(table, dict):
        raise UsageError(f"[tool.llmops] in {path} is a table of settings; it is {table!r}.")
    # `first_party` is about the code of that project, which need not be the one whose folder we are in: a prompt's version
    # reads it beside the prompt's own file.
    return {name: _convert(name, value) for name, value in table.items() if name in _FIELDS and name != "first_party"}


def trusted_owner(owner: int, user: int) -> bool:
    """Whether a file of `owner` may say where the content of `user` goes: one's own, and root's. Root takes anybody's,
    as in containers the sources often belong to somebody else.
    """
    return owner in (user, 0) or user == 0


def _is_ours(path: Path) -> bool:
    if not hasattr(os, "geteuid"):  # Windows has other rules
        return True
    owner = path.stat().st_uid
    if trusted_owner(owner, os.geteuid()):
        return True
    log.warning("llmops: %s belongs to another user (%s); its [tool.llmops] is not used.", path, owner)
    return False


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """`LLMOPS_<NAME>` for every setting, and OpenTelemetry's own variable for the capture of content."""
    found = {}
    policy = environment.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT")
    if policy is not None:
        found["capture"] = _convert("capture", policy)
    for name in _FIELDS:
        value = environment.get(f"LLMOPS_{name.upper()}")
        if value is not None:
            found[name] = _convert(name, value)
    return found


def load_settings(environment: Mapping[str, str] | None = None, start: Path | None = None, **given: Any) -> Settings:
    """Settings from all sources. Raises `UsageError` for a name or value that cannot be right."""
    here = start or _working_folder()
    root = find_project_root(here)
    values: dict[str, Any] = {"project": (root or here).name}
    values |= _from_project(root)
    values |= _from_environment(os.environ if environment is None else environment)
    values |= {name: _convert(name, value) for name, value in given.items()}
    return Settings(**values)


class _Process:
    """The settings of this process."""

    settings: Settings | None = None


def current_settings() -> Settings:
    """The settings in force; built at the first call."""
    settings = _Process.settings
    if settings is None:
        settings = _Process.settings = load_settings()
    return settings


def set_settings(settings: Settings | None) -> Settings | None:
    """Put `settings` in force (None: built anew at the next read) and return what was."""
    before, _Process.settings = _Process.settings, settings
    return before
