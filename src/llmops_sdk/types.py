"""The data that travels: messages, requests, responses, deltas, hits and verdicts.

All of it is immutable, hashable and free of behaviour that needs the outside world. What is a JSON object by nature (a
schema, tool arguments) is held as canonical JSON text, so that equal things are equal, hash alike and can be stored.
`codec.py` turns it into JSON and back.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from llmops_sdk import checks
from llmops_sdk.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "cancelled", "other"]


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spare spaces. Raises `UsageError` for what JSON cannot hold."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        message = f"This cannot be written as JSON: {error}. Pass plain dicts, lists, strings, numbers."
        raise UsageError(message) from error


# Messages -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Plain text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """What a model thought aloud before it answered; never part of `Message.text`."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The model's own refusal, where the provider marks it as one."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A model asks for a tool. `arguments_json` is what the model wrote, valid JSON or not."""

    id: str
    name: str
    arguments_json: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a tool answered, sent back under the id of its call."""

    call_id: str
    text: str


Part: TypeAlias = Text | Reasoning | Refusal | ToolCall | ToolResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. Build it with `Message.system("…")`, `Message.user("…")`, `Message.assistant("…")`.

    Raises `UsageError` for a role that there is not, and for parts that are none.
    """

    role: Role
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        """Refuse what no provider could be sent."""
        if self.role not in _ROLES:
            raise UsageError(f"role must be one of {', '.join(_ROLES)}; it is {checks.shown(self.role)}.")
        if not isinstance(self.parts, tuple) or not all(isinstance(part, Part) for part in self.parts):
            raise UsageError(
                f"The parts of a message are a tuple of Text, ToolCall and their like; they are {checks.shown(self.parts)}. "
                'For text write Message.user("…").'
            )

    @classmethod
    def of(cls, role: Role, content: str | Part | Iterable[Part]) -> Message:
        """A message of `role` from text, one part or several."""
        if isinstance(content, str):
            return cls(role=role, parts=(Text(text=content),))
        if isinstance(content, Part):
            return cls(role=role, parts=(content,))
        if isinstance(content, Mapping) or not isinstance(content, Iterable):
            raise UsageError(
                f"The content of a message is a str, a part or several parts; it is {checks.shown(content)}."
            )
        return cls(role=role, parts=tuple(content))

    @classmethod
    def system(cls, content: str | Part | Iterable[Part]) -> Message:
        return cls.of("system", content)

    @classmethod
    def user(cls, content: str | Part | Iterable[Part]) -> Message:
        return cls.of("user", content)

    @classmethod
    def assistant(cls, content: str | Part | Iterable[Part]) -> Message:
        return cls.of("assistant", content)

    @property
    def text(self) -> str:
        """The text parts, joined; neither reasoning nor refusals nor tools."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


_ROLES: tuple[str, ...] = get_args(Role)


# Requests -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool that a model may call: `parameters_json` is the JSON Schema of its arguments as canonical JSON."""

    name: str
    description: str = ""
    parameters_json: str = '{"type":"object","properties":{}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSchema:
    """The JSON Schema that an answer must fit, as canonical JSON, under the name that providers ask for."""

    name: str
    schema_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of a chat model. Unset fields (None) are left to the model's own defaults.

    `extra_json` is canonical JSON of provider options that have no field here; it is merged into the provider's payload
    last. Raises `UsageError` for a value of another type, or out of every model's range.
    """

    messages: tuple[Message, ...]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    output: OutputSchema | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str | None = None
    extra_json: str = "{}"

    def __post_init__(self) -> None:
        """Refuse values that cannot be right, whatever the model."""
        checks.check_request_numbers({"temperature": self.temperature, "top_p": self.top_p})
        checks.check_request_numbers({"max_tokens": self.max_tokens, "seed": self.seed})
        checks.check_kind("tool_choice", self.tool_choice, str, '"auto", "none", "required" or the name of a tool')
        checks.check_kind("output", self.output, OutputSchema, "an OutputSchema")
        for name, kind in (("messages", Message), ("stop", str), ("tools", ToolSpec)):
            checks.check_items(name, getattr(self, name), kind)
        if self.extra_json != "{}":
            checks.extra_of(self.extra_json)

    @classmethod
    def of(cls, content: str | Message | Sequence[Message] | Request, /, **parameters: Any) -> Request:
        """A request from text (one user message), messages, or another request, with `parameters` set on top.

        Parameters go where `using` puts them. Raises `UsageError` for any other content.
        """
        if isinstance(content, Request):
            return content.using(**parameters)
        if isinstance(content, str):
            return cls(messages=(Message.user(content),)).using(**parameters)
        if isinstance(content, Message):
            return cls(messages=(content,)).using(**parameters)
        messages = tuple(m for m in content if isinstance(m, Message)) if isinstance(content, Sequence) else ()
        if messages and len(messages) == len(content):
            return cls(messages=messages).using(**parameters)
        told = "an empty list" if content == [] else type(content).__name__
        raise UsageError(
            f"A model takes a str, a Message, a non-empty list of Message, or a Request; not {told}."
            f"{checks.written_as_message(content)}"
        )

    def using(self, **parameters: Any) -> Request:
        """The same request with `parameters` set; those that are not fields go to `extra_json`.

        Raises `UsageError` for a name that is nearly that of a field, and for values that `Request` refuses.
        """
        if not parameters:
            return self
        known = {name: value for name, value in parameters.items() if name in _REQUEST_FIELDS}
        for name in known.keys() & {"messages", "stop", "tools"}:
            known[name] = checks.as_tuple(known[name])
        other = {name: value for name, value in parameters.items() if name not in _REQUEST_FIELDS}
        for name in other:
            if near := checks.near_name(name, _REQUEST_FIELDS):
                raise UsageError(f"A request has no parameter {name!r}. Did you mean {near}=?")
        if other:
            known["extra_json"] = canonical_json({**checks.extra_of(known.get("extra_json", self.extra_json)), **other})
        return dataclasses.replace(self, **known)

    def under(self, defaults: Mapping[str, Any]) -> Request:
        """The same request with `defaults` filled in where it says nothing."""
        said = {f for f in _REQUEST_FIELDS if getattr(self, f) not in (None, ())} | set(json.loads(self.extra_json))
        return self.using(**{name: value for name, value in defaults.items() if name not in said})

    @property
    def text(self) -> str:
        """The text of the last user message: what caches and routers look at."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")


