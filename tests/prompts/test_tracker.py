"""When a version is computed, what it says, and what a rebound name does."""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pydantic
import pytest

from llmops_sdk import model, prompt
from llmops_sdk.prompts.version import VersionTracker
from llmops_sdk.testing import ScriptedModel

Make = Callable[..., ModuleType]

HEAD = """
from llmops_sdk import prompt
from llmops_sdk.testing import ScriptedModel

model = ScriptedModel(["ok"] * 9, name="m")
"""
ASK = (
    HEAD
    + """
TONE = "calm"
LIMITS = {"words": [10, 20]}


class Style:
    opening = "Hello."


@prompt(model=model)
def ask(question: str) -> str:
    return f"{Style.opening} {TONE} {LIMITS} {question}"
"""
)


def tracker(function: Callable[..., Any], **declared: object) -> VersionTracker:
    return VersionTracker(function, name=None, declared=declared)


# Rebinding ----------------------------------------------------------------------------------------------------------


def test_a_rebound_global_gives_a_new_version_at_the_next_call(module_of: Make) -> None:
    """Without being asked to look: the call's own check notices. The old value brings the old version back."""
    app = module_of(app=ASK)
    first = app.ask.version
    assert app.ask.version is first
    app.TONE = "loud"  # type: ignore[attr-defined]  # a module made by the test
    second = app.ask.version
    assert second.hash != first.hash
    app.TONE = "calm"  # type: ignore[attr-defined]  # as above
    assert app.ask.version.hash == first.hash


def test_an_attribute_of_a_class_that_is_set_later_counts(module_of: Make) -> None:
    """Configuration at start-up writes into classes too."""
    app = module_of(app=ASK)
    first = app.ask.version
    app.Style.opening = "Hi."
    assert app.ask.version.hash != first.hash


def test_a_rebound_closure_variable_gives_a_new_version() -> None:
    """A cell is noticed as a global is."""
    tone = "calm"

    def ask() -> str:
        return tone

    asked = tracker(ask)
    first = asked.current()
    tone = "loud"
    assert asked.current().hash != first.hash
    tone = "calm"
    assert asked.current().hash == first.hash


def test_a_helper_that_is_replaced_gives_a_new_version(module_of: Make) -> None:
    """As a monkeypatch or a reload of another module does."""
    app = module_of(
        app=HEAD + "import parts\n\n\n@prompt(model=model)\ndef ask(q: str) -> str:\n    return parts.part(q)\n",
        parts="def part(q):\n    return q\n",
    )
    first = app.ask.version
    app.parts.part = lambda q: q + q
    assert app.ask.version.hash != first.hash


def test_a_reloaded_module_gives_a_new_version(module_of: Make, tmp_path: Path) -> None:
    """Its file is read anew: what stood there belonged to the function that is gone."""
    app = module_of(
        app=HEAD + "import parts\n\n\n@prompt(model=model)\ndef ask(q: str) -> str:\n    return parts.part(q)\n",
        parts="def part(q):\n    return q\n",
    )
    first = app.ask.version
    (tmp_path / "parts.py").write_text("def part(q):\n    return q + ' and more'\n", encoding="utf-8")
    importlib.reload(app.parts)
    assert app.ask.version.hash != first.hash


def test_a_name_that_a_module_makes_at_its_first_use_is_captured(module_of: Make) -> None:
    """Packages bind their names lazily; the version sees what the body will see."""
    app = module_of(
        app=HEAD + "import lazy\n\n\n@prompt(model=model)\ndef ask(q: str) -> str:\n    return lazy.TONE + q\n",
        lazy="def __getattr__(name):\n    if name == 'TONE':\n        return 'calm'\n    raise AttributeError(name)\n",
    )
    assert (app.ask.version.captured, app.ask.version.opaque) == (("lazy.TONE",), ())


