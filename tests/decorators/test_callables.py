"""Every kind of callable, however it is called, bound, inherited, copied and pickled, behaves as it did undecorated."""

from __future__ import annotations

import abc
import asyncio
import contextvars
import copy
import functools
import gc
import inspect
import multiprocessing
import pickle
import subprocess
import sys
import threading
import typing
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import pytest
from pydantic import BaseModel, ConfigDict

from llmops_sdk import guard, prompt, retrieve, trace
from llmops_sdk.decorators import Wrapper
from llmops_sdk.errors import DecoratorError
from llmops_sdk.testing import ScriptedModel, SpanRecorder
from llmops_sdk.types import Verdict


class Pass:
    name = "pass"

    def check(self, text: str) -> Verdict:
        return Verdict(check=self.name)


F = TypeVar("F")


class Decorate(Protocol):
    """A decorator that keeps the type of what it is put on."""

    def __call__(self, function: F, /) -> F: ...


ways: dict[str, Any] = {
    "trace": trace,
    "guard": guard(Pass(), output=[Pass()]),
    "retrieve": retrieve,
    "trace over guard": lambda f: trace(guard(Pass())(f)),
    "guard over retrieve over trace": lambda f: guard(Pass())(retrieve(trace(f))),
}


@pytest.fixture(params=ways, ids=str)
def decorate(request: pytest.FixtureRequest) -> Decorate:
    way: Decorate = ways[request.param]
    return way


# Arguments ----------------------------------------------------------------------------------------------------------


def test_parameters_may_have_any_name(decorate: Decorate) -> None:
    """Also those that the wrapper's own functions use, as keywords and among **kwargs."""
    names = ("self", "args", "kwargs", "function", "mode", "call", "model", "want", "run", "inner", "target", "cls")

    def keywords(**kwargs: Any) -> Any:
        return kwargs

    def method_like(self: int, args: int = 2, *, mode: int = 3) -> Any:
        return self, args, mode

    given = {name: number for number, name in enumerate(names)}
    assert decorate(keywords)(**given) == given
    assert decorate(method_like)(self=1, args=5) == (1, 5, 3)
    assert decorate(lambda **kw: kw)(**{"*": "odd"}) == {"*": "odd"}


def test_every_kind_of_parameter_is_passed_on(decorate: Decorate) -> None:
    def every(a: int, /, b: int, c: int = 3, *args: int, d: int, e: int = 5, **kwargs: int) -> Any:
        return a, b, c, args, d, e, kwargs

    decorated = decorate(every)
    assert decorated(1, 2, d=4) == (1, 2, 3, (), 4, 5, {})
    assert decorated(1, 2, 6, 7, 8, d=4, e=9, f=10, args=11) == (1, 2, 6, (7, 8), 4, 9, {"f": 10, "args": 11})
    assert decorated(1, b=2, d=4, a=12) == (1, 2, 3, (), 4, 5, {"a": 12})


def test_wrong_arguments_are_the_functions_own_type_error(decorate: Decorate) -> None:
    def two(a: int, b: int) -> None:
        """Takes two."""

    decorated: Any = decorate(two)
    with pytest.raises(TypeError, match=r"two\(\) missing 1 required positional argument: 'b'"):
        decorated(1)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'c'"):
        decorated(1, 2, c=3)


def test_functions_without_a_signature_are_called_as_they_were(decorate: Decorate) -> None:
    """Builtins and types of C, also with a keyword."""
    assert decorate(max)(3, 5) == 5
    assert decorate(max)("aa", "b", key=len) == "aa"


# Binding ------------------------------------------------------------------------------------------------------------