_REQUEST_FIELDS = frozenset(f.name for f in dataclasses.fields(Request))


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """Texts to embed, one vector each."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """Passages to score against a query."""

    query: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """Log-probabilities of `continuations`, each after `prompt`."""

    prompt: str
    continuations: tuple[str, ...]


AnyRequest: TypeAlias = Request | EmbedRequest | RerankRequest | ScoreRequest


# Answers ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens. None means that the provider did not say. `input_tokens` includes the cached ones."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None

    def __add__(self, other: Usage) -> Usage:
        """Field by field; a field that neither knows stays unknown."""

        def both(name: str) -> int | None:
            known = [v for v in (getattr(self, name), getattr(other, name)) if v is not None]
            return sum(known) if known else None

        return Usage(**{f.name: both(f.name) for f in dataclasses.fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a chat model answered.

    `model` is the model that answered, as it named itself. `cached` says that a client-side cache answered. `parsed` is
    the typed value where an output type was declared. `raw` is the provider's payload; it takes no part in equality.
    """

    message: Message
    finish_reason: FinishReason = "stop"
    model: str = ""
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    cached: bool = False
    trace_id: str = ""
    span_id: str = ""
    parsed: Any = field(default=None, compare=False)
    raw: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, text: str, **fields: Any) -> Response:
        """A response of one assistant text."""
        return cls(message=Message.assistant(text), **fields)

    @property
    def text(self) -> str:
        return self.message.text

    @property
    def refused(self) -> bool:
        """The provider's filter stopped it, or the model refused in the provider's own terms."""
        return self.finish_reason == "content_filter" or any(isinstance(p, Refusal) for p in self.message.parts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbedResponse:
    """`vectors`: float32 [n, D], in the order of the texts."""

    vectors: NDArray[np.float32]
    model: str = ""
    usage: Usage = field(default_factory=Usage)
    trace_id: str = ""
    span_id: str = ""


class ToolCallDelta(NamedTuple):
    """A piece of a tool call: `number` counts the message's calls from 0; `id` and `name` come with its first piece."""

    number: int
    id: str = ""
    name: str = ""
    arguments_json: str = ""


class Delta(NamedTuple):
    """A piece of a streamed answer. `text` is "" where the piece carries none."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_call: ToolCallDelta | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


# Retrieval and guards -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage that a search found. `start` and `end` are character offsets of `text` in the document `source`."""

    id: str
    text: str
    score: float
    source: str = ""
    start: int = 0
    end: int = 0
    metadata: tuple[tuple[str, str | int | float | bool | None], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a `@retrieve` function may return instead of a plain string: a `k` of its own, and a metadata filter.

    `where` holds (name, value) pairs that a hit's metadata must equal.
    """

    text: str
    k: int | None = None
    where: tuple[tuple[str, str | int | float | bool | None], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check decided about one text.

    `score` is the check's own measure (higher is worse), `threshold` what it was held against. `text` is the
    replacement where the action is "redact". `start` and `end` say where in the text it looked hardest.
    """

    check: str
    action: Literal["pass", "annotate", "redact", "block"] = "pass"
    score: float | None = None
    threshold: float | None = None
    reason: str = ""
    text: str | None = None
    start: int | None = None
    end: int | None = None