def test_names_that_come_and_go_are_noticed(module_of: Make) -> None:
    """A name without a value is opaque until it has one."""
    app = module_of(app=HEAD + "\n\n@prompt(model=model)\ndef ask(q: str) -> str:\n    return q + LATER\n")
    first = app.ask.version
    assert first.opaque == ("app.LATER",)
    app.LATER = "now"  # type: ignore[attr-defined]  # a module made by the test
    second = app.ask.version
    assert (second.opaque, second.captured) == ((), ("app.LATER",))
    del vars(app)["LATER"]
    assert app.ask.version.hash == first.hash


def test_values_are_captured_at_the_first_read_and_not_before(module_of: Make) -> None:
    """What start-up code does between definition and first use is in the version."""
    one, other = module_of(app=ASK), module_of(other=ASK)
    one.LIMITS["words"].append(30)
    assert one.ask.version.hash != other.ask.version.hash


def test_what_happens_inside_of_a_captured_value_is_not_followed(module_of: Make) -> None:
    """The documented limit: rebinding is noticed, mutation is not."""
    app = module_of(app=ASK)
    first = app.ask.version
    app.LIMITS["words"].append(30)
    assert app.ask.version is first


def test_the_first_call_captures_and_its_span_carries_the_version(module_of: Make, span_recorder: Any) -> None:
    """A call needs nobody to have read `.version`."""
    app = module_of(app=ASK)
    app.ask("q")
    (span,) = [span for span in span_recorder.spans if "llmops.prompt.hash" in span.attributes]
    assert span.attributes["llmops.prompt.hash"] == app.ask.version.hash


def test_source_is_read_once(module_of: Make, tmp_path: Path) -> None:
    """A file that is edited while the program runs does not change the version of the code that runs."""
    app = module_of(app=ASK)
    first = app.ask.version
    (tmp_path / "app.py").write_text(ASK.replace("Hello", "Bye") + "\n", encoding="utf-8")
    app.TONE = "loud"  # type: ignore[attr-defined]  # a module made by the test
    assert app.ask.version.hash != first.hash
    app.TONE = "calm"  # type: ignore[attr-defined]  # as above
    assert app.ask.version.hash == first.hash


