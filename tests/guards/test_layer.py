"""How checks run around a call: streams, values, verdicts on the span, checks that fail."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import InitVar, dataclass
from typing import Any, NamedTuple

import pytest
from flow_harness import Face
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from llmops_sdk import guard, prompt
from llmops_sdk.errors import AsyncFunctionError, GuardBlockedError, GuardCheckError, GuardError, UsageError
from llmops_sdk.flow import Emit, Flow, Model, Run, Stream, run_sync
from llmops_sdk.guards import Check, Injection, Secrets
from llmops_sdk.guards.layer import HOLD_CHARS, Screen, StreamScreen, Tally, screened_stream
from llmops_sdk.guards.texts import DEEPEST, rebuilt, texts_of
from llmops_sdk.testing import ScriptedModel, SpanRecorder
from llmops_sdk.tracing import semconv, start_span
from llmops_sdk.types import Delta, Message, Response, Text, ToolCall, ToolCallDelta, Usage, Verdict

KEY = "ghp_" + "Ab3dEf6hIj9lMn2pQr5tUv8xYz1cDe4gHi7k"


class Words:
    """Blocks one word and replaces another; keeps what it saw."""

    name = "words"

    def __init__(self, *, block: str = "dragon", redact: str = "secret") -> None:
        self.block = block
        self.redact = redact
        self.seen: list[str] = []

    def check(self, text: str) -> Verdict:
        self.seen.append(text)
        if self.block in text:
            return Verdict(check=self.name, action="block", score=1.0, threshold=0.5, reason=f"it says {self.block}")
        if self.redact in text:
            changed = text.replace(self.redact, "[gone]")
            return Verdict(check=self.name, action="redact", score=0.6, threshold=0.5, text=changed)
        return Verdict(check=self.name, score=0.1, threshold=0.5)


def screen(*checks: Any, on_error: Any = "block") -> Screen:
    return Screen(checks=checks or (Words(),), stage="output", on_error=on_error)


def streamed(pieces: list[str], checks: Screen) -> list[str]:
    """What leaves for each piece, and at the end."""
    span = start_span("test")
    gate = StreamScreen(checks, Tally("output", span))
    out = [run_sync(gate.feed(piece), Run.start()) for piece in pieces]
    return [*out, run_sync(gate.finish(), Run.start())]


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted({p for p in places if p < len(text)}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


# Streams ------------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["the ", "secret ", "word. ", "End!\n", "句。", " ", ".", "x" * 90 + " ", "a secret. ", KEY, "\n"]
)


@given(st.lists(PIECES, max_size=24).map("".join), st.lists(st.integers(0, 900), max_size=12))
def test_a_stream_emits_the_screened_text_however_it_is_cut(text: str, places: list[int]) -> None:
    """Neither the size of the provider's pieces nor where a sentence is cut changes what leaves."""
    for check in (Words(), Secrets()):
        whole = check.check(text)
        expected = whole.text if whole.action == "redact" else text
        assert "".join(streamed(cut(text, places), screen(check))) == expected


@given(st.lists(st.sampled_from(["one. ", "a dra", "gon ", "came. ", "dragon", "!\n"]), max_size=16), st.data())
def test_no_part_of_a_sentence_that_is_blocked_leaves(pieces: list[str], data: Any) -> None:
    """What has left when the check blocks is a beginning of the text that holds no violation."""
    text = "".join(pieces)
    gate = StreamScreen(screen(), Tally("output", start_span("test")))
    left = ""
    try:
        for piece in cut(text, data.draw(st.lists(st.integers(0, 80), max_size=8))):
            left += run_sync(gate.feed(piece), Run.start())
        left += run_sync(gate.finish(), Run.start())
    except GuardBlockedError:
        assert "dragon" in text
    else:
        assert "dragon" not in text
        assert left == text
    assert text.startswith(left)
    assert "dragon" not in left


def test_a_private_key_in_a_stream_leaves_no_line() -> None:
    """Its lines are no sentences: the block is held until its end, and goes as one."""
    body = "\n".join(["MIIEpAIBAAKCAQEA04up8hoqzS1APIB0RhjXyObwHQnOzhAk5Bd7mhkSbPkyhP1a"] * 30)
    text = f"Here:\n-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\nKeep it safe.\n"
    out = streamed(list(text), screen(Secrets()))
    assert "".join(out) == "Here:\n[REDACTED:private_key]\nKeep it safe.\n"


