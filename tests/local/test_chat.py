"""A chat model in this process, from its model string to its span."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from llmops_sdk.errors import (
    BadRequestError,
    ContextTooLongError,
    DeadlineExceededError,
    MissingModelError,
    ModelStringError,
    StoreError,
    UnsupportedError,
    UsageError,
)
from llmops_sdk.flow import END, Model
from llmops_sdk.local import open_model
from llmops_sdk.local.chat import ONLY_JSON
from llmops_sdk.local.chat_engine import ChatEngine, Generation, Sampling
from llmops_sdk.testing import SpanRecorder
from llmops_sdk.tracing import semconv
from llmops_sdk.types import Message, OutputSchema, Reasoning, Text, ToolCall, ToolSpec


def test_a_stream_brings_what_a_call_returns(tiny: Model) -> None:
    """Greedy, so the same tokens: the deltas joined are the answer, and the last one says how it ended."""
    whole = tiny.complete("hello", max_tokens=24)
    with tiny.stream("hello", max_tokens=24) as stream:
        deltas = list(stream)
    assert "".join(delta.text for delta in deltas) == whole.text == stream.response.text
    assert len(deltas) > 5
    assert (deltas[-1].finish_reason, deltas[-1].usage) == ("length", whole.usage)
    assert whole.finish_reason == "length"
    assert whole.usage.output_tokens == 24
    assert whole.model == tiny.name


def test_an_answer_ends_at_a_stop_string_wherever_tokens_break(tiny: Model) -> None:
    """The text stops before the string; the tokens after it are never computed."""
    whole = tiny.complete("hello", max_tokens=40)
    stop = whole.text[10:13]
    cut = tiny.complete("hello", max_tokens=40, stop=[stop, "never said"])
    assert cut.text == whole.text[: whole.text.find(stop)]
    assert cut.finish_reason == "stop"
    assert whole.usage.output_tokens is not None
    assert cut.usage.output_tokens is not None
    assert cut.usage.output_tokens < whole.usage.output_tokens
    streamed = "".join(delta.text for delta in tiny.stream("hello", max_tokens=40, stop=[stop]))
    assert streamed == cut.text


def test_without_a_limit_an_answer_ends_with_the_context(tiny: Model) -> None:
    """Prompt and answer together fill the context, and no more."""
    response = tiny.complete("hello")
    assert response.finish_reason in ("length", "stop")
    assert response.usage.input_tokens is not None
    assert response.usage.output_tokens is not None
    if response.finish_reason == "length":
        assert response.usage.input_tokens + response.usage.output_tokens == 128


def test_a_seed_makes_a_sampled_answer_repeatable(tiny: Model) -> None:
    asked = {"temperature": 2.0, "max_tokens": 24}
    first, again, other = (tiny.complete("hello", seed=seed, **asked).text for seed in (-7, -7, 8))
    assert first == again != other
    assert len({tiny.complete("hello", **asked).text for _ in range(3)}) > 1


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 0.0},
        {"temperature": 1e-30},
        {"temperature": 1.5, "top_k": 1},
        {"temperature": 1.5, "top_p": 1e-9},
    ],
)
def test_what_leaves_one_token_to_choose_is_greedy(asked: dict[str, Any], tiny: Model) -> None:
    assert tiny.complete("hello", max_tokens=16, **asked).text == tiny.complete("hello", max_tokens=16).text


def test_a_chat_that_is_too_long_says_both_counts(tiny: Model) -> None:
    """How long it is, what fits, and how much must go."""
    fitting = tiny.complete("x" * 20, max_tokens=1).usage.input_tokens
    assert fitting is not None
    with pytest.raises(ContextTooLongError) as caught:
        tiny.complete("x" * 140)
    message = caught.value.message
    assert f"has {fitting + 120} tokens" in message
    assert "context is 128" in message
    assert f"at least {fitting + 120 - 127} tokens" in message
    longest = tiny.complete("x" * (20 + 127 - fitting))
    assert longest.usage.output_tokens == 1


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"top_p": 0}, "top_p must be"),
        ({"top_k": -1}, "top_k must be"),
        ({"top_k": 1.5}, "top_k must be"),
        ({"logit_bias": {"5": 1}}, "no option 'logit_bias'"),
    ],
)
def test_parameters_that_cannot_be_are_refused(asked: dict[str, Any], why: str, tiny: Model) -> None:
    with pytest.raises(BadRequestError, match=why):
        tiny.complete("hello", **asked)


def test_what_this_engine_cannot_do_it_says(tiny: Model) -> None:
    """Tools, tool calls in the chat, and embeddings."""
    with pytest.raises(UnsupportedError, match="cannot call tools"):
        tiny.complete("hello", tools=[ToolSpec(name="t")])
    with pytest.raises(UnsupportedError, match="holds ToolCall"):
        tiny.complete([Message.user("a"), Message.assistant(ToolCall(id="1", name="t")), Message.user("b")])
    with pytest.raises(UnsupportedError, match="answers chat requests"):
        tiny.embed(["a"])


def test_thoughts_of_an_earlier_answer_are_left_out(tiny: Model) -> None:
    """A chat that another model began can go on here."""
    thought = Message.assistant([Reasoning(text="hm"), Text(text="hi")])
    with_thought = tiny.complete([Message.user("a"), thought, Message.user("b")], max_tokens=8)
    without = tiny.complete([Message.user("a"), Message.assistant("hi"), Message.user("b")], max_tokens=8)
    assert (with_thought.text, with_thought.usage) == (without.text, without.usage)


def test_an_output_schema_is_told_in_the_system_message(tiny: Model) -> None:
    """Nothing constrains the tokens: the request is as if somebody had written the instruction."""
    schema = OutputSchema(name="n", schema_json='{"type":"null"}')
    told = f"{ONLY_JSON} {schema.schema_json}"
    for before, system in ((["S"], f"S\n\n{told}"), ([], told)):
        messages = [*map(Message.system, before), Message.user("hi")]
        asked = tiny.complete(messages, output=schema, max_tokens=1)
        written = tiny.complete([Message.system(system), Message.user("hi")], max_tokens=1)
        assert (asked.usage, asked.text) == (written.usage, written.text)


def test_threads_that_share_the_engine_get_their_own_answers(weights: Path) -> None:
    """Each answer has its own cache; the network is loaded once for all models of the same weights."""
    prompts = [f"{'ab' * n} hello" for n in range(6)]
    alone = [open_model(str(weights), {}, {}).complete(prompt, max_tokens=16).text for prompt in prompts]
    models = [open_model(str(weights), {}, {}) for _ in prompts]
    with ThreadPoolExecutor(6) as pool:
        together = list(
            pool.map(lambda pair: pair[0].complete(pair[1], max_tokens=16).text, zip(models, prompts, strict=True))
        )
    assert together == alone


def test_one_model_serves_several_event_loops(tiny: Model) -> None:
    alone = [tiny.complete(text, max_tokens=8).text for text in ("a", "b", "c")]

    async def ask() -> Sequence[str]:
        answers = await asyncio.gather(*(tiny.acomplete(text, max_tokens=8) for text in ("a", "b", "c")))
        return [answer.text for answer in answers]

    assert [asyncio.run(ask()) for _ in range(3)] == [alone] * 3


def generation(weights: Path, text: str = "hello") -> Generation:
    engine = ChatEngine.load(weights)
    prompt = engine.tokenizer.chat([{"role": "user", "content": text}])
    return Generation(engine, prompt, sampling=Sampling(), max_tokens=50, stop=())


def test_a_closed_answer_computes_no_more(weights: Path) -> None:
    """Closing from another thread, or twice, is no harm."""
    source = generation(weights)
    source.next()
    source.next()
    closer = threading.Thread(target=source.close)
    closer.start()
    closer.join()
    source.close()
    assert source.next() is END
    assert source.usage.output_tokens == 2


def test_an_answer_that_is_closed_before_it_began_reads_nothing(weights: Path) -> None:
    source = generation(weights)
    source.close()
    assert source.next() is END
    assert source.usage.output_tokens == 0


async def test_a_cancelled_step_is_the_last(weights: Path) -> None:
    """The token that a thread is computing is computed; nothing follows it."""
    source = generation(weights)
    await source.anext()
    step = asyncio.ensure_future(source.anext())
    await asyncio.sleep(0)
    step.cancel()
    await source.aclose()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert await source.anext() is END
    assert source.usage.output_tokens in (1, 2)


def test_a_stream_that_is_closed_early_ends_its_span(tiny: Model) -> None:
    with SpanRecorder() as recorder:
        stream = tiny.stream("hello")
        next(iter(stream))
        stream.close()
    (span,) = recorder.spans
    assert span.attributes[semconv.LLMOPS_CANCELLED] is True


def test_a_deadline_holds_between_tokens(tiny: Model) -> None:
    with pytest.raises(DeadlineExceededError):
        tiny.complete("hello", deadline_s=1e-6)


def test_the_span_says_what_was_asked_and_what_it_took(tiny: Model, weights: Path) -> None:
    with SpanRecorder() as recorder:
        response = tiny.complete("hello", max_tokens=4, temperature=0)
    (span,) = recorder.spans
    assert span.name == f"chat {weights}"
    assert span.attributes[semconv.GEN_AI_PROVIDER_NAME] == "local"
    assert span.attributes[semconv.GEN_AI_REQUEST_MAX_TOKENS] == 4
    assert span.attributes[semconv.GEN_AI_USAGE_INPUT_TOKENS] == response.usage.input_tokens
    assert span.attributes[semconv.GEN_AI_USAGE_OUTPUT_TOKENS] == 4
    assert span.attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] in (["length"], ("length",))
    assert span.attributes[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] > 0
    assert (response.trace_id, response.span_id) == (span.trace_id, span.span_id)


def test_threads_change_the_time_and_not_the_answer(weights: Path, tiny: Model) -> None:
    """And what torch was set to for the rest of the program stays."""
    before = torch.get_num_threads()
    two = open_model(str(weights), {"threads": "2"}, {})
    assert two.complete("hello", max_tokens=16).text == tiny.complete("hello", max_tokens=16).text
    assert torch.get_num_threads() == before


def test_defaults_of_the_model_are_part_of_its_name(weights: Path) -> None:
    """Two models that answer differently share no cache key; threads change no answer."""
    plain = open_model(str(weights), {"threads": "1"}, {})
    hot = open_model(str(weights), {}, {"temperature": 2.0, "max_tokens": 3})
    assert plain.name == f"local:{weights}"
    assert hot.name == f"local:{weights}?max_tokens=3&temperature=2.0"
    assert hot.complete("hello").usage.output_tokens == 3
    assert hot.complete("hello", max_tokens=2).usage.output_tokens == 2


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("", {}, "has a name or a path"),
        ("smollm2", {"quant": "int4"}, "no option 'quant'"),
        ("smollm2", {"threads": "0"}, "1 to 1024"),
        ("smollm2", {"threads": "two"}, "it is 'two'"),
    ],
)
def test_a_model_string_that_cannot_be_is_refused_before_anything_loads(
    name: str, options: dict[str, str], why: str
) -> None:
    with pytest.raises(ModelStringError, match=re.escape(why)):
        open_model(name, options, {})


def test_weights_that_are_not_here_are_missed_at_the_first_request(tmp_path: Path) -> None:
    """Writing the model down costs nothing and raises nothing."""
    absent = open_model(str(tmp_path / "absent.gguf"), {}, {})
    with pytest.raises(MissingModelError, match=r"absent\.gguf.*llmops models get smollm2"):
        absent.complete("hello")
    pickled = tmp_path / "model.bin"
    pickled.write_bytes(b"")
    with pytest.raises(UnsupportedError, match="pickle file"):
        open_model(str(pickled), {}, {}).complete("hello")
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(StoreError, match="not a whole GGUF file"):
        open_model(str(tmp_path / "other.gguf"), {}, {}).complete("hello")


def in_child(sender: Connection, model: Model) -> None:
    try:
        model.complete("hello", max_tokens=1)
    except UsageError as error:
        sender.send(error.message)
    else:
        sender.send("answered")


def test_a_child_forked_after_loading_is_told_what_to_do(tiny: Model) -> None:
    """The threads of the network stayed with the parent: instead of hanging, the child raises; the parent goes on."""
    before = tiny.complete("hello", max_tokens=4).text
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=in_child, args=(sender, tiny))
    child.start()
    assert receiver.poll(60)
    message = receiver.recv()
    child.join(60)
    assert child.exitcode == 0
    assert "forked" in message
    assert 'get_context("spawn")' in message
    assert tiny.complete("hello", max_tokens=4).text == before


ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
from llmops_sdk.errors import MissingExtraError
from llmops_sdk.local import open_model
try:
    open_model({weights!r}, {{}}, {{}}).complete("hello", max_tokens=1)
except MissingExtraError as error:
    print(error.message)
"""


@pytest.mark.parametrize("package", ["torch", "gguf"])
def test_a_missing_package_is_named_with_the_command_that_brings_it(package: str, weights: Path) -> None:
    """An interpreter that cannot find it stands for one that has not got it."""
    code = ABSENT.format(package=package, weights=str(weights))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"{package!r}" in ended.stdout
    assert "pip install 'llmops-sdk[torch]'" in ended.stdout
