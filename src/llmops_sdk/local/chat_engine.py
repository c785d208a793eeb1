"""The interim chat engine: transformers' networks, stepped token by token by a loop of our own.

A step is one forward pass with the key-value cache of all before it, so that a cancelled stream stops after at most one
token, and threads that share an engine take turns token by token.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmops_sdk.errors import ContextTooLongError, StoreError
from llmops_sdk.flow import END, End
from llmops_sdk.flow.threads import run_blocking
from llmops_sdk.local.extras import require, without_progress_bars
from llmops_sdk.local.gguf import read_gguf
from llmops_sdk.local.llama import network_of_gguf
from llmops_sdk.local.process import DEFAULT_THREADS, refuse_forked_child, torch_threads
from llmops_sdk.local.tokenizer import ChatTokenizer, StopScanner, TextStream, tokenizer_of_folder, tokenizer_of_gguf
from llmops_sdk.local.weights import check_folder
from llmops_sdk.types import FinishReason, Usage

SHORTEST_CONTEXT_TOKENS: Final = 2048
"""The context of a folder that does not tell its own."""

PREFILL_TOKENS: Final = 512
"""Prompt tokens per forward pass; between passes other threads have their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen: the likeliest one where `temperature` is 0."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None


class ChatEngine:
    """A loaded network with its tokenizer. Threads may share it."""

    def __init__(self, *, network: Any, tokenizer: ChatTokenizer, context_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.context_tokens = context_tokens
        self._network = network
        # transformers gave the key-value cache a new name in 5.x; what a network takes it also returns
        known = inspect.signature(network.forward).parameters
        self._cache_name = "cache" if "cache" in known else "past_key_values"
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path) -> ChatEngine:
        """Load a .gguf file or a model folder. Raises `StoreError`, `UnsupportedError`, `MissingExtraError`."""
        require("torch", "torch")
        require("transformers", "torch")
        if path.is_dir():
            return cls._of_folder(path)
        from llmops_sdk.local.linear import split_linears

        gguf = read_gguf(path)
        tokenizer = tokenizer_of_gguf(gguf)
        network, context_tokens = network_of_gguf(gguf)
        split_linears(network)
        return cls(network=network, tokenizer=tokenizer, context_tokens=context_tokens)

    @classmethod
    def _of_folder(cls, folder: Path) -> ChatEngine:
        from llmops_sdk.local.linear import split_linears

        torch, transformers = require("torch", "torch"), require("transformers", "torch")
        check_folder(folder)
        tokenizer = tokenizer_of_folder(folder)
        try:
            with without_progress_bars():
                network = transformers.AutoModelForCausalLM.from_pretrained(
                    str(folder),
                    local_files_only=True,
                    use_safetensors=True,
                    trust_remote_code=False,
                    dtype=torch.float32,
                )
        except Exception as error:  # whatever transformers and safetensors raise for a folder they cannot read
            raise StoreError(f"{folder} cannot be loaded as a chat model: {error}. Get the folder again.") from error
        context_tokens = getattr(network.config, "max_position_embeddings", None)
        split_linears(network.eval())
        return cls(network=network, tokenizer=tokenizer, context_tokens=context_tokens or SHORTEST_CONTEXT_TOKENS)

    def step(self, ids: Sequence[int], cache: Any, threads: int = DEFAULT_THREADS) -> tuple[Any, Any]:
        """Feed `ids` after what `cache` holds: (float32 logits [vocabulary] of the token after them, the cache)."""
        import torch

        refuse_forked_child()
        with self._lock, torch_threads(threads), torch.inference_mode():
            held = {self._cache_name: cache}
            out = self._network(input_ids=torch.tensor([list(ids)]), use_cache=True, logits_to_keep=1, **held)
            logits = out.logits[0, -1].float()
            if not torch.isfinite(logits).all():
                raise StoreError("The network computes what is no number: its weights are damaged. Get them again.")
        return logits, getattr(out, self._cache_name)


class Generation:
    """One answer as a source: each `next` is one token's text, which may be "".

    After `END`, `finish_reason` says why; `usage` counts what has been read and written so far.
    """

    def __init__(
        self,
        engine: ChatEngine,
        prompt: Sequence[int],
        *,
        sampling: Sampling,
        max_tokens: int | None,
        stop: Sequence[str],
        threads: int = DEFAULT_THREADS,
    ) -> None:
        room = engine.context_tokens - len(prompt)
        if room < 1:
            raise ContextTooLongError(
                f"The chat has {len(prompt)} tokens, and the model's context is {engine.context_tokens}, answer included. "
                f"Shorten the messages by at least {1 - room} tokens, or use a model with a longer context."
            )
        self.finish_reason: FinishReason = "length"
        self._written = 0
        self._prompt = prompt
        self._closed = False
        self._pieces = self._run(engine, sampling, min(room, max_tokens or room), stop, threads)

    @property
    def usage(self) -> Usage:
        """Tokens of the prompt, and tokens written; the token that ends an answer is not counted."""
        return Usage(input_tokens=len(self._prompt), output_tokens=self._written)

    def next(self) -> str | End:
        """The text of the next token, or `END`."""
        return END if self._closed else next(self._pieces, END)

    async def anext(self) -> str | End:
        """The same, off the event loop."""
        return await run_blocking(self.next)  # type: ignore[no-any-return]  # what next() returns

    def close(self) -> None:
        """Write no more. A step that another thread is in ends by itself."""
        self._closed = True

    async def aclose(self) -> None:
        """The same: nothing is waited for."""
        self.close()

    def _run(
        self, engine: ChatEngine, sampling: Sampling, most: int, stop: Sequence[str], threads: int
    ) -> Iterator[str]:
        choose = _chooser(sampling)
        text, stops = TextStream(engine.tokenizer), StopScanner(stop)
        logits: Any = None
        cache: Any = None
        for at in range(0, len(self._prompt), PREFILL_TOKENS):
            if self._closed:
                return
            logits, cache = engine.step(self._prompt[at : at + PREFILL_TOKENS], cache, threads)
        while True:
            token = choose(logits)
            if token in engine.tokenizer.ends:
                self.finish_reason = "stop"
                break
            self._written += 1
            yield stops.feed(text.feed(token))
            if stops.hit:
                self.finish_reason = "stop"
                return
            if self._written >= most:
                break
            logits, cache = engine.step((token,), cache, threads)
        yield stops.feed(text.finish())
        if stops.hit:
            self.finish_reason = "stop"
        else:
            yield stops.finish()


def _chooser(sampling: Sampling) -> Any:
    """A function from logits [vocabulary] to a token. With a seed, equal logits give equal tokens."""
    import torch

    if sampling.temperature <= 0:
        return lambda logits: int(logits.argmax())
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed & 0xFFFF_FFFF_FFFF_FFFF)

    def sample(logits: Any) -> int:
        kept = min(sampling.top_k or len(logits), len(logits))
        values, tokens = torch.topk(logits, kept)
        shares = torch.softmax((values - values[0]) / sampling.temperature, dim=-1)
        # nucleus sampling, https://arxiv.org/abs/1904.09751: the likeliest tokens whose shares before them are < top_p
        shares = shares.masked_fill(shares.cumsum(-1) - shares >= sampling.top_p, 0.0)
        return int(tokens[torch.multinomial(shares, 1, generator=generator)])

    return sample
