"""What survives decoration: name, signature, kind, binding, pickling, generators; and what is refused."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Annotated, Any, Literal, NewType

import pytest

from llmops_sdk import Message, guard, prompt, retrieve, trace
from llmops_sdk.errors import DecoratorError, LLMOpsError, ModelStringError, PromptBodyError, UsageError
from llmops_sdk.testing import ScriptedModel
from llmops_sdk.types import Verdict


class Pass:
    name = "pass"

    def check(self, text: str) -> Verdict:
        return Verdict(check=self.name)


ways: dict[str, Callable[[Any], Any]] = {
    "trace": trace,
    "trace()": trace(name="named", colour="blue"),
    "guard": guard(Pass(), output=[Pass()]),
    "retrieve": retrieve,
    "trace over guard": lambda f: trace(guard(Pass())(f)),
    "guard over trace": lambda f: guard(Pass())(trace(f)),
}


@pytest.fixture(params=ways, ids=str)
def decorate(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return ways[request.param]


def add(a: int, b: int = 2, *, c: int = 3) -> int:
    """Adds."""
    return a + b + c


async def aadd(a: int, b: int = 2) -> int:
    """Adds, later."""
    await asyncio.sleep(0)
    return a + b


def count(most: int) -> Iterator[int]:
    yield from range(most)


async def acount(most: int) -> AsyncIterator[int]:
    for number in range(most):
        yield number


def test_name_docstring_signature_and_kind_survive(decorate: Any) -> None:
    for function in (add, aadd, count, acount):
        wrapped = decorate(function)
        assert (wrapped.__name__, wrapped.__qualname__, wrapped.__module__, wrapped.__doc__) == (
            function.__name__,
            function.__qualname__,
            function.__module__,
            function.__doc__,
        )
        assert inspect.signature(wrapped) == inspect.signature(function)
        for kind in (
            inspect.iscoroutinefunction,
            inspect.isgeneratorfunction,
            inspect.isasyncgenfunction,
            asyncio.iscoroutinefunction,
        ):
            assert kind(wrapped) == kind(function)


def test_each_kind_of_function_answers_as_before(decorate: Any) -> None:
    async def read() -> list[int]:
        return [number async for number in decorate(acount)(3)]

    assert decorate(add)(1) == 6
    assert decorate(add)(1, 1, c=1) == 3
    assert asyncio.run(decorate(aadd)(1)) == 3
    assert list(decorate(count)(3)) == [0, 1, 2]
    assert asyncio.run(read()) == [0, 1, 2]
    assert decorate(functools.partial(add, 1))(1) == 5


class Host:
    factor = 10

    @trace
    def method(self, x: int) -> int:
        """Multiplies."""
        return self.factor * x

    @trace
    @classmethod
    def on_class(cls, x: int) -> int:
        return cls.factor * x

    @classmethod
    @trace
    def under_class(cls, x: int) -> int:
        return cls.factor * x

    @trace
    @staticmethod
    def static(x: int) -> int:
        return x

    def __call__(self, x: int) -> int:
        return x + 1


class Child(Host):
    factor = 20

    def method(self, x: int) -> int:
        return super().method(x) + 1


def test_methods_bind_as_functions_do() -> None:
    assert Host().method(2) == 20
    assert Host.method(Host(), 2) == 20
    assert Child().method(2) == 41
    assert [Host.on_class(1), Child.on_class(1), Child().on_class(1)] == [10, 20, 20]
    assert [Host.under_class(1), Child().under_class(1)] == [10, 20]
    assert [Host.static(1), Host().static(1)] == [1, 1]
    assert trace(Host())(1) == 2
    assert str(inspect.signature(Host().method)) == "(x: 'int') -> 'int'"
    assert Host().method.__doc__ == "Multiplies."


@trace
def at_module_level(x: int) -> int:
    return x


def test_decorated_functions_pickle_by_qualified_name_and_copy_as_themselves() -> None:
    assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level
    assert pickle.loads(pickle.dumps(Host.method)) is Host.method
    assert pickle.loads(pickle.dumps(Host().method))(2) == 20
    assert copy.copy(at_module_level) is at_module_level
    assert copy.deepcopy([at_module_level])[0] is at_module_level


# Generators ---------------------------------------------------------------------------------------------------------


def test_send_throw_return_and_close_reach_the_generator(decorate: Any) -> None:
    log: list[str] = []

    def talk() -> Generator[Any, Any, str]:
        received: list[Any] = []
        try:
            while True:
                try:
                    received.append((yield len(received)))
                except KeyError as error:
                    received.append(f"caught {error}")
                if len(received) == 3:
                    return f"said {received}"
        finally:
            log.append("closed")

    generator = decorate(talk)()
    assert next(generator) == 0
    assert generator.send("a") == 1
    assert generator.throw(KeyError("k")) == 2
    with pytest.raises(StopIteration) as stop:
        generator.send("c")
    assert stop.value.value == "said ['a', \"caught 'k'\", 'c']"
    early = decorate(talk)()
    next(early)
    early.close()
    assert log == ["closed", "closed"]


def test_asend_athrow_and_aclose_reach_the_async_generator(decorate: Any) -> None:
    log: list[Any] = []

    async def talk() -> Any:
        try:
            while True:
                try:
                    log.append((yield len(log)))
                except KeyError as error:
                    log.append(str(error))
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    async def converse() -> list[Any]:
        generator = decorate(talk)()
        items = [await anext(generator), await generator.asend("a"), await generator.athrow(KeyError("k"))]
        await generator.aclose()
        return items

    assert asyncio.run(converse()) == [0, 1, 2]
    assert log == ["a", "'k'", "closed"]


def test_an_async_generator_may_be_closed_in_another_task(decorate: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        generator = decorate(acount)(3)
        await asyncio.create_task(anext(generator))
        await asyncio.create_task(generator.aclose())

    asyncio.run(main())
    assert "detach" not in caplog.text


def test_the_users_exception_is_the_callers_exception(decorate: Any) -> None:
    raised = LookupError("mine")

    def fails() -> None:
        raise raised

    async def afails() -> None:
        raise raised

    def gfails() -> Iterator[int]:
        yield 1
        raise raised

    with pytest.raises(LookupError) as caught:
        decorate(fails)()
    assert caught.value is raised
    with pytest.raises(LookupError) as caught:
        asyncio.run(decorate(afails)())
    assert caught.value is raised
    with pytest.raises(LookupError) as caught:
        list(decorate(gfails)())
    assert caught.value is raised
    assert caught.value.__cause__ is None


# Prompts ------------------------------------------------------------------------------------------------------------


@prompt(ScriptedModel([]), temperature=0.1)
def greet(name: str, *, mood: str = "kind") -> str:
    """You greet.

    In one line.
    """
    return f"Greet {name}, be {mood}."


def test_a_prompt_renders_its_body_docstring_and_parameters() -> None:
    request = greet.render("Ada")
    assert request.messages == (Message.system("You greet.\n\nIn one line."), Message.user("Greet Ada, be kind."))
    assert request.temperature == 0.1
    assert greet.using(temperature=1, max_tokens=5).render("Ada").temperature == 1
    assert greet.render("Ada").max_tokens is None


def test_system_text_may_be_given_and_messages_may_be_returned() -> None:
    @prompt(ScriptedModel(["ok"]), system="Be brief.")
    def turns() -> list[Message]:
        return [Message.user("hi"), Message.assistant("hello"), Message.user("bye")]

    assert [m.role for m in turns.render().messages] == ["system", "user", "assistant", "user"]
    assert turns() == "ok"


def test_structured_output_is_validated_and_repaired_once() -> None:
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    model = ScriptedModel(['{"name": "Rome"}', '{"name": "Rome", "people": 3}'])

    @prompt(model, output=City)
    def city() -> str:
        return "Which city?"

    assert city() == City(name="Rome", people=3)
    repair = model.requests[1].messages[-1].text
    assert "people" in repair
    assert model.requests[0].output is not None


def test_an_answer_that_fits_no_second_time_either_is_an_error_with_the_answer() -> None:
    from llmops_sdk.errors import OutputValidationError

    @prompt(ScriptedModel(["nonsense", "still nonsense"]), output=int)
    def number() -> str:
        return "A number?"

    with pytest.raises(OutputValidationError) as caught:
        number()
    assert caught.value.text == "still nonsense"


def test_prompt_methods_bind_and_keep_every_entry_point() -> None:
    model = ScriptedModel(["r"] * 10)

    class Desk:
        tone = "dry"

        @prompt(model)
        def answer(self, question: str) -> str:
            return f"{self.tone}: {question}"

        @prompt(model)
        @classmethod
        def classy(cls, question: str) -> str:
            return f"{cls.tone}! {question}"

        @prompt(model)
        async def later(self, question: str) -> str:
            return f"{self.tone}… {question}"

    desk = Desk()
    assert desk.answer("why") == "r"
    assert desk.answer.response("why").text == "r"
    assert "".join(d.text for d in desk.answer.stream("why")) == "r"
    assert desk.answer.batch(["a", "b"]) == ["r", "r"]
    assert desk.answer.using(seed=1).render("why").messages[0].text == "dry: why"
    classy: Any = Desk.classy
    assert classy.render("why").messages[0].text == "dry! why"
    assert asyncio.run(desk.later("why")) == "r"
    assert desk.answer.version == Desk.answer.version


def test_batch_keeps_order_and_gives_errors_in_their_place_when_asked() -> None:
    def reply(request: Any) -> Any:
        if request.text == "bad":
            raise LookupError("bad")
        return request.text.upper()

    @prompt(ScriptedModel([reply] * 20))
    def shout(text: str) -> str:
        return text

    assert shout.batch(["a", "b", "c"], concurrency=2) == ["A", "B", "C"]
    with pytest.raises(LookupError):
        shout.batch(["a", "bad"])
    first, second = shout.batch(["a", "bad"], on_error="return")
    assert first == "A"
    assert isinstance(second, LookupError)
    assert shout.batch([]) == []


def test_overrides_win_from_the_call_outwards() -> None:
    from llmops_sdk import using

    inner, scoped, called = (ScriptedModel([name] * 5, name=name) for name in ("declared", "scope", "call"))

    @prompt(inner, temperature=0.1)
    def ask() -> str:
        return "q"

    assert ask() == "declared"
    with using(model=scoped, temperature=0.5):
        assert ask() == "scope"
        assert scoped.requests[-1].temperature == 0.5
        assert ask.using(model=called, temperature=0.9)() == "call"
        assert called.requests[-1].temperature == 0.9


# Wrong use ----------------------------------------------------------------------------------------------------------


def test_wrong_uses_are_told_at_decoration_with_the_next_step() -> None:
    def unannotated():  # type: ignore[no-untyped-def]  # the mistake under test
        return ""

    class Local:
        """Not found when annotations are resolved."""

    def returns_none(given: Local) -> None:
        """The mistake under test."""

    model = ScriptedModel([])
    anything: dict[str, Any] = {"class": Host, "generator": count, "check class": Pass}
    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: trace(Host), "Host is a class"),
        (lambda: prompt(model)(anything["class"]), "Host is a class"),
        (lambda: guard(Pass())(Host), "Host is a class"),
        (lambda: prompt(model, temprature=1), "Did you mean temperature="),  # type: ignore[call-overload]
        (lambda: prompt(model, frequency_penalty=1), "extra="),  # type: ignore[call-overload]
        (lambda: prompt(model)(unannotated), "no return annotation"),
        (lambda: prompt(model)(anything["generator"]), "yields"),
        (lambda: prompt(greet), "parentheses"),  # type: ignore[call-overload]
        (lambda: prompt(3), "it is int"),  # type: ignore[call-overload]
        (lambda: prompt(model)(greet), "already"),
        (lambda: greet.using(temprature=1), "temperature"),
        (lambda: guard(), "at least one check"),
        (lambda: guard(anything["check class"]), "not classes"),
        (lambda: guard(add), "objects with a name"),  # type: ignore[arg-type]
        (lambda: guard(Pass(), on_error="maybe"), "on_error"),  # type: ignore[arg-type]
        (lambda: guard(outputs=[Pass()]), "Did you mean output="),  # type: ignore[arg-type]
        (lambda: guard(Pass(), stage=1), "comes first"),  # type: ignore[arg-type]
        (lambda: trace(nme="x"), "Did you mean name="),
        (lambda: prompt(model)(returns_none), "annotated to return None"),  # type: ignore[arg-type]
        (lambda: prompt(model, output=lambda text: text), "output= is the type of the answer"),
        (lambda: prompt(model, output="City"), "output= is the type of the answer"),
        (lambda: greet.using(deadline_s=0), "above 0; it is 0"),
        (lambda: greet.using(deadline_s="5"), "above 0; it is '5'"),  # type: ignore[arg-type]
        (lambda: guard(output=Pass()), "list of checks"),  # type: ignore[arg-type]
        (lambda: retrieve(), "takes an index"),  # type: ignore[call-overload]
        (lambda: trace(3), "this is int"),  # type: ignore[call-overload]
    ]
    for use, told in wrong:
        with pytest.raises(DecoratorError, match=told.replace("(", r"\(")):
            use()


def test_what_only_looks_like_a_mistake_is_none() -> None:
    """Other attributes of a span, and every kind of type that pydantic knows."""
    trace(game="chess", names=("a",))
    outputs: list[Any] = [int | None, list[str], Annotated[int, "x"], Literal["a"], Any, NewType("N", int), Host, None]
    for output in outputs:
        prompt(ScriptedModel([]), output=output)


def test_a_callable_that_has_no_signature_may_be_a_prompt() -> None:
    """What it returns shows when it is called."""

    class Unsigned:
        __signature__ = "none"

        def __call__(self) -> str:
            return "q"

    assert prompt(ScriptedModel([]))(Unsigned()).render().text == "q"


def test_a_model_string_is_read_where_it_is_written() -> None:
    """At decoration and by `using`, not at the first call."""
    with pytest.raises(ModelStringError, match="opnai"):
        prompt(model="opnai:x")
    with pytest.raises(ModelStringError, match="opnai"):
        greet.using(model="opnai:x")


@pytest.mark.parametrize("inputs", ["ab", b"ab", {"x": 1}, 3], ids=repr)
def test_one_input_is_no_batch(inputs: Any) -> None:
    """A text would be read letter by letter, a mapping key by key."""

    @prompt(ScriptedModel([]))
    async def later(name: str) -> str:
        return name

    with pytest.raises(UsageError, match="a list of inputs"):
        greet.batch(inputs)
    with pytest.raises(UsageError, match="a list of inputs"):
        asyncio.run(later.batch(inputs))  # type: ignore[arg-type]  # it is a coroutine


def test_a_return_annotation_of_the_answers_type_is_told_where_it_belongs() -> None:
    namespace: dict[str, Any] = {}
    exec("def answers_int() -> int:\n    return 3", namespace)
    with pytest.raises(DecoratorError, match=r"output=int"):
        prompt(ScriptedModel([]))(namespace["answers_int"])


@pytest.mark.parametrize("returned", [None, 3, [], [1], {"a": 1}], ids=repr)
def test_a_body_that_returns_the_wrong_type_is_told_by_name(returned: Any) -> None:
    @prompt(ScriptedModel(["never"]))
    def body() -> str:
        return returned  # type: ignore[no-any-return]  # the mistake under test

    with pytest.raises(PromptBodyError, match="body"):
        body()


def test_a_prompt_without_any_model_says_where_to_put_one() -> None:
    @prompt()
    def orphan() -> str:
        return "q"

    assert orphan.render().text == "q"
    with pytest.raises(UsageError, match="LLMOPS_MODEL"):
        orphan()


def test_errors_are_of_one_tree() -> None:
    assert issubclass(DecoratorError, UsageError)
    assert issubclass(PromptBodyError, LLMOpsError)
