"""`using(deadline_s=…)` on prompts."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llmops_sdk import prompt
from llmops_sdk.errors import DeadlineExceededError
from llmops_sdk.flow import Flow, Model, Run, Sleep
from llmops_sdk.testing import ScriptedModel
from llmops_sdk.types import Response


def slow(request: Any) -> str:
    """Answers a text "slow" too late."""
    if request.text == "slow":
        time.sleep(0.3)
    return str(request.text)


@prompt(ScriptedModel([slow] * 20))
def echo(text: str) -> str:
    """Says it again."""
    return text


@prompt(ScriptedModel([slow] * 20))
async def aecho(text: str) -> str:
    """Says it again."""
    return text


def test_a_deadline_bounds_every_way_of_asking() -> None:
    """And is no parameter of the request."""
    hasty, ahasty = echo.using(deadline_s=0.1), aecho.using(deadline_s=0.1)
    late: list[Callable[[], Any]] = [
        lambda: hasty("slow"),
        lambda: hasty.response("slow"),
        lambda: list(hasty.stream("slow")),
        lambda: hasty.batch(["slow"]),
        lambda: asyncio.run(_awaited(ahasty("slow"))),
        lambda: asyncio.run(_awaited(ahasty.response("slow"))),
        lambda: asyncio.run(_awaited(ahasty.batch(["slow"]))),
    ]
    for call in late:
        with pytest.raises(DeadlineExceededError):
            call()
    assert echo.using(deadline_s=60).render("x") == echo.render("x")
    assert echo.using(deadline_s=60)("slow") == "slow"
    assert hasty.using(seed=1)._deadline_s == 0.1


def test_a_deadline_is_each_inputs_own_in_a_batch() -> None:
    """Five calls, one at a time, may take longer together than one of them may."""
    results: list[Any] = echo.using(deadline_s=1.2).batch(["slow"] * 5, concurrency=1)
    assert results == ["slow"] * 5
    (error,) = echo.using(deadline_s=0.1).batch(["slow"], on_error="return")
    assert isinstance(error, DeadlineExceededError)


def test_a_deadline_is_pickled_with_its_prompt() -> None:
    """By name, with what `using` said."""
    again = pickle.loads(pickle.dumps(echo.using(deadline_s=0.1)))
    with pytest.raises(DeadlineExceededError):
        again("slow")


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def test_what_a_batch_asks_knows_its_deadline() -> None:
    """Layers plan by it: a retry that would come too late is none."""
    known: list[float | None] = []

    class Own(Model):
        name = "own"

        def flow(self, request: Any, run: Run) -> Flow[Response]:
            known.append(run.deadline_s)
            yield Sleep(0)
            return Response.of("done")

    asked = echo.using(model=Own())
    asked.batch(["a"])
    begun = time.monotonic()
    asked.using(deadline_s=60).batch(["a"])
    unbounded, bounded = known
    assert unbounded is None
    assert bounded is not None
    assert begun + 60 <= bounded <= time.monotonic() + 60
