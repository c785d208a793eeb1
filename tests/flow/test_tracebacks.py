"""Tracebacks of errors of user code: from the call to the body, with nothing lost but the SDK's own frames between."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from llmops_sdk import guard, prompt, trace
from llmops_sdk.errors import UsageError
from llmops_sdk.flow import Flow, Invoke, Model, Run
from llmops_sdk.testing import ScriptedModel
from llmops_sdk.types import Response, Verdict


class Pass:
    name = "pass"

    def check(self, text: str) -> Verdict:
        return Verdict(check=self.name)


def missing(text: str) -> str:
    """A body that fails, with cause, context and note."""
    try:
        raise LookupError("inner")
    except LookupError as inner:
        error = KeyError(text)
        error.add_note("a note")
        raise error from inner


async def amissing(text: str) -> str:
    """The same, later."""
    return missing(text)


def stacked(body: Any) -> Any:
    return trace(guard(Pass(), output=[Pass()])(prompt(ScriptedModel([]))(body)))


async def read(stream: Any) -> list[Any]:
    return [delta async for delta in stream]


async def awaited(result: Any) -> Any:
    return await result


WAYS: dict[str, Callable[[], Any]] = {
    "call": lambda: stacked(missing)("x"),
    "response": lambda: stacked(missing).response("x"),
    "stream": lambda: list(stacked(missing).stream("x")),
    "batch": lambda: stacked(missing).batch(["x"]),
    "async call": lambda: asyncio.run(stacked(amissing)("x")),
    "async stream": lambda: asyncio.run(read(stacked(amissing).stream("x"))),
    "async stream of a plain body": lambda: asyncio.run(read(stacked(missing).stream("x"))),
    "async batch": lambda: asyncio.run(awaited(stacked(amissing).batch(["x"]))),
}


def failure(call: Callable[[], Any], kind: type[Exception] = KeyError) -> Exception:
    with pytest.raises(kind) as caught:
        call()
    return caught.value


def ours(error: BaseException) -> list[str]:
    """The SDK's frames of a traceback, by name."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [f.f_code.co_name for f in frames if str(f.f_globals["__name__"]).startswith("llmops_sdk.")]


@pytest.mark.parametrize("way", WAYS)
def test_between_the_call_and_the_body_stand_few_frames(way: str) -> None:
    """At least one of ours, and none of layers and drivers; the error is whole."""
    error = failure(WAYS[way])
    assert 1 <= len(ours(error)) <= 4
    assert not {"resume", "advance", "around", "perform", "_invoke"} & set(ours(error))
    assert [f.name for f in traceback.extract_tb(error.__traceback__)][-1] == "missing"
    assert repr(error.__cause__) == "LookupError('inner')"
    assert error.__context__ is error.__cause__
    assert error.__notes__ == ["a note"]


@pytest.mark.parametrize("way", WAYS)
def test_with_debug_every_frame_is_there(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`LLMOPS_DEBUG=1` is for those who look for a fault in the SDK."""
    monkeypatch.setenv("LLMOPS_DEBUG", "1")
    assert {"resume", "advance", "perform", "_invoke"} <= set(ours(failure(WAYS[way])))


def test_frames_of_others_between_ours_stay() -> None:
    """A model of the user's own is part of the way to the error."""

    class Own(Model):
        name = "own"

        def flow(self, request: Any, run: Run) -> Flow[Response]:
            yield Invoke(missing, ("x",))
            return Response.of("never")

    error = failure(lambda: Own().complete("x"))
    names = [f.name for f in traceback.extract_tb(error.__traceback__)]
    assert names[-2:] == ["flow", "missing"]
    assert ours(error) == ["complete", "run_sync"]


def test_nothing_is_taken_where_the_error_is_not_of_user_code() -> None:
    """Wrong arguments never reach the body, and an error of ours is ours wherever it was raised."""

    def misused(text: str) -> str:
        raise UsageError(text)

    assert "_invoke" in ours(failure(lambda: stacked(missing)("x", 1, 2), TypeError))
    assert "_invoke" in ours(failure(lambda: stacked(misused)("x"), UsageError))
