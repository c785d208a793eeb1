"""The prompts."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

from pydantic import BaseModel, Field

from llmops_sdk import prompt, trace
from llmops_sdk.testing import ScriptedModel

from . import helpers, texts
from .helpers import bracketed, cached, clean, even, footer, prefixed, starred, told
from .texts import GREETING, Mood

model = ScriptedModel([], name="desk-model")


class Source(BaseModel):
    """Where an answer comes from."""

    title: str
    page: int = 1


class Answer(BaseModel):
    """What the clerk says."""

    text: str = Field(description="the answer", max_length=200)
    certainty: Literal["sure", "unsure"] = "sure"
    sources: list[Source] = []


@dataclass(frozen=True)
class Style:
    """How to write."""

    tone: str = "warm"
    words: int = 40
    avoid: list[str] = field(default_factory=list)


class Shop(BaseModel):
    """Who the clerk works for."""

    name: str
    city: str = "Bonn"


class Point(NamedTuple):
    """Where the desk is."""

    floor: int
    room: str


class Visitor(TypedDict):
    """Who asks."""

    name: str


class Clerk:
    """A plain object."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.desk = object()

    def greet(self, guest: str) -> str:
        """Say hello."""
        return f"{self.name} greets {guest}"


COUNT = 3
TEMPERATURE = 0.2
UNRELATED = "no prompt reads this"
TAGS = {"returns", "repairs", "refunds"}
RULES = {"first": ["be polite", "be exact"], "last": {"deep": (1, 2.5, None)}}
PATTERN = re.compile(r"\s+", re.IGNORECASE)
PRICE = Decimal("1.10")
PLACE = Path(__file__).parent / "leaflet.txt"
STYLE = Style(tone="calm", avoid=["jargon"])
SHOP = Shop(name="Nuts and Bolts")
POINT = Point(floor=2, room="B")
CLERK = Clerk("Ada")
quoted = functools.partial(clean, mark="'")
question_mark = prefixed("Question:")
shout: Callable[[str], str] = lambda text: text + "!"  # noqa: E731 - a helper of its kind


@prompt(model=model, temperature=TEMPERATURE, output=Answer)
def answer(question: str, visitor: Visitor | None = None, *, limit: int = COUNT) -> str:
    """You are a kind clerk.

    Answer from the leaflet.
    Say so where it is silent.
    """
    from .late import advise

    # This comment counts for nothing.
    with bracketed() as gap:
        lines = [GREETING, texts.OPENING_HOURS, Mood.CALM.value, gap, advise(question)]
    lines += [json.dumps(RULES), *sorted(TAGS), PATTERN.sub(" ", question), str(PRICE), PLACE.name]
    lines += [f"{STYLE.tone} {STYLE.words:>3}", SHOP.city, POINT.room, CLERK.greet(CLERK.name), str(limit)]
    lines += [clean(question), quoted(question), cached(question), starred(question), question_mark(question)]
    lines += [shout(question), told(1), footer(), str(even(4)), helpers.clean("x")]
    return "\n".join(lines)


class Base:
    """What desks have in common."""

    closing = "Goodbye."

    def sign(self) -> str:
        """The last line."""
        return "- the desk"


class Desk(Base):
    """A prompt as a method."""

    opening = "Welcome."
    notice = "No method of a prompt reads this."

    def __init__(self, city: str) -> None:
        self.city = city

    @trace
    @prompt(model=model)
    def ask(self, question: str) -> str:
        """You are a clerk at a desk."""
        return f"{self.opening} {self.city} {question} {self.closing} {self.end()} {super().sign()}"

    def end(self) -> str:
        """What stands before the signature."""
        return "Regards,"

    def never(self) -> str:
        """No prompt calls this."""
        return "never"