def test_class_and_static_methods_bind_in_either_order(decorate: Decorate) -> None:
    class Host:
        tag = "host"

        @decorate
        @classmethod
        def outside(cls, x: int) -> Any:
            return cls.tag, x

        @classmethod
        @decorate
        def inside(cls, x: int) -> Any:
            return cls.tag, x

        @decorate
        @classmethod
        @trace
        def between(cls, x: int) -> Any:
            return cls.tag, x

        @decorate
        @staticmethod
        def static_outside(x: int) -> Any:
            return x

        @staticmethod
        @decorate
        def static_inside(x: int) -> Any:
            return x

        @decorate
        @staticmethod
        @trace
        def static_between(x: int) -> Any:
            return x

    class Child(Host):
        tag = "child"

    for name in ("outside", "inside", "between"):
        for owner in (Host, Host(), Child, Child()):
            assert getattr(owner, name)(1) == (owner.tag, 1)
            assert getattr(owner, name)(x=1) == (owner.tag, 1)
    for name in ("static_outside", "static_inside", "static_between"):
        for owner in (Host, Host(), Child()):
            assert getattr(owner, name)(1) == 1


def test_members_of_classes_keep_their_ways(decorate: Decorate) -> None:
    """super(), properties, cached properties, partial methods, slots and overriding."""

    class Base:
        __slots__ = ("__dict__", "x")

        def __init__(self) -> None:
            self.x = 2

        @decorate
        def times(self, y: int) -> int:
            return self.x * y

        double = functools.partialmethod(times, 2)

        @property
        @decorate
        def squared(self) -> int:
            return self.x**2

        @functools.cached_property
        @decorate
        def cubed(self) -> int:
            return self.x**3

    class Child(Base):
        __slots__ = ()

        @decorate
        def times(self, y: int) -> int:
            return int(super().times(y)) + 1

    child = Child()
    assert (child.times(5), child.double(), child.squared, child.cubed) == (11, 4, 4, 8)
    assert Base.times(child, 5) == 10
    assert Base.times(self=child, y=5) == 10


def test_abstract_methods_stay_abstract_and_protocols_see_members(decorate: Decorate) -> None:
    class Shape(abc.ABC):
        @decorate
        @abc.abstractmethod
        def area(self) -> int:
            """The area."""

    @runtime_checkable
    class HasArea(Protocol):
        def area(self) -> int: ...

    class Square(Shape):
        @decorate
        def area(self) -> int:
            return 4

    with pytest.raises(TypeError, match="abstract"):
        Shape()  # type: ignore[abstract]  # what is under test
    assert isinstance(Square(), HasArea)
    assert Square().area() == 4


def test_bound_methods_are_equal_where_functions_are(decorate: Decorate) -> None:
    """Registries of callbacks find and remove them."""

    class Host:
        @decorate
        def method(self) -> None:
            """A callback."""

        @decorate
        def other(self) -> None:
            """Another one."""

    one, two = Host(), Host()
    assert one.method == one.method
    assert hash(one.method) == hash(one.method)
    assert one.method != two.method
    assert one.method != one.other
    assert one.method != trace(one.method)
    assert getattr(one.method, "__self__") is one  # noqa: B009 - typed as a plain callable
    registry = [one.method, two.method]
    registry.remove(one.method)
    assert registry == [two.method]
    assert decorate(len) != decorate(len)


def test_callable_objects_partials_and_what_is_made_of_them(decorate: Decorate) -> None:
    class Adder:
        """Adds."""

        def __call__(self, a: int, b: int = 1) -> int:
            return a + b

    class AsyncAdder:
        async def __call__(self, a: int) -> int:
            return a + 1

    adder = Adder()
    assert decorate(adder)(1) == 2
    assert decorate(functools.partial(adder, b=5))(1) == 6
    assert decorate(functools.partial(functools.partial(adder, 1), 2))() == 3
    assert asyncio.run(decorate(AsyncAdder())(1)) == 2
    assert asyncio.run(decorate(functools.partial(AsyncAdder(), 1))()) == 2
    assert "Adder" in repr(decorate(functools.partial(adder)))
    assert inspect.signature(decorate(functools.partial(adder, 1))) == inspect.signature(functools.partial(adder, 1))


def test_a_partialmethod_is_refused_with_the_way_to_do_it(decorate: Decorate) -> None:
    with pytest.raises(DecoratorError, match="inside"):
        decorate(functools.partialmethod(lambda self, x: x, 1))


# What other code makes of it ----------------------------------------------------------------------------------------


