"""The tree of errors."""

from __future__ import annotations

import pickle
import re

import pytest

from llmops_sdk import errors
from llmops_sdk.errors import (
    AllModelsFailedError,
    GuardBlockedError,
    LLMOpsError,
    MissingExtraError,
    RateLimitedError,
    StreamInterruptedError,
)
from llmops_sdk.types import Response, Verdict


def below(cls: type[LLMOpsError]) -> set[type[LLMOpsError]]:
    return {cls, *(inner for sub in cls.__subclasses__() for inner in below(sub))}


def ours() -> set[type]:
    return {cls for cls in below(LLMOpsError) if cls.__module__ == errors.__name__}


def test_the_tree_is_drawn_as_it_is() -> None:
    """The drawing in the module's docstring has every class, under its parent."""
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.search(r"\b(\w+Error)\b", line)
        if found is None or not line.startswith("    "):
            continue
        depth = found.start()
        above = [(d, name) for d, name in above if d < depth]
        drawn[found[1]] = above[-1][1] if above else ""
        above.append((depth, found[1]))
    real = {cls.__name__: cls.__bases__[0].__name__ if cls is not LLMOpsError else "" for cls in ours()}
    assert drawn == real


@pytest.mark.parametrize(
    "error",
    [
        MissingExtraError("torch", "torch"),
        RateLimitedError("slow down", retry_after_s=3.0, status=429, raw={"a": 1}),
        StreamInterruptedError("broke", partial=Response.of("half")),
        GuardBlockedError("no", verdicts=[Verdict(check="c", action="block")], stage="output"),
        AllModelsFailedError([RateLimitedError("slow down", retry_after_s=1.0)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_crosses_processes_with_all_that_it_carries(error: LLMOpsError) -> None:
    """Batch workers and multiprocessing pickle what they raise."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert {k: v for k, v in vars(again).items() if k != "errors"} == {
        k: v for k, v in vars(error).items() if k != "errors"
    }
    assert [str(e) for e in getattr(again, "errors", ())] == [str(e) for e in getattr(error, "errors", ())]


def test_a_missing_extra_gives_the_exact_command() -> None:
    """Copied into a shell, it mends the error."""
    assert "pip install 'llmops-sdk[torch]'" in str(MissingExtraError("torch", "transformers"))
