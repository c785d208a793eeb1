"""Cached, ExactCache and single flight."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flow_harness import Face, FlowModel

from llmops_sdk.errors import (
    FlowCancelled,
    OverloadedError,
    StoreError,
    StreamInterruptedError,
    UsageError,
)
from llmops_sdk.flow import Block, Emit, Flow, Run, Sleep, run_async
from llmops_sdk.models.layers.cached import Cached
from llmops_sdk.models.layers.exact_cache import ExactCache
from llmops_sdk.models.layers.single_flight import Flights
from llmops_sdk.testing import ScriptedModel
from llmops_sdk.types import Delta, Message, Refusal, Request, Response, Usage


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


@pytest.fixture
def cache(tmp_path: Path) -> Any:
    cache = ExactCache(tmp_path / "cache")
    yield cache
    cache.close()


def ask(face: Face, model: Any, text: str = "q", **parameters: Any) -> Response:
    run = Run.start()
    response: Response = face.run(model.flow(Request.of(text, **parameters), run))
    return response


def test_an_equal_request_is_answered_once_and_costs_nothing_the_second_time(face: Face, cache: ExactCache) -> None:
    inner = ScriptedModel([Response.of("a", usage=Usage(input_tokens=7, output_tokens=1), cost_usd=0.5)])
    model = Cached(inner, cache=cache)
    first, second = ask(face, model), ask(face, model)
    assert (first.text, first.cached, first.cost_usd) == ("a", False, 0.5)
    assert (second.text, second.cached, second.cost_usd) == ("a", True, 0.0)
    assert second.usage == Usage(input_tokens=0, output_tokens=0)
    assert len(inner.requests) == 1


@pytest.mark.parametrize(
    "other",
    [{"temperature": 0.5}, {"max_tokens": 3}, {"stop": ["x"]}, {"seed": 1}, {"logit_bias": {"5": 1}}],
    ids=lambda p: next(iter(p)),
)
def test_any_difference_in_the_request_is_a_miss(cache: ExactCache, other: dict[str, Any]) -> None:
    inner = ScriptedModel(["a", "b"])
    model = Cached(inner, cache=cache)
    assert [model.complete("q").text, model.complete("q", **other).text] == ["a", "b"]


def test_models_of_other_names_do_not_share_answers_in_one_cache(cache: ExactCache) -> None:
    one, two = (Cached(ScriptedModel([name], name=name), cache=cache) for name in ("m1", "m2"))
    assert (one.complete("q").text, two.complete("q").text) == ("m1", "m2")


def test_another_process_finds_the_answer_on_disk(tmp_path: Path) -> None:
    first, second = ExactCache(tmp_path), ExactCache(tmp_path)
    assert Cached(ScriptedModel(["a"]), cache=first).complete("q").text == "a"
    assert Cached(ScriptedModel([]), cache=second).complete("q").cached
    first.close()
    second.close()


def test_get_and_put_are_the_caches_own_door(cache: ExactCache) -> None:
    request = Request.of("q")
    assert cache.get(request) is None
    cache.put(request, Response.of("stored"))
    assert cache.get(request) == Response.of("stored")
    assert cache.get(Request.of("other")) is None


def test_an_answer_expires(tmp_path: Path) -> None:
    cache = ExactCache(tmp_path, ttl_s=0.0)
    cache.put(Request.of("q"), Response.of("old"))
    assert cache.get(Request.of("q")) is None
    cache.close()


def test_memory_holds_the_latest_used_and_disk_the_rest(tmp_path: Path) -> None:
    small = ExactCache(tmp_path, memory_items=2)
    for text in "abc":
        small.put(Request.of(text), Response.of(text))
    assert small.recall(small.key(Request.of("a"))) is None
    assert small.get(Request.of("a")) == Response.of("a")
    small.close()


@pytest.mark.parametrize(
    "reply",
    [
        OverloadedError("busy"),
        Response(message=Message.assistant(Refusal(text="no"))),
        Response.of("", finish_reason="content_filter"),
        Response.of("…", finish_reason="other"),
    ],
    ids=["error", "refusal", "filtered", "other"],
)
def test_errors_and_refusals_are_never_stored(face: Face, cache: ExactCache, reply: Any) -> None:
    model = Cached(ScriptedModel([reply, "good"]), cache=cache)
    if isinstance(reply, Exception):
        with pytest.raises(OverloadedError, match="busy"):
            ask(face, model)
    else:
        assert ask(face, model).cached is False
    assert ask(face, model).text == "good"


# Streams ------------------------------------------------------------------------------------------------------------


def test_a_stream_that_ended_well_is_replayed_delta_by_delta(face: Face, cache: ExactCache) -> None:
    model = Cached(ScriptedModel(["one two three"]), cache=cache)
    live, stored = model.stream("q"), model.stream("q")
    first = face.read(live)
    second = face.read(stored)
    assert [d.text for d in first] == [d.text for d in second] == ["one", " two", " three", ""]
    assert (live.response.cached, stored.response.cached) == (False, True)
    assert stored.response.text == "one two three"


def test_an_answer_that_was_not_streamed_is_replayed_as_a_stream(face: Face, cache: ExactCache) -> None:
    model = Cached(ScriptedModel(["one two"]), cache=cache)
    ask(face, model)
    assert "".join(d.text for d in face.read(model.stream("q"))) == "one two"


def test_a_stream_that_was_left_or_broke_is_not_stored(face: Face, cache: ExactCache) -> None:
    def breaks(request: Any, run: Run) -> Flow[Response]:
        yield Emit(Delta(text="half"))
        raise StreamInterruptedError("cut", partial=Response.of("half"))

    model = Cached(ScriptedModel(["a b c", "d"]), cache=cache)
    face.read(model.stream("q"), most=1)
    assert ask(face, model).text == "d"
    with pytest.raises(StreamInterruptedError):
        face.read(Cached(FlowModel(breaks), cache=cache).stream("q"))
    assert cache.get(Request.of("q"), model="flow") is None


# Single flight ------------------------------------------------------------------------------------------------------


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until what threads and other tasks do has come true."""
    while not condition():  # noqa: ASYNC110 - an asyncio.Event would need a hand in what is tested
        await asyncio.sleep(0)


