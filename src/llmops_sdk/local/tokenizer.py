"""Text to tokens and back, and a chat as one text: with the tokenizer and the template that come with the weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmops_sdk.errors import BadRequestError, StoreError, UnsupportedError
from llmops_sdk.local.extras import require

if TYPE_CHECKING:
    from llmops_sdk.local.gguf import GGUF

CONTROL_TOKEN: Final = 3
USER_TOKEN: Final = 4
END_OF_TURN: Final = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "</s>")
REPLACEMENT: Final = "\ufffd"
PRIVATE_USE: Final = range(0xE000, 0xF900)


class ChatTokenizer:
    """The tokenizer of a chat model.

    Args:
        rendered: encodes rendered templates: the text of a special token becomes that token.
        plain: encodes what people wrote: the text of a special token stays text.
        template: the chat template, Jinja.
        specials: the texts of the special tokens.
        ends: ids of the tokens that end an answer.
        variables: further variables of the template, such as `bos_token`.
    """

    def __init__(
        self,
        *,
        rendered: Any,
        plain: Any,
        template: str,
        specials: Iterable[str],
        ends: Iterable[int],
        variables: Mapping[str, str],
    ) -> None:
        self._rendered = rendered
        self._plain = plain
        self._specials = tuple(sorted((s for s in specials if s), key=len, reverse=True))
        self._source = template
        self._template = _compile(template)
        self._variables = dict(variables)
        self.ends = frozenset(ends)

    def chat(self, turns: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a chat, up to where the assistant's answer begins.

        A special token that somebody wrote into a message is encoded as plain text: no message can open a turn of its
        own. Raises `BadRequestError` where the template refuses the chat.
        """
        mark = _unused(self._source + "".join(turn["content"] for turn in turns))
        written = [{**turn, "content": self._masked(turn["content"], mark)} for turn in turns]
        ids: list[int] = []
        for number, piece in enumerate(self._render(written).split(mark)):
            if number % 2:
                ids += self._plain.encode(self._specials[int(piece)], add_special_tokens=False).ids
            else:
                ids += self._rendered.encode(piece, add_special_tokens=False).ids
        if not ids:
            raise BadRequestError("The chat template of these weights makes nothing of this chat. Write a message.")
        return ids

    def _masked(self, text: str, mark: str) -> str:
        for number, special in enumerate(self._specials):
            text = text.replace(special, f"{mark}{number}{mark}")
        return text

    def _render(self, turns: Sequence[Mapping[str, str]]) -> str:
        jinja2 = require("jinja2", "torch")
        try:
            rendered: str = self._template.render(messages=turns, add_generation_prompt=True, **self._variables)
        except jinja2.TemplateError as error:
            raise BadRequestError(f"The chat template of these weights refuses this chat: {error}.") from error
        except Exception as error:  # a template is a program of its author, and may fail like one
            raise StoreError(f"The chat template of these weights does not work: {error!r}. Get them again.") from error
        return rendered

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        text: str = self._rendered.decode(list(ids), skip_special_tokens=True)
        return text


class TextStream:
    """Tokens in, text out, as soon as it is certain: half a character is held until its other half comes."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._told = 0

    def feed(self, token: int) -> str:
        """The text that this token completes; "" while a character is incomplete."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        if text.endswith(REPLACEMENT):
            return ""
        return self._advance(text)

    def finish(self) -> str:
        """What is held; an incomplete character becomes U+FFFD."""
        return self._advance(self._tokenizer.decode(self._ids)) if self._ids else ""

    def _advance(self, text: str) -> str:
        fresh = text[self._told :]
        if fresh:
            self._ids = self._ids[-1:]  # the last token stays, so that a decoder that looks back sees what it follows
            self._told = len(self._tokenizer.decode(self._ids))
        return fresh