def test_the_standard_library_takes_it_for_the_function(decorate: Decorate) -> None:
    """wraps, lru_cache, singledispatch, get_type_hints, weak references, threads."""

    def shown(a: int) -> str:
        """Shows."""
        return str(a)

    decorated: Any = decorate(shown)

    @functools.wraps(decorated)
    def around(*args: Any) -> Any:
        return decorated(*args)

    assert inspect.signature(around) == inspect.signature(shown)
    assert (around.__name__, around.__doc__, around(1)) == ("shown", "Shows.", "1")
    cached: Any = functools.lru_cache
    assert cached(decorated)(2) == "2"
    assert functools.singledispatch(decorated)(3) == "3"
    assert typing.get_type_hints(decorated) == {"a": int, "return": str}
    assert weakref.ref(decorated)() is decorated
    unwrap: Any = inspect.unwrap
    assert unwrap(decorated) is shown


def test_one_function_may_be_decorated_twice_and_apart() -> None:
    """Two decorated objects of one function share nothing."""

    def shared() -> None:
        """Called by both."""

    one, two = trace(name="one")(shared), trace(name="two")(shared)
    with SpanRecorder() as recorder:
        one()
        two()
        trace(name="outer")(one)()
    assert [span.name for span in recorder.spans] == ["one", "two", "one", "outer"]


def test_a_traced_function_may_call_itself(decorate: Decorate) -> None:
    def down(n: int) -> int:
        return 0 if n == 0 else 1 + decorated(n - 1)

    decorated: Any = decorate(down)
    with SpanRecorder() as recorder:
        assert decorated(30) == 30
    assert len({span.span_id for span in recorder.spans}) == len(recorder.spans) >= 31


