"""What a body raises, by whichever way it is asked: the caller gets that, or is told what is wrong with it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from llmops_sdk import prompt
from llmops_sdk.errors import AsyncFunctionError
from llmops_sdk.testing import ScriptedModel


def test_a_plain_body_that_returns_a_coroutine_is_told_as_what_it_is() -> None:
    """It is no coroutine function."""

    async def fetched() -> str:
        return "q"

    @prompt(ScriptedModel([]))
    def body() -> str:
        return fetched()  # type: ignore[return-value]  # the mistake under test

    for call in (body, lambda: body.batch([()])):
        with pytest.raises(AsyncFunctionError, match="body is a plain function that returned a coroutine"):
            call()


def test_a_stream_does_not_take_a_stop_of_the_body_for_its_end() -> None:
    """A generator's reader gets a RuntimeError for it too; a call raises what the body raised."""

    def missing() -> str:
        return next(iter(()))

    async def amissing() -> str:
        return await anext(aiter(_nothing()))

    async def read(stream: Any) -> list[Any]:
        return [delta async for delta in stream]

    ask, aask = prompt(ScriptedModel([]))(missing), prompt(ScriptedModel([]))(amissing)
    with pytest.raises(RuntimeError) as caught:
        list(ask.stream())
    assert isinstance(caught.value.__cause__, StopIteration)
    with pytest.raises(RuntimeError) as caught:
        asyncio.run(read(aask.stream()))
    assert isinstance(caught.value.__cause__, StopAsyncIteration)
    with pytest.raises(StopIteration):
        ask()
    with pytest.raises(StopAsyncIteration):
        asyncio.run(aask())


async def _nothing() -> AsyncIterator[str]:
    for name in list[str]():
        yield name


@pytest.mark.parametrize("raised", [TimeoutError("mine"), LookupError("mine")], ids=repr)
def test_a_batch_raises_the_very_object_that_the_body_raised(raised: Exception) -> None:
    """With the frames of the body in its traceback, whichever loop and thread it has been through."""

    def fails(text: str) -> str:
        raise raised

    async def afails(text: str) -> str:
        await asyncio.to_thread(lambda: None)
        raise raised

    later: Any = prompt(ScriptedModel([]))(afails)
    calls: list[Callable[[], Any]] = [
        lambda: prompt(ScriptedModel([]))(fails).batch(["a", "b"]),
        lambda: prompt(ScriptedModel([]))(fails).batch(["a"], on_error="return")[0],
        lambda: asyncio.run(_awaited(later.batch(["a", "b"]))),
    ]
    for call in calls:
        try:
            error = call()
        except type(raised) as caught:
            error = caught
        assert error is raised
        assert any(frame.name.endswith("fails") for frame in traceback.extract_tb(error.__traceback__))


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result
