"""Model strings, and what `model(…)` makes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from llmops_sdk import model
from llmops_sdk.errors import LLMOpsError, MissingKeyError, ModelStringError, UsageError
from llmops_sdk.models.strings import check_model_string, parse


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("spec", "provider", "name", "base_url"),
    [
        ("openai:gpt-5-mini", "openai", "gpt-5-mini", None),
        ("openai:ft:gpt-4o:org::id", "openai", "ft:gpt-4o:org::id", None),
        ("openai+http://127.0.0.1:8000/v1#org/m:4b", "openai+http", "org/m:4b", "http://127.0.0.1:8000/v1"),
        ("openai+https://api.groq.com/openai/v1#m", "openai+https", "m", "https://api.groq.com/openai/v1"),
        ("local:/models/my%20model.gguf", "local", "/models/my model.gguf", None),
    ],
)
def test_a_model_string_is_provider_name_and_address(spec: str, provider: str, name: str, base_url: str | None) -> None:
    """Only the first colon counts, names may be percent-encoded, and # stands between address and name."""
    parsed = parse(spec)
    assert (parsed.provider, parsed.name, parsed.base_url) == (provider, name, base_url)


def test_values_after_the_question_mark_have_the_types_of_their_fields() -> None:
    """Numbers are numbers, `stop` may be repeated, and options of the provider are read as JSON scalars."""
    parsed = parse(
        "openai:m?temperature=0.0&max_tokens=64&stop=a&stop=b&seed=1&effort=low&n_probs=3&logprobs=true&t=1e400"
    )
    assert parsed.parameters == {
        "temperature": 0,
        "max_tokens": 64,
        "stop": ("a", "b"),
        "seed": 1,
        "effort": "low",
        "n_probs": 3,
        "logprobs": True,
        "t": float("inf"),
    }


def test_options_of_client_and_engine_are_no_parameters() -> None:
    """`timeout_s`, `max_retries` and, for local models, `threads` are kept apart."""
    assert parse("local:m?threads=2&temperature=0").options == {"threads": "2"}
    assert parse("openai:m?timeout_s=5&max_retries=0").parameters == {}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("gpt-5-mini", "Did you mean openai:gpt-5-mini?"),
        ("opnai:gpt-5-mini", "Did you mean openai:?"),
        ("OpenAI:gpt-5-mini", "Did you mean openai:?"),
        ("anthropic:claude", "does not know anthropic: models yet"),
        ("google:gemini", "does not know google: models yet"),
        ("antropic:claude", "Did you mean anthropic:?"),
        ("http://localhost:8000/v1", r"openai\+http://HOST:PORT/v1#NAME"),
        ("zzz:m", "There are: openai:NAME"),
        ("", "has no provider"),
        ("openai:", "names no model"),
        ("openai:?temperature=0", "names no model"),
        ("openai+http://127.0.0.1:1/v1", "names no model. Write it after #"),
        ("openai+http://127.0.0.1:1/v1#", "names no model"),
        ("openai+http://#m", "is no address"),
        ("openai+http://127.0.0.1:notaport/v1#m", "is no address"),
        ("openai+http://127.0.0.1:1/v1?x=1#m", "parameters stand after the name"),
        ("openai:m?temperature=hot", "takes a number"),
        ("openai:m?temperature=nan", "takes a number"),
        ("openai:m?max_tokens=1.5", "takes a whole number"),
        ("openai:m?seed=1&seed=2", "says 'seed' twice"),
        ("openai:m?temprature=0", "Did you mean 'temperature'?"),
        ("openai:m?justaword", "name=value"),
        ("openai:m?messages=x", "belongs to a request"),
        ("openai:m?timeout_s=soon", "takes a number"),
        ("local:smollm2?thread=2", "Did you mean 'threads'"),
    ],
)
def test_a_string_that_cannot_be_right_says_what_is_there(spec: str, told: str) -> None:
    """Every refusal is a ModelStringError that names the next step."""
    with pytest.raises(ModelStringError, match=told):
        model(spec)