def test_threads_call_one_decorated_function_at_once(decorate: Decorate) -> None:
    meeting = threading.Barrier(8, timeout=10)

    @decorate
    def meet(number: int) -> int:
        meeting.wait()
        return number

    results: list[int] = []
    threads = [threading.Thread(target=lambda n=n: results.append(meet(n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))


def test_a_function_defined_in_a_notebook_cell_is_decorated_like_any_other(decorate: Decorate) -> None:
    """Its code has no file, and its module is `__main__`."""
    namespace: dict[str, Any] = {"__name__": "__main__", "decorate": decorate}
    exec(compile("@decorate\ndef cell(x):\n    return x + 1\n", "<ipython-input-1>", "exec"), namespace)
    assert namespace["cell"](1) == 2


def test_context_variables_set_inside_are_seen_outside_as_without_a_decorator(decorate: Decorate) -> None:
    """A synchronous function and a coroutine run in their caller's context."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    @decorate
    def setting() -> None:
        variable.set("sync")

    @decorate
    async def asetting() -> None:
        variable.set("async")

    async def main() -> str:
        await asetting()
        return variable.get()

    def call() -> tuple[str, str]:
        setting()
        return variable.get(), asyncio.run(main())

    assert contextvars.copy_context().run(call) == ("sync", "async")


# Copies and pickles -------------------------------------------------------------------------------------------------


@trace
def at_module_level(x: int) -> int:
    return x + 1


@guard(Pass())
@prompt(ScriptedModel([]))
def question(text: str) -> str:
    return text


class Desk:
    tone = "dry"

    @trace
    def method(self, x: int) -> int:
        return x + 1

    @trace
    @classmethod
    def on_class(cls, x: int) -> int:
        return x + 1

    @trace
    @staticmethod
    def static(x: int) -> int:
        return x + 1

    @guard(Pass())
    @prompt(ScriptedModel([]))
    def ask(self, text: str) -> str:
        return f"{self.tone}: {text}"

    class Drawer:
        @trace
        def method(self, x: int) -> int:
            return x + 1


PICKLED: dict[str, Callable[[], Any]] = {
    "function": lambda: at_module_level,
    "method through its class": lambda: functools.partial(Desk.method, Desk()),
    "bound method": lambda: Desk().method,
    "class method": lambda: Desk.on_class,
    "class method of an instance": lambda: Desk().on_class,
    "static method": lambda: Desk.static,
    "method of a nested class": lambda: Desk.Drawer().method,
}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("make", PICKLED.values(), ids=PICKLED)
def test_what_has_a_name_is_pickled_by_it(make: Callable[[], Any], protocol: int) -> None:
    assert pickle.loads(pickle.dumps(make(), protocol))(1) == 2


def test_a_pickled_prompt_keeps_what_using_gave_it() -> None:
    """Unbound and bound; without it, another process would ask another model."""
    for made in (question.using(seed=7), Desk().ask.using(seed=7).using(temperature=0.5)):
        again = pickle.loads(pickle.dumps(made))
        assert again.render("x").seed == 7
        assert again.render("x") == made.render("x")
    assert pickle.loads(pickle.dumps(question)) is question


def test_what_its_name_does_not_lead_to_is_not_pickled() -> None:
    """As with functions: a pickle that came back as something else would be a surprise in another process."""

    @trace
    def local() -> None:
        """Has no name at module level."""

    with pytest.raises(pickle.PicklingError, match="module level"):
        pickle.dumps(local)
    with pytest.raises(pickle.PicklingError, match="other decorators"):
        pickle.dumps(trace(at_module_level))
    with pytest.raises(pickle.PicklingError, match="other decorators"):
        pickle.dumps(guard(Pass())(Desk().ask))


def test_a_bound_method_is_deep_copied_with_its_instance() -> None:
    desk = Desk()
    method: Any
    method, same = copy.deepcopy((desk.method, desk))
    assert method.__self__ is same is not desk
    assert copy.copy(desk.method) == desk.method
    ask: Any = copy.deepcopy(desk.ask)
    ask.__self__.tone = "warm"
    assert (ask.render("x").text, desk.ask.render("x").text) == ("warm: x", "dry: x")


def test_a_spawned_process_finds_decorated_functions_by_name(tmp_path: Path) -> None:
    """Those of the main script too, methods and prompts with overrides among them."""
    script = tmp_path / "work.py"
    script.write_text(
        "import multiprocessing\n"
        "from llmops_sdk import prompt, trace\n"
        "from llmops_sdk.testing import ScriptedModel\n"
        "@trace\n"
        "def double(x: int) -> int:\n"
        "    return 2 * x\n"
        "class Host:\n"
        "    @trace\n"
        "    def triple(self, x: int) -> int:\n"
        "        return 3 * x\n"
        "@prompt(ScriptedModel([]))\n"
        "def ask(text: str) -> str:\n"
        "    return text\n"
        "def seed(made):\n"
        "    return made.render('q').seed\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(double, [1, 2]), pool.map(Host().triple, [1]), pool.map(seed, [ask.using(seed=4)]))\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("[2, 4] [3] [4]\n", "")
    assert multiprocessing.get_start_method(allow_none=True) in (None, "fork", "spawn", "forkserver")


# Generators ---------------------------------------------------------------------------------------------------------


def test_yield_from_a_decorated_generator_passes_everything_through(decorate: Decorate) -> None:
    """Items, what is sent, what is thrown, and the return value."""

    @decorate
    def inner(most: int) -> Generator[int, int, str]:
        heard = []
        for number in range(most):
            try:
                heard.append((yield number))
            except KeyError:
                heard.append(-1)
        return f"heard {heard}"

    def outer() -> Generator[int, int, str]:
        return (yield from inner(3))

    generator = outer()
    assert next(generator) == 0
    assert generator.send(5) == 1
    assert generator.throw(KeyError()) == 2
    with pytest.raises(StopIteration) as stop:
        generator.send(7)
    assert stop.value.value == "heard [5, -1, 7]"


def test_a_generator_that_is_never_started_leaves_no_span_open(decorate: Decorate) -> None:
    """Its body never ran: nothing is recorded, and the garbage collector finds nothing to end."""

    @decorate
    def items() -> Generator[int, Any, None]:
        yield 1

    @decorate
    async def aitems() -> AsyncIterator[int]:
        yield 1

    with SpanRecorder() as recorder:
        items().close()
        aitems()
        gc.collect()
    assert recorder.spans == ()


def test_an_exception_thrown_in_and_not_caught_comes_back_once(decorate: Decorate) -> None:
    raised = LookupError("mine")

    @decorate
    def items() -> Generator[int, Any, None]:
        yield 1

    @decorate
    async def aitems() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        generator: Any = aitems()
        await anext(generator)
        await generator.athrow(raised)

    generator = items()
    next(generator)
    with pytest.raises(LookupError) as caught:
        generator.throw(raised)
    assert caught.value is raised
    with pytest.raises(LookupError) as caught:
        asyncio.run(main())
    assert caught.value is raised


def test_the_span_of_a_generator_is_current_only_while_it_runs() -> None:
    """Not in its consumer between two items, for plain and async generators; and nothing is left after an early end."""
    from llmops_sdk import current_span

    @trace(name="generator")
    def items() -> Iterator[str]:
        yield current_span().span_id
        yield current_span().span_id

    @trace(name="generator")
    async def aitems() -> AsyncIterator[str]:
        yield current_span().span_id
        await asyncio.sleep(0)
        yield current_span().span_id

    def consume() -> None:
        generator: Any = items()
        assert next(generator) != current_span().span_id == own
        assert next(generator) != current_span().span_id == own
        generator.close()
        assert current_span().span_id == own

    async def aconsume() -> None:
        generator: Any = aitems()
        assert await anext(generator) != current_span().span_id == own
        await generator.aclose()
        assert current_span().span_id == own

    with SpanRecorder() as recorder, trace.span("consumer") as consumer:
        own = consumer.span_id
        consume()
        asyncio.run(aconsume())
    assert [span.name for span in recorder.spans] == ["generator", "generator", "consumer"]
    assert [span.parent_id for span in recorder.spans] == [own, own, ""]
    assert [span.status for span in recorder.by_name("generator")] == ["unset", "unset"]


def test_an_early_close_runs_the_generators_clean_up_under_its_span() -> None:
    from llmops_sdk import current_span

    seen: list[str] = []

    @trace(name="generator")
    def items() -> Generator[int, Any, None]:
        try:
            yield 1
        finally:
            seen.append(current_span().span_id)

    with SpanRecorder() as recorder:
        generator = items()
        next(generator)
        generator.close()
    assert seen == [recorder.spans[0].span_id]


def test_the_current_span_is_what_it_was_after_a_call_that_fails(decorate: Decorate) -> None:
    from llmops_sdk import current_span

    @decorate
    def fails() -> None:
        raise LookupError

    @decorate
    async def afails() -> None:
        raise LookupError

    async def main() -> str:
        with pytest.raises(LookupError):
            await afails()
        return current_span().span_id

    with trace.span("caller") as caller:
        with pytest.raises(LookupError):
            fails()
        assert current_span().span_id == asyncio.run(main()) == caller.span_id


def test_a_batch_runs_no_more_calls_at_once_than_it_may() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def reply(request: Any) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1
        return str(request.text)

    @prompt(ScriptedModel([reply] * 12))
    def ask(text: str) -> str:
        return text

    inputs = [str(number) for number in range(12)]
    assert ask.batch(inputs, concurrency=2) == inputs
    assert most == 2


def test_a_cancelled_call_is_no_error_on_its_span() -> None:
    """Whoever cancelled it knows; an error rate must not count it."""

    @trace
    async def slow() -> None:
        await asyncio.sleep(1000)

    async def main() -> None:
        task = asyncio.ensure_future(slow())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with SpanRecorder() as recorder:
        asyncio.run(main())
    (span,) = recorder.spans
    assert span.status == "unset"
    assert span.attributes["llmops.cancelled"] is True


def test_a_pydantic_model_takes_decorated_methods_where_it_is_told_to() -> None:
    """pydantic wants every attribute annotated, except those of the types that it is told to leave alone."""

    class Desk(BaseModel):
        model_config = ConfigDict(ignored_types=(Wrapper,))
        tone: str = "dry"

        @trace
        def told(self, text: str) -> str:
            return f"{self.tone}: {text}"

        @prompt(ScriptedModel(["r"]))
        def ask(self, text: str) -> str:
            return self.told(text)

    assert set(Desk.model_fields) == {"tone"}
    assert Desk(tone="warm").told("x") == "warm: x"
    assert Desk().ask.render("x").messages[-1].text == "dry: x"