class Gate:
    """A model that counts its calls and answers when told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.lock = threading.Lock()
        self.entered = threading.Event()
        self.open = threading.Event()
        self.model = FlowModel(self.flow, "gate")

    def flow(self, request: Any, run: Run) -> Flow[Response]:
        with self.lock:
            self.calls += 1
        self.entered.set()
        while not self.open.is_set():
            yield Sleep(0.002)
        return Response.of((yield Block(lambda: "opened")))


def test_two_hundred_followers_share_one_flight_on_a_loop_with_two_threads(cache: ExactCache) -> None:
    gate = Gate()
    model = Cached(gate.model, cache=cache)

    async def main() -> list[Response]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        tasks = [asyncio.ensure_future(model.acomplete("q")) for _ in range(201)]
        await until(gate.entered.is_set)
        gate.open.set()
        return await asyncio.gather(*tasks)

    responses = asyncio.run(main())
    assert {r.text for r in responses} == {"opened"}
    assert gate.calls == 1
    assert sum(r.cached for r in responses) == 200


def test_threads_share_a_flight_with_tasks(cache: ExactCache) -> None:
    gate = Gate()
    model = Cached(gate.model, cache=cache)
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(model.complete("q").text)) for _ in range(4)]

    async def main() -> str:
        task = asyncio.ensure_future(model.acomplete("q"))
        await until(gate.entered.is_set)
        for thread in threads:
            thread.start()
        gate.open.set()
        return (await task).text

    assert asyncio.run(main()) == "opened"
    for thread in threads:
        thread.join()
    assert results == ["opened"] * 4
    assert gate.calls == 1


def test_a_cancelled_leader_is_followed_by_a_waiter_and_its_cancellation_is_not_shared(cache: ExactCache) -> None:
    gate = Gate()
    model = Cached(gate.model, cache=cache)

    async def main() -> tuple[list[str], bool]:
        leader = asyncio.ensure_future(model.acomplete("q"))
        await until(gate.entered.is_set)
        followers = [asyncio.ensure_future(model.acomplete("q")) for _ in range(3)]
        await asyncio.sleep(0.01)
        leader.cancel()
        await asyncio.wait([leader])
        gate.open.set()
        return [r.text for r in await asyncio.gather(*followers)], leader.cancelled()

    assert asyncio.run(main()) == (["opened"] * 3, True)
    assert gate.calls == 2


def test_followers_get_the_leaders_error_each_as_its_own(cache: ExactCache) -> None:
    gate = Gate()

    def flow(request: Any, run: Run) -> Flow[Response]:
        yield from gate.flow(request, run)
        raise OverloadedError("busy", retry_after_s=3)

    model = Cached(FlowModel(flow), cache=cache)

    async def main() -> list[Any]:
        tasks = [asyncio.ensure_future(model.acomplete("q")) for _ in range(3)]
        await until(gate.entered.is_set)
        await asyncio.sleep(0.01)
        gate.open.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    errors = asyncio.run(main())
    assert [(str(e), e.retry_after_s) for e in errors] == [("busy", 3)] * 3
    assert len({id(e) for e in errors}) == 3
    assert gate.calls == 1


def test_followers_share_a_refusal_that_is_not_stored(cache: ExactCache) -> None:
    """They asked at the same time; whoever asks later asks the model."""
    gate = Gate()

    def flow(request: Any, run: Run) -> Flow[Response]:
        yield from gate.flow(request, run)
        return Response(message=Message.assistant(Refusal(text="no")))

    model = Cached(FlowModel(flow), cache=cache)

    async def main() -> list[Response]:
        tasks = [asyncio.ensure_future(model.acomplete("q")) for _ in range(3)]
        await until(gate.entered.is_set)
        await asyncio.sleep(0.02)
        gate.open.set()
        return await asyncio.gather(*tasks)

    assert all(response.refused for response in asyncio.run(main()))
    assert gate.calls == 1
    assert model.complete("q").refused
    assert gate.calls == 2


def test_a_follower_goes_alone_when_the_leader_takes_longer_than_its_lease(cache: ExactCache) -> None:
    gate = Gate()
    model = Cached(gate.model, cache=cache, lease_s=0.02)

    async def main() -> str:
        leader = asyncio.ensure_future(model.acomplete("q"))
        await until(gate.entered.is_set)
        follower = asyncio.ensure_future(model.acomplete("q"))
        await until(lambda: gate.calls == 2)
        gate.open.set()
        await leader
        return (await follower).text

    assert asyncio.run(main()) == "opened"


def test_a_call_made_while_reading_a_stream_of_the_same_request_does_not_wait_for_itself(cache: ExactCache) -> None:
    model = Cached(ScriptedModel(["a b", "c"]), cache=cache)
    with model.stream("q") as stream:
        next(stream)
        assert model.complete("q").text == "c"


def test_a_call_made_while_reading_an_async_stream_of_the_same_request_does_not_wait_for_itself(
    cache: ExactCache,
) -> None:
    """The task that would read on is the one that would wait."""
    model = Cached(ScriptedModel(["a b", "c"]), cache=cache)

    async def main() -> str:
        async with model.astream("q") as stream:
            await anext(stream)
            async with asyncio.timeout(10):
                return (await model.acomplete("q")).text

    assert asyncio.run(main()) == "c"


def test_a_leader_collected_while_another_flight_begins_does_not_lock_itself_out() -> None:
    """The collector may run anywhere, in the middle of `join` too, in the same thread."""
    flights: Flights[str] = Flights()
    leader, _ = flights.join("leader")

    class Key(str):
        """A key whose look-up is the moment of the collection."""

        __slots__ = ()

        def __hash__(self) -> int:
            leader.abandon()
            return super().__hash__()

    thread = threading.Thread(target=lambda: flights.join(Key("other")), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert leader.future.done()


def test_a_collected_leader_lets_its_followers_go_on(cache: ExactCache) -> None:
    model = Cached(ScriptedModel(["a b", "c"]), cache=cache)
    stream = model.stream("q")
    next(stream)
    answers: list[str] = []
    follower = threading.Thread(target=lambda: answers.append(model.complete("q").text))
    follower.start()
    del stream
    follower.join(10)
    assert answers == ["c"]


# Loops and processes ----------------------------------------------------------------------------------------------


def test_one_cached_model_serves_three_event_loops_and_four_threads(cache: ExactCache) -> None:
    model = Cached(ScriptedModel([str(n) for n in range(7)]), cache=cache)
    texts = [asyncio.run(model.acomplete(f"loop {n}")).text for n in range(3)]
    with ThreadPoolExecutor(4) as pool:
        texts += list(pool.map(lambda n: model.complete(f"thread {n}").text, range(4)))
    assert sorted(texts) == [str(n) for n in range(7)]


def test_one_model_and_one_cache_serve_two_event_loops_at_once(cache: ExactCache) -> None:
    """Equal requests of two threads' loops share flights; each request is asked once."""
    asked: list[str] = []

    def flow(request: Any, run: Run) -> Flow[Any]:
        asked.append(request.text)
        yield Sleep(0.002)
        return Response.of((yield Block(request.text.upper)))

    model = Cached(FlowModel(flow), cache=cache)
    results: list[list[str]] = []

    async def main() -> list[str]:
        responses = await asyncio.gather(*(model.acomplete(f"q{n % 5}") for n in range(50)))
        return [response.text for response in responses]

    threads = [threading.Thread(target=lambda: results.append(asyncio.run(main()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [[f"Q{n % 5}" for n in range(50)]] * 2
    assert sorted(asked) == [f"q{n}" for n in range(5)]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_leaders_that_stayed_in_the_parent(cache: ExactCache) -> None:
    model = Cached(ScriptedModel(["a b", "child"]), cache=cache)
    stream = model.stream("q")
    next(stream)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(model.complete("q").text))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert queue.get() == "child"
    stream.close()
    queue.close()


# Bad files ----------------------------------------------------------------------------------------------------------


def corrupt(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cache.db").write_bytes(b"this is not a database, it is a text of some length" * 50)


def test_a_corrupt_cache_file_is_a_typed_error_and_the_model_goes_on_without(tmp_path: Path, face: Face) -> None:
    corrupt(tmp_path / "c")
    cache = ExactCache(tmp_path / "c")
    with pytest.raises(StoreError, match="delete the folder"):
        cache.get(Request.of("q"))
    model = Cached(ScriptedModel(["a", "b"]), cache=cache)
    assert ask(face, model).text == "a"
    assert ask(face, model).cached  # from memory


def test_an_unwritable_folder_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="writable"):
        ExactCache(tmp_path / "file" / "cache").put(Request.of("q"), Response.of("a"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"ttl_s": "x"}, "ttl_s must be a number of 0 or more, or None; it is 'x'"),
        ({"ttl_s": -1}, "ttl_s must be a number of 0 or more, or None; it is -1"),
        ({"path": ""}, "path must be a folder"),
        ({"path": 3}, "path must be a folder, .* it is 3"),
        ({"memory_items": -1}, "memory_items must be"),
        ({"size_bytes": 0}, "size_bytes must be"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], told: str) -> None:
    """An empty path would be the working directory."""
    with pytest.raises(UsageError, match=told):
        ExactCache(**arguments)


def test_a_cache_that_fails_says_so_once_for_each_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not twice a call: the log names the folder, the span of each call tells that it went without."""
    (tmp_path / "file").write_text("")
    broken = ExactCache(tmp_path / "file" / "cache", memory_items=0)
    model = Cached(ScriptedModel(["a", "b", "c"]), cache=broken)
    assert [model.complete("q").text for _ in range(3)] == ["a", "b", "c"]
    (record,) = (record for record in caplog.records if record.name == "llmops_sdk")
    assert str(tmp_path / "file" / "cache") in record.getMessage()
    Cached(ScriptedModel(["a"]), cache=ExactCache(tmp_path / "file" / "cache")).complete("q")
    assert len([record for record in caplog.records if record.name == "llmops_sdk"]) == 2


def test_a_reason_is_the_same_whatever_file_it_names(tmp_path: Path) -> None:
    """diskcache writes each large answer to a file of its own, so that each failure reads otherwise."""

    def failed(cause: OSError) -> StoreError:
        error = StoreError(str(cause))
        error.__cause__ = cause
        return error

    cache = ExactCache(tmp_path)
    assert cache.is_news(failed(OSError(28, "No space left on device", "a.val")))
    assert not cache.is_news(failed(OSError(28, "No space left on device", "b.val")))
    assert cache.is_news(failed(OSError(13, "Permission denied", "b.val")))


def test_an_unusable_cache_in_the_home_is_named_by_its_path(llmops_home: Path) -> None:
    """ "The home" may be one of several."""
    llmops_home.mkdir(exist_ok=True)
    (llmops_home / "cache").write_text("")
    with pytest.raises(StoreError, match=f"The cache in {llmops_home / 'cache'} cannot"):
        ExactCache().put(Request.of("q"), Response.of("a"))


def test_an_entry_that_cannot_be_read_is_a_miss_and_is_replaced(tmp_path: Path) -> None:
    cache = ExactCache(tmp_path, memory_items=0)
    cache.put(Request.of("q"), Response.of("a"))
    with sqlite3.connect(tmp_path / "cache.db") as files:
        files.execute("UPDATE Cache SET value = '{\"response\": 3'")
    files.close()
    assert cache.get(Request.of("q")) is None
    cache.put(Request.of("q"), Response.of("b"))
    assert cache.get(Request.of("q")) == Response.of("b")
    cache.close()


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


def test_a_pickle_in_the_cache_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = ExactCache(tmp_path / "c", memory_items=0)
    cache.put(Request.of("q"), Response.of("a"))
    with sqlite3.connect(tmp_path / "c" / "cache.db") as files:
        files.execute("UPDATE Cache SET value = ?, mode = 4", (pickle.dumps(Bomb()),))
    files.close()
    assert cache.get(Request.of("q")) is None
    assert not (tmp_path / "exploded").exists()
    cache.close()


def test_a_layer_passes_on_requests_that_it_does_not_know(cache: ExactCache) -> None:
    from llmops_sdk.types import EmbedRequest

    def flow(request: Any, run: Run) -> Flow[str]:
        return type(request).__name__
        yield

    run = Run.start()
    model = Cached(FlowModel(flow), cache=cache)
    assert Face("sync").run(model.flow(EmbedRequest(texts=("a",)), run)) == "EmbedRequest"


def test_usage_error_of_an_exhausted_script_is_not_stored(cache: ExactCache) -> None:
    model = Cached(ScriptedModel([]), cache=cache)
    with pytest.raises(UsageError, match="0 replies"):
        model.complete("q")


def test_a_leader_that_is_cancelled_while_it_writes_has_landed(tmp_path: Path) -> None:
    """Its followers have the answer, though the disk has not."""
    gate = Gate()
    gate.open.set()
    cache = ExactCache(tmp_path)
    model = Cached(gate.model, cache=cache)
    flow = model.flow(Request.of("q"), Run.start())

    async def main() -> str:
        task = asyncio.ensure_future(run_async(flow, Run.start()))
        await until(lambda: cache.recall(cache.key(Request.of("q"), model="gate")) is not None)
        task.cancel()
        try:
            await task
        except (asyncio.CancelledError, FlowCancelled):
            pass
        return (await model.acomplete("q")).text

    assert asyncio.run(main()) == "opened"
    assert gate.calls == 1
    cache.close()


@pytest.mark.parametrize("how", ["thread ends", "cache goes", "cache goes with a cycle", "program ends"])
def test_every_connection_is_closed(how: str, tmp_path: Path) -> None:
    """Python 3.13 warns of one that is left to the garbage collector, and a host may make an error of it."""
    code = f"""
import gc, threading
from llmops_sdk import ExactCache, Request, Response
cache = ExactCache({str(tmp_path)!r})
how = {how!r}
if how == "thread ends":
    thread = threading.Thread(target=cache.put, args=(Request.of("q"), Response.of("a")))
    thread.start()
    thread.join()
    cache = None
else:
    cache.put(Request.of("q"), Response.of("a"))
    if how == "cache goes with a cycle":
        cache.itself = [cache]
    if how != "program ends":
        cache = None
        gc.collect()
"""
    ended = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr == ""


def test_what_is_cached_is_for_the_owner_alone(tmp_path: Path) -> None:
    """Answers lie on disk in clear text."""
    folder = tmp_path / "answers"
    ExactCache(folder).put(Request.of("q"), Response.of("private"))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "cache.db").stat().st_mode & 0o777 == 0o600