class StopScanner:
    """Looks for stop strings in a text that comes in pieces; what could be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.hit = False

    def feed(self, piece: str) -> str:
        """The text that is certain to stand before any stop string. `hit` says that one has come."""
        text = self._held + piece
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.hit, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back: no stop string came of it."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def _unused(text: str) -> str:
    """A private character that does not occur in `text`."""
    try:
        return next(chr(code) for code in PRIVATE_USE if chr(code) not in text)
    except StopIteration:
        raise BadRequestError("The messages use every private-use character of Unicode; take some out.") from None


def _compile(template: str) -> Any:
    """The template, in a sandbox that reaches neither attributes of Python objects nor files."""
    jinja2 = require("jinja2", "torch")
    sandbox = require("jinja2.sandbox", "torch")

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise StoreError(
            f"The chat template of these weights does not parse: {error}. Get the weights again."
        ) from error


def tokenizer_of_gguf(gguf: GGUF) -> ChatTokenizer:
    """The tokenizer that a GGUF file holds: byte-level BPE, with digits apart where the file says so.

    Raises `UnsupportedError` for other kinds, `StoreError` where parts are missing or do not fit.
    """
    told = gguf.metadata
    kind, split = told.get("tokenizer.ggml.model"), told.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or split not in ("smollm", "gpt-2"):
        raise UnsupportedError(
            f"{gguf.path}: its tokenizer is {kind}/{split}; this engine reads gpt2/smollm and gpt2/gpt-2 from GGUF. Use "
            f"the model as a folder with tokenizer.json and .safetensors, or serve the file with llama.cpp and call it "
            f"as openai+http://localhost:8080/v1#name."
        )
    tokens, merges, kinds = (_entry(gguf, name) for name in ("tokens", "merges", "token_type"))
    template = told.get("tokenizer.chat_template")
    if not isinstance(template, str):
        raise StoreError(f"{gguf.path} has no chat template, so it is no chat model. Use an instruction-tuned one.")
    if len(kinds) != len(tokens) or len(set(tokens)) != len(tokens) or "" in tokens:
        raise _misfit(gguf, f"it has {len(set(tokens))} different tokens of {len(tokens)}, and {len(kinds)} types")
    specials = [token for token, sort in zip(tokens, kinds, strict=True) if sort in (CONTROL_TOKEN, USER_TOKEN)]
    names = {name: told.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "eot")}
    ids = {name: at for name, at in names.items() if type(at) is int and 0 <= at < len(tokens)}
    return ChatTokenizer(
        rendered=_byte_level(gguf, tokens, merges, split == "smollm", specials),
        plain=_byte_level(gguf, tokens, merges, split == "smollm", []),
        template=template,
        specials=specials,
        ends={*(ids[n] for n in ("eos", "eot") if n in ids), *(tokens.index(s) for s in END_OF_TURN if s in specials)},
        variables={f"{name}_token": tokens[ids[name]] for name in ("bos", "eos") if name in ids},
    )


def _entry(gguf: GGUF, name: str) -> list[Any]:
    """A list of the tokenizer: texts, but for `token_type`, which holds numbers."""
    value = gguf.metadata.get(f"tokenizer.ggml.{name}")
    texts = isinstance(value, list)
    if value is None or isinstance(value, str | int | float) or texts == (name == "token_type"):
        raise StoreError(f"{gguf.path} has no usable list tokenizer.ggml.{name}: it is incomplete. Get the file again.")
    return list(value)


def _misfit(gguf: GGUF, why: object) -> StoreError:
    return StoreError(f"{gguf.path}: its tokenizer does not fit together: {why}. Get the file again.")


def _byte_level(gguf: GGUF, tokens: list[str], merges: list[str], digits: bool, specials: list[str]) -> Any:
    library = require("tokenizers", "torch")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    if any(len(pair) != 2 for pair in pairs):
        raise _misfit(gguf, "a merge is not of two parts")
    try:
        model = library.models.BPE(vocab={token: at for at, token in enumerate(tokens)}, merges=pairs)
    except Exception as error:  # the library raises bare Exception for merges that do not fit the vocabulary
        raise _misfit(gguf, error) from error
    tokenizer = library.Tokenizer(model)
    split = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if digits:
        split = library.pre_tokenizers.Sequence([library.pre_tokenizers.Digits(individual_digits=True), split])
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = library.decoders.ByteLevel()
    tokenizer.add_special_tokens([library.AddedToken(token, special=True, normalized=False) for token in specials])
    return tokenizer


def tokenizer_of_folder(folder: Path) -> ChatTokenizer:
    """The tokenizer of a model folder: tokenizer.json, and the chat template beside it."""
    library = require("tokenizers", "torch")
    try:
        rendered, plain = (library.Tokenizer.from_file(str(folder / "tokenizer.json")) for _ in range(2))
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        beside = folder / "chat_template.jinja"
        template = beside.read_text(encoding="utf-8") if beside.is_file() else settings.get("chat_template")
    except Exception as error:  # the tokenizers library raises bare Exception for a file that it cannot read
        raise StoreError(f"{folder}: its tokenizer cannot be read: {error}. Get the folder again.") from error
    if not isinstance(template, str):
        raise StoreError(f"{folder} has no chat template, so it is no chat model. Use an instruction-tuned one.")
    plain.encode_special_tokens = True  # in the library's words: encode the text of special tokens as text
    specials = [token.content for token in rendered.get_added_tokens_decoder().values() if token.special]
    names = {name: _token_text(settings.get(name)) for name in ("bos_token", "eos_token")}
    ends = {rendered.token_to_id(text) for text in (*END_OF_TURN, names["eos_token"]) if text in specials}
    return ChatTokenizer(
        rendered=rendered, plain=plain, template=template, specials=specials, ends=ends, variables=names
    )


def _token_text(told: object) -> str:
    """A special token in tokenizer_config.json is a string, or an object that holds one."""
    text = told.get("content", "") if isinstance(told, Mapping) else told
    return text if isinstance(text, str) else ""