def test_a_text_without_sentence_ends_is_let_go_in_bounded_pieces() -> None:
    """A stream of digits does not fill the memory, and is not held for ever."""
    out = streamed(["0123456789"] * (HOLD_CHARS // 4), screen())
    assert "".join(out) == "0123456789" * (HOLD_CHARS // 4)
    assert max(map(len, out)) == HOLD_CHARS
    assert sum(1 for piece in out if piece) == 3


def test_what_spans_a_sentence_end_is_redacted_once_from_there() -> None:
    """What began in a sentence that has left cannot be taken back; the rest of it does not follow."""
    check = Words(redact="alpha. beta")
    assert (
        "".join(streamed(["alpha. ", "beta. ", "gamma. ", "delta."], screen(check))) == "alpha. [gone]. gamma. delta."
    )


def test_a_sentence_is_let_go_as_soon_as_it_ends() -> None:
    """Holding is bounded by a sentence: the reader sees text while the model goes on."""
    assert streamed(["One. Tw", "o. ", "Three"], screen()) == ["One. ", "Two. ", "", "Three"]


class Parts(Model):
    """Streams given deltas."""

    name = "parts"

    def __init__(self, deltas: list[Delta], response: Response) -> None:
        self.deltas = deltas
        self.response = response

    def flow(self, request: Any, run: Run) -> Flow[Response]:
        for delta in self.deltas:
            yield Emit(delta)
        return self.response


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_reasoning_refusals_and_tool_calls_of_a_stream_are_screened_too(kind: str) -> None:
    """A secret leaks as well in what a model thinks aloud, or hands to a tool."""
    deltas = [
        Delta(reasoning=f"The key is {KEY[:20]}"),
        Delta(reasoning=f"{KEY[20:]} I think"),
        Delta(text=f"Use {KEY[:9]}"),
        Delta(text=f"{KEY[9:]}"),
        Delta(tool_call=ToolCallDelta(number=0, id="c1", name="login", arguments_json='{"key":"' + KEY[:7])),
        Delta(tool_call=ToolCallDelta(number=0, arguments_json=KEY[7:] + '"}')),
        Delta(finish_reason="tool_calls", usage=Usage(output_tokens=3)),
    ]
    flow = Parts(deltas, Response.of("")).flow(None, Run.start(streaming=True))
    face = Face(kind)
    span = start_span("test")
    out = face.read(Stream(screened_stream(flow, screen(Secrets()), span), Run.start(streaming=True)))
    assert "".join(d.text for d in out) == "Use [REDACTED:github_token]"
    assert "".join(d.reasoning for d in out) == "The key is [REDACTED:github_token] I think"
    calls = [d.tool_call for d in out if d.tool_call is not None]
    assert [call.name for call in calls if call.name] == ["login"]
    assert "".join(call.arguments_json for call in calls) == '{"key":"[REDACTED:github_token]"}'
    assert out[-1].finish_reason == "tool_calls"
    assert KEY[:12] not in repr(out)


def test_a_guarded_generator_that_is_never_read_opens_no_span() -> None:
    """A span that nobody ends would never be recorded, and hold its children."""

    @guard(Words(), output=[Words()])
    def words(text: str) -> Iterator[str]:
        yield text

    with SpanRecorder() as recorder:
        words("never read")
        assert list(words("read")) == ["read"]
    assert len(recorder.by_name("guard words")) == 1


def test_a_generator_of_deltas_is_held_like_text_and_its_other_parts_are_checked() -> None:
    """`Delta` items keep their type; what they carry besides text is checked one by one."""

    @guard(output=[Words()])
    def deltas() -> Iterator[Delta]:
        yield Delta(text="a sec")
        yield Delta(text="ret. ", reasoning="hm")
        yield Delta(text="more", finish_reason="stop")

    out = list(deltas())
    assert "".join(d.text for d in out) == "a [gone]. more"
    assert [d.reasoning for d in out if d.reasoning] == ["hm"]

    @guard(output=[Words()])
    async def bad() -> AsyncIterator[Delta]:
        yield Delta(reasoning="a dragon")

    async def read() -> None:
        async for _ in bad():
            pass

    with pytest.raises(GuardBlockedError):
        asyncio.run(read())


# Values -------------------------------------------------------------------------------------------------------------


class Point(NamedTuple):
    label: str
    x: int


@dataclass(frozen=True, slots=True)
class Frozen:
    body: str
    size: int = 0


@dataclass
class Initialised:
    body: str
    seed: InitVar[int]
    doubled: int = dataclasses.field(init=False, default=0)

    def __post_init__(self, seed: int) -> None:
        self.doubled = 2 * seed


class Form(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    body: str


def _counts() -> collections.defaultdict[str, list[str]]:
    counts: collections.defaultdict[str, list[str]] = collections.defaultdict(list)
    counts["a"].append("secret")
    return counts


@pytest.mark.parametrize(
    "value",
    [
        ["secret"],
        ("secret", 1),
        {"secret"},
        frozenset({"secret"}),
        deque(["secret"], maxlen=3),
        {"k": "secret"},
        {"secret": 1},
        collections.OrderedDict(k="secret"),
        _counts(),
        Point("secret", 1),
        Frozen("secret"),
        Initialised("secret", seed=2),
        Form(body="secret"),
        Form.model_validate({"body": "x", "more": "secret"}),
        Message(role="assistant", parts=(Text(text="x"), ToolCall(id="1", name="t", arguments_json='"secret"'))),
        {"deep": [Frozen("x"), {"er": (Point("secret", 2),)}]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_redaction_keeps_types_and_everything_else(value: Any) -> None:
    """The function gets what it would have got, but for the text."""
    changed = rebuilt(value, lambda text: text.replace("secret", "[gone]"))
    assert type(changed) is type(value)
    assert repr(changed) == repr(value).replace("secret", "[gone]")
    assert "secret" in repr(value)
    assert rebuilt(value, lambda text: text) is value
    assert "secret" in "".join(texts_of(value))


def test_what_is_nested_too_deep_or_contains_itself_is_refused() -> None:
    """What cannot be checked does not pass."""
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = "x"
    for _ in range(DEEPEST + 1):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(GuardBlockedError, match="deeper than 12 levels"):
            texts_of(value)


def test_a_text_that_occurs_often_is_checked_once() -> None:
    """Checks cost time; value and message of an answer mostly hold the same text."""
    check = Words()
    answer = prompt(ScriptedModel(["fine"]))(_ask)
    assert guard(output=[check])(answer)("q") == "fine"
    assert check.seen == ["fine"]


def _ask(text: str) -> str:
    return text


# Verdicts on the span -------------------------------------------------------------------------------------------------


def events(recorder: SpanRecorder) -> list[dict[str, Any]]:
    (span,) = recorder.by_name("guard echo")
    return [dict(event.attributes or {}) for event in span.events if event.name == semconv.LLMOPS_GUARD_VERDICT_EVENT]


def test_the_span_has_one_event_a_check_and_direction_with_its_worst_verdict() -> None:
    """A thousand hits are not a thousand events."""

    @guard(Words(), output=[Words(redact="never")])
    def echo(texts: list[str]) -> list[str]:
        return texts

    with SpanRecorder() as recorder:
        echo([f"text {n}" for n in range(50)] + ["a secret"])
    first, second = events(recorder)
    assert first == {
        semconv.LLMOPS_GUARD_CHECK: "words",
        semconv.LLMOPS_GUARD_ACTION: "redact",
        semconv.LLMOPS_GUARD_STAGE: "input",
        semconv.LLMOPS_GUARD_SCORE: 0.6,
        semconv.LLMOPS_GUARD_THRESHOLD: 0.5,
        semconv.LLMOPS_GUARD_TEXTS: 51,
    }
    assert (second[semconv.LLMOPS_GUARD_ACTION], second[semconv.LLMOPS_GUARD_STAGE]) == ("pass", "output")
    assert recorder.by_name("guard echo")[0].attributes[semconv.LLMOPS_GUARD_ACTION] == "redact"


def test_a_stream_that_is_left_early_still_tells_its_verdicts() -> None:
    """What was checked before the reader went away is on the span."""

    @guard(output=[Words()])
    def echo(text: str) -> Iterator[str]:
        yield from text.split("|")

    with SpanRecorder() as recorder:
        items = echo("a secret. |b. |c. ")
        assert next(items) == "a [gone]. "
        items.close()  # type: ignore[attr-defined]  # a generator function, said to return an iterator
    (event,) = events(recorder)
    assert event[semconv.LLMOPS_GUARD_ACTION] == "redact"


def test_a_block_is_told_before_it_raises() -> None:
    """Whoever is on call sees which check, and why."""

    @guard(Words())
    def echo(text: str) -> str:
        return text

    with SpanRecorder() as recorder, pytest.raises(GuardBlockedError):
        echo("a dragon")
    (event,) = events(recorder)
    assert event[semconv.LLMOPS_GUARD_REASON] == "it says dragon"


# Checks that are wrong or fail --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (None, "returned NoneType; it must return a Verdict"),
        (Verdict(check="odd", action="blocked"), "the action 'blocked'; there are pass, annotate, redact, block"),  # type: ignore[arg-type]  # misspelt
        (Verdict(check="odd", action="redact"), "redacts but gives no text"),
    ],
)
def test_a_verdict_that_says_nothing_is_an_error_of_the_check(returned: Any, told: str) -> None:
    """A misspelt action must not let a text through, whatever `on_error` says."""

    class Odd:
        name = "odd"

        def check(self, text: str) -> Any:
            return returned

    with pytest.raises(UsageError, match=told):
        guard(Odd(), on_error="allow")(_ask)("x")


def test_an_async_check_in_a_synchronous_call_says_so() -> None:
    """It cannot be awaited there, and skipping it would be no guard."""

    class Later:
        name = "later"

        async def check(self, text: str) -> Verdict:
            return Verdict(check=self.name)

    with pytest.raises(AsyncFunctionError):
        guard(Later(), on_error="allow")(_ask)("x")


def test_an_allowed_failure_is_on_the_span() -> None:
    """`on_error="allow"` lets the text pass, and says that nobody looked."""

    class Broken:
        name = "broken"

        def check(self, text: str) -> Verdict:
            raise OSError("no model file")

    @guard(Broken(), on_error="allow")
    def echo(text: str) -> str:
        return text

    with SpanRecorder() as recorder:
        assert echo("x") == "x"
    (event,) = events(recorder)
    assert event[semconv.LLMOPS_GUARD_ACTION] == "annotate"
    assert event[semconv.LLMOPS_GUARD_REASON] == "the check failed: OSError"


class Repeating:
    """A check whose failure repeats what it was given."""

    name = "repeating"

    def check(self, text: str) -> Verdict:
        raise KeyError(text)


@pytest.mark.parametrize(("on_error", "kind"), [("block", GuardBlockedError), ("raise", GuardCheckError)])
def test_the_error_of_a_failed_check_is_the_cause(on_error: Any, kind: type[GuardError]) -> None:
    """Of what the caller gets; the error itself and the verdict on the span name its type only."""

    @guard(output=[Repeating()], on_error=on_error)
    @prompt(ScriptedModel(["a dragon"]))
    def echo(text: str) -> str:
        return text

    with SpanRecorder() as recorder, pytest.raises(kind, match=r"the check failed: KeyError$") as caught:
        echo("x")
    assert type(caught.value) is kind
    assert repr(caught.value.__cause__) == "KeyError('a dragon')"
    (event,) = events(recorder)
    assert event[semconv.LLMOPS_GUARD_ACTION] == "block"
    assert event[semconv.LLMOPS_GUARD_REASON] == "the check failed: KeyError"


def test_a_stream_ends_by_the_error_of_a_failed_check() -> None:
    """As a call does."""
    stream = guard(output=[Repeating()], on_error="raise")(prompt(ScriptedModel(["a dragon"]))(_ask)).stream("x")
    with pytest.raises(GuardCheckError) as caught:
        list(stream)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(GuardBlockedError) as blocked:
        guard(Words())(_ask)("dragon")
    assert blocked.value.__cause__ is None


def test_the_checks_that_come_with_the_sdk_are_checks() -> None:
    """And so is anything of their shape."""
    for check in (Injection(), Secrets(), Words()):
        assert isinstance(check, Check)
    assert not isinstance("injection", Check)