def test_what_is_no_string_is_refused() -> None:
    """A model instead of its string is a common slip."""
    with pytest.raises(ModelStringError, match="is a str; this is int"):
        model(3)  # type: ignore[arg-type]  # the mistake under test


@pytest.mark.parametrize("name", ["api_key", "key", "OPENAI_API_KEY", "token", "Authorization"])
def test_a_key_in_a_model_string_is_refused_and_not_repeated(name: str) -> None:
    """It would become part of names, cache keys and spans."""
    with pytest.raises(ModelStringError, match="Keys never stand") as caught:
        model(f"openai:m?{name}=sk-sesame-sesame")
    assert "sesame" not in str(caught.value)


def test_a_parameter_whose_name_only_contains_the_word_passes() -> None:
    """`prompt_cache_key` is an option of OpenAI's."""
    assert model("openai:m?prompt_cache_key=a").name == "openai:m?prompt_cache_key=a"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("openai:gpt-5-mini", {}), "openai:gpt-5-mini"),
        (("openai:gpt-5-mini", {"temperature": 0.0}), "openai:gpt-5-mini?temperature=0"),
        (("openai:gpt-5-mini?temperature=0", {}), "openai:gpt-5-mini?temperature=0"),
        (("openai:gpt-5-mini?temperature=1", {"temperature": 0}), "openai:gpt-5-mini?temperature=0"),
        (("openai:m", {"temperature": None}), "openai:m"),
        (("openai:m", {"seed": 1, "max_tokens": 2}), "openai:m?max_tokens=2&seed=1"),
        (("openai:m", {"stop": ["a", "b"]}), "openai:m?stop=a&stop=b"),
        (("openai:m", {"logit_bias": {"5": 1.0}}), "openai:m?logit_bias=%7B%225%22%3A1.0%7D"),
        (("openai:m", {"api_key": "sk-sesame", "timeout_s": 1, "max_retries": 9}), "openai:m"),
        (("openai:m?timeout_s=5&max_retries=0", {}), "openai:m"),
        (("openai:m", {"base_url": "https://api.openai.com/v1/"}), "openai:m"),
        (("openai+https://api.openai.com/v1#m", {}), "openai:m"),
        (("openai:m", {"base_url": "http://user:secret@Host:80/v1/"}), "openai+http://host/v1#m"),
        (("openai+http://user:secret@127.0.0.1:1/v1#m", {}), "openai+http://127.0.0.1:1/v1#m"),
    ],
)
def test_the_name_holds_what_may_change_an_answer_and_nothing_else(arguments: Any, name: str) -> None:
    """Default parameters and the address are in it, in one spelling; keys, timeouts, retries and userinfo are not."""
    spec, keywords = arguments
    assert model(spec, **keywords).name == name