def test_a_name_that_is_bound_anew_all_the_time_is_said_once(module_of: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Each computation costs milliseconds; a log line names the suspects."""
    app = module_of(app=ASK)
    with caplog.at_level(logging.WARNING, "llmops_sdk"):
        for number in range(150):
            app.TONE = str(number)  # type: ignore[attr-defined]  # a module made by the test
            _ = app.ask.version
    (record,) = caplog.records
    assert "app.TONE" in record.getMessage()


def test_threads_that_come_first_together_share_one_version(module_of: Make) -> None:
    """The first computation happens once."""
    app, ready = module_of(app=ASK), threading.Barrier(8)

    def first() -> Any:
        ready.wait(10)
        return app.ask.version

    with ThreadPoolExecutor(8) as pool:
        seen = [future.result() for future in [pool.submit(first) for _ in range(8)]]
    assert len({id(version) for version in seen}) == 1


def test_an_import_in_the_body_that_reads_the_version_ends(module_of: Make, tmp_path: Path) -> None:
    """The computation imports what the body imports, and that may ask for the version again."""
    (tmp_path / "late.py").write_text("import app\nseen = app.ask.version\nTONE = 'calm'\n", encoding="utf-8")
    text = (
        HEAD + "\n\n@prompt(model=model)\ndef ask(q: str) -> str:\n    from late import TONE\n\n    return q + TONE\n"
    )
    app = module_of(app=text)
    assert app.ask.version.captured == ("late.TONE",)
    assert sys.modules["late"].seen.name == "app.ask"


# What a version says ------------------------------------------------------------------------------------------------


def test_a_version_says_what_it_covers(module_of: Make) -> None:
    """Name, source and names of captured values."""
    version = module_of(app=ASK).ask.version
    assert (version.name, version.number, version.labels) == ("app.ask", None, ())
    assert version.source.startswith("@prompt(model=model)\ndef ask(")
    assert version.captured == ("app.LIMITS", "app.Style.opening", "app.TONE")
    assert version.opaque == ()


def test_others_code_is_named_with_its_version_and_is_not_hashed(module_of: Make) -> None:
    """An upgrade of a package is not a new version of every prompt; it can be compared."""
    text = "import pydantic\n\n" + ASK.replace("{question}", "{question} {pydantic.TypeAdapter(str)}")
    version = module_of(app=text).ask.version
    assert version.environment == (("pydantic", pydantic.VERSION),)
    assert not version.opaque


def test_a_prompt_that_calls_a_prompt_contains_it(module_of: Make) -> None:
    """The inner prompt's parameters and body are part of what the outer one asks."""
    text = HEAD + (
        "\n\n@prompt(model=model, temperature=%s)\ndef inner(q: str) -> str:\n    return q + %r\n\n\n"
        "@prompt(model=model)\ndef ask(q: str) -> str:\n    return inner(q)\n"
    )
    names = ("one", "two", "three")
    texts = [text % (0.1, "a"), text % (0.2, "a"), text % (0.1, "b")]
    seen = [module_of(**{name: source}).ask.version.hash for name, source in zip(names, texts, strict=True)]
    assert len(set(seen)) == 3


def _declared_hash(**declared: object) -> str:
    def ask(q: str) -> str:
        return q

    return tracker(ask, **declared).current().hash


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("openai:gpt-5-mini", model("openai:gpt-5-mini"), True),
        ("openai:gpt-5-mini", model("openai:gpt-5-mini", api_key="not-a-key", timeout_s=5, max_retries=7), True),
        ("openai:gpt-5-mini?timeout_s=5", "openai:gpt-5-mini", True),
        ("openai:gpt-5-mini?top_p=0.5&seed=1", "openai:gpt-5-mini?seed=1&top_p=0.5", True),
        ("openai:gpt-5-mini?temperature=0", model("openai:gpt-5-mini", temperature=0), True),
        ("openai:gpt-5-mini", "openai:gpt-5", False),
        ("openai:gpt-5-mini", "openai:gpt-5-mini?temperature=0", False),
        ("openai:gpt-5-mini", ScriptedModel([], name="openai:gpt-5-mini"), True),
    ],
)
def test_a_model_counts_by_its_name(one: object, other: object, same: bool) -> None:
    """A string and the model that it opens are one; keys and timeouts are no part of it."""
    assert (_declared_hash(model=one) == _declared_hash(model=other)) is same


class Kinds:
    """Prompts of every kind of function."""

    @prompt(model=ScriptedModel([], name="m"))
    def method(self) -> str:
        return "q"

    @classmethod
    @prompt(model=ScriptedModel([], name="m"))
    def of_class(cls) -> str:
        return "q"

    @prompt(model=ScriptedModel([], name="m"))
    @staticmethod
    def static() -> str:
        return "q"

    @prompt(model=ScriptedModel([], name="m"))
    async def later(self) -> str:
        return "q"


@pytest.mark.parametrize("name", ["method", "of_class", "static", "later"])
def test_methods_of_every_kind_have_versions(name: str) -> None:
    """Through the class and through an instance it is one."""
    version = getattr(Kinds, name).version
    assert version.name == f"{__name__}.Kinds.{name}"
    assert getattr(Kinds(), name).version is version


# What fails --------------------------------------------------------------------------------------------------------


def test_a_version_that_cannot_be_computed_is_opaque_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The call goes on; the version is named and covers nothing."""
    broken = VersionTracker(len, name="counted", declared={})
    with caplog.at_level(logging.WARNING, "llmops_sdk"):
        first, second = broken.current(), broken.current()
    assert first is second
    assert (first.name, first.opaque) == ("counted", ("counted",))
    assert len(caplog.records) == 1


def test_a_model_whose_name_raises_does_not_break_the_version() -> None:
    """What the decorator was given may raise too."""

    class Nameless(ScriptedModel):
        @property
        def name(self) -> str:
            raise RuntimeError("no name")

        @name.setter
        def name(self, value: str) -> None:
            """Taken and forgotten."""

    def ask(q: str) -> str:
        return q

    version = tracker(ask, model=Nameless([])).current()
    assert version.opaque == (f"{__name__}.{ask.__qualname__}(…)",)
