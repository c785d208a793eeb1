"""Embedding in this process with MiniLM."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmops_sdk.errors import MissingModelError, ModelStringError, StoreError, UnsupportedError
from llmops_sdk.flow import Model, Run, run_sync
from llmops_sdk.local import open_model
from llmops_sdk.local.embed_engine import EmbedEngine
from llmops_sdk.local.weights import find_weights
from llmops_sdk.settings import Settings
from llmops_sdk.testing import SpanRecorder
from llmops_sdk.tracing import semconv
from llmops_sdk.types import EmbedRequest

pytestmark = pytest.mark.weights

TEXTS = (
    "json.dumps serialises an object to a JSON string.",
    "How do I turn a dictionary into JSON text?",
    "The cat sat on the mat.",
    "",
)


@pytest.fixture(scope="module")
def minilm() -> Model:
    return open_model("minilm", {}, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The small files of MiniLM, without its weights."""
    source = find_weights("minilm", Settings())
    return Path(shutil.copytree(source, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors")))


def test_vectors_are_of_length_one_and_near_where_meanings_are(minilm: Model) -> None:
    vectors = minilm.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    near, far = vectors[1] @ vectors[0], vectors[1] @ vectors[2]
    assert near > far + 0.3


def test_company_changes_no_vector(minilm: Model) -> None:
    """Texts of other lengths in the same batch, and more texts than fit into one effect: the same vectors, in order."""
    texts = [TEXTS[n % 3] + " more" * (n % 7) for n in range(70)]
    together = minilm.embed(texts)
    for at in (0, 5, 69):
        np.testing.assert_allclose(together[at], minilm.embed([texts[at]])[0], atol=2e-6)


def test_what_is_too_long_is_cut_off(minilm: Model) -> None:
    """256 tokens are read, as the model's own folder says."""
    words = ["word"] * 254
    run = Run.start()
    answer = run_sync(minilm.flow(EmbedRequest(texts=(" ".join([*words, "and", "more"]),)), run), run)
    assert answer.usage.input_tokens == 256
    np.testing.assert_allclose(answer.vectors[0], minilm.embed([" ".join(words)])[0], atol=2e-6)


def test_no_text_gives_no_vector(minilm: Model) -> None:
    assert minilm.embed([]).shape == (0, 384)


def test_it_embeds_for_event_loops_too(minilm: Model) -> None:
    np.testing.assert_array_equal(asyncio.run(minilm.aembed(TEXTS)), minilm.embed(TEXTS))


def test_the_span_counts_tokens_and_dimensions(minilm: Model) -> None:
    with SpanRecorder() as recorder:
        minilm.embed(["a"])
    (span,) = recorder.spans
    assert span.name == "embeddings minilm"
    assert span.attributes[semconv.GEN_AI_OPERATION_NAME] == "embeddings"
    assert span.attributes[semconv.GEN_AI_USAGE_INPUT_TOKENS] == 3
    assert span.attributes[semconv.GEN_AI_EMBEDDINGS_DIMENSION_COUNT] == 384


def test_it_neither_chats_nor_takes_parameters_of_chats(minilm: Model) -> None:
    with pytest.raises(UnsupportedError, match="embeds texts"):
        minilm.complete("hello")
    with pytest.raises(ModelStringError, match="no parameter 'temperature'"):
        open_model("minilm", {}, {"temperature": 1})


@pytest.mark.parametrize("name", ["model.bin", "pytorch_model.pt"])
def test_pickled_weights_are_refused(name: str, folder: Path) -> None:
    """Loading them could run code."""
    with pytest.raises(MissingModelError, match=r"no \.safetensors"):
        open_model(str(folder), {}, {}).embed(["a"])
    (folder / name).write_bytes(b"\x80\x04")
    with pytest.raises(UnsupportedError, match=f"{name}, a pickle file"):
        open_model(str(folder), {}, {}).embed(["a"])


@pytest.mark.parametrize(
    ("file", "content", "error", "why"),
    [
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, UnsupportedError, "pools as"),
        ("1_Pooling/config.json", [], StoreError, "no object"),
        ("modules.json", {}, StoreError, "holds no list"),
        ("modules.json", [{"type": "x.Transformer"}], UnsupportedError, "pools as"),
        ("tokenizer.json", {}, StoreError, "cannot be loaded"),
        ("config.json", {}, StoreError, "cannot be loaded"),
        ("model.safetensors", {}, StoreError, "cannot be loaded"),
    ],
)
def test_a_folder_that_would_embed_wrongly_is_refused(
    file: str, content: Any, error: type[Exception], why: str, folder: Path
) -> None:
    if file != "model.safetensors":
        (folder / "model.safetensors").symlink_to(find_weights("minilm", Settings()) / "model.safetensors")
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(error, match=why):
        EmbedEngine.load(folder)


def test_it_draws_nothing_into_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """A library that draws bars ruins the output of the program around it."""
    EmbedEngine.load(find_weights("minilm", Settings()))
    told: Sequence[str] = capfd.readouterr()
    assert list(told) == ["", ""]