def test_openai_base_url_of_the_environment_is_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """`openai:` goes where OPENAI_BASE_URL points, and says so in its name."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert model("openai:m").name == "openai+http://127.0.0.1:9/v1#m"


def test_a_missing_key_is_told_at_the_first_request_and_not_before() -> None:
    """A program may build its models before its environment is complete."""
    unready = model("openai:gpt-5-mini")
    with pytest.raises(MissingKeyError, match=r"OPENAI_API_KEY.*api_key="):
        unready.complete("q")
    with pytest.raises(MissingKeyError, match="OPENAI_API_KEY"):
        next(unready.stream("q"))


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"timeout_s": 0}, "timeout_s must be a number above 0"),
        ({"timeout_s": -1}, "timeout_s must be a number above 0, or None; it is -1"),
        ({"timeout_s": "x"}, "timeout_s must be a number above 0, or None; it is 'x'"),
        ({"max_retries": -1}, "max_retries must be a whole number of 0 or more; it is -1"),
        ({"max_retries": "x"}, "max_retries must be a whole number"),
        ({"base_url": 3}, "base_url must be an address"),
        ({"temperature": "hot"}, "temperature must be a number of 0 or more"),
        ({"stream": True}, r"'stream' is no parameter of openai:m.*Read the answer with \.stream"),
        ({"n": 2}, "'n' is no parameter of openai:m"),
        ({"model": "x"}, "'model' is no parameter of openai:m"),
        ({"tools": []}, "belongs to a request"),
        ({"temprature": 0}, "Did you mean 'temperature'"),
        ({"base_url": "localhost:8000"}, "is no address"),
    ],
)
def test_wrong_arguments_are_refused_at_once(keywords: dict[str, Any], told: str) -> None:
    """What cannot be right, whatever the server says, does not wait for a request."""
    with pytest.raises(UsageError, match=told):
        model("openai:m", **keywords)


def test_a_key_that_is_no_text_is_refused_without_showing_it() -> None:
    """It may be a secret in a wrapper of its own."""
    with pytest.raises(UsageError, match="api_key must be a str, or None; it is int") as caught:
        model("openai:m", api_key=73313)  # type: ignore[arg-type]  # the mistake under test
    assert "73313" not in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    ["opnai:m", "openai:m?temprature=0", "openai:m?timeout_s=soon", "openai:m?max_retries=-1", "openai:m?top_p=3"],
)
def test_a_string_can_be_checked_without_opening_its_model(spec: str) -> None:
    """What `model(…)` would refuse at the first call is refused by the same words."""
    with pytest.raises(ModelStringError) as caught:
        check_model_string(spec)
    with pytest.raises(UsageError) as opened:
        model(spec)
    assert opened.value.message in caught.value.message


@pytest.mark.parametrize("spec", ["openai:gpt-5-mini?temperature=0", "local:nowhere.gguf", "openai+http://h:1/v1#m"])
def test_a_string_that_parses_passes_the_check_with_nothing_opened(spec: str) -> None:
    """Weights may be missing and servers down: the check looks at the text alone."""
    check_model_string(spec)


def test_checking_a_string_loads_no_client() -> None:
    """Decorators do it while modules are imported."""
    code = (
        "import sys\nfrom llmops_sdk.models.strings import check_model_string\ncheck_model_string('openai:m?temperature=0')\n"
        "print(*{'httpx', 'numpy', 'pydantic', 'opentelemetry', 'asyncio', 'difflib'} & set(sys.modules))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ended.stdout.split() == []


def test_an_address_is_given_once_and_a_local_model_has_none() -> None:
    """Two addresses, or one that would be ignored, are an error."""
    with pytest.raises(UsageError, match="Leave base_url out"):
        model("openai+http://127.0.0.1:1/v1#m", base_url="http://127.0.0.1:2/v1")
    with pytest.raises(UsageError, match="has no api_key"):
        model("local:smollm2", api_key="k")


def test_no_retries_means_no_layer_for_them() -> None:
    """Every layer above retries knows the model by the same name."""
    assert type(model("openai:m", max_retries=0)).__name__ == "OpenAIChat"
    assert type(model("openai:m")).__name__ == "Retried"


def test_a_key_shows_nowhere_and_is_not_pickled() -> None:
    """Neither `repr` nor `pickle` nor the attributes' own reprs give it away."""
    import pickle

    from llmops_sdk.providers.keys import ApiKey

    ours = model("openai:m", api_key="sk-sesame-sesame", max_retries=0)
    assert "sesame" not in repr(ours) + repr(vars(ours))
    with pytest.raises(LLMOpsError, match="is not pickled"):
        pickle.dumps(ApiKey("sk-sesame-sesame"))


@pytest.mark.parametrize("key", ["sk-ses ame", "sk-ses\name", "sk-sésame"])
def test_what_cannot_be_a_key_is_told_without_showing_it(key: str) -> None:
    """A key copied with something else would be an illegal header, which HTTP clients quote."""
    with pytest.raises(UsageError, match="not shown here") as caught:
        model("openai:m", api_key=key).complete("q")
    assert key not in str(caught.value)


def test_opening_a_model_loads_no_more_than_it_needs() -> None:
    """The event loop, tenacity and the price list wait for the call that needs them."""
    code = (
        "import sys\nfrom llmops_sdk import model\nmodel('openai:m')\n"
        "print(*{'asyncio', 'anyio', 'tenacity', 'genai_prices', 'difflib', 'pydantic'} & set(sys.modules))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ended.stdout.split() == []
