"""Secrets: what is found, what is left alone, and what it costs."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops_sdk.errors import UsageError
from llmops_sdk.guards import Secrets
from llmops_sdk.tracing.secrets import RULES, find_secrets, redact_secrets

# Every secret here is made up; they are put together so that no scanner of repositories takes them for real.
LETTERS = "Ab3dEf6hIj9lMn2pQr5tUv8xYz1cDe4gHi7kLm0o"
HEXADECIMAL = "3f8a1c9e7b2d4f60a5c8e1b7d9f20346"

SECRETS = {
    "openai_api_key": ["sk-" + "proj-" + LETTERS, "sk-" + LETTERS, "sk-" + HEXADECIMAL],
    "anthropic_api_key": ["sk-" + "ant-api03-" + LETTERS],
    "openrouter_api_key": ["sk-" + "or-v1-" + HEXADECIMAL * 2],
    "aws_access_key": ["AKIA" + "IOSFODNN7EXAMPLE", "ASIA" + "QWERTYUIOP234567"],
    "github_token": ["ghp_" + LETTERS[:36], "github_pat_" + LETTERS],
    "gitlab_token": ["glpat-" + LETTERS[:20]],
    "google_api_key": ["AIza" + LETTERS[:35]],
    "google_oauth_token": ["ya29." + LETTERS],
    "slack_token": ["xoxb-" + "123456789012-" + LETTERS[:24]],
    "stripe_key": ["sk_" + "live_" + LETTERS[:24], "rk_" + "test_" + LETTERS[:24]],
    "huggingface_token": ["hf_" + LETTERS[:34]],
    "npm_token": ["npm_" + LETTERS[:36]],
    "sendgrid_api_key": ["SG." + LETTERS[:22] + "." + LETTERS],
    "jwt": ["eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0In0" + "." + LETTERS],
    "private_key": [
        "-----BEGIN RSA " + "PRIVATE KEY-----\n" + (LETTERS + "\n") * 5 + "-----END RSA " + "PRIVATE KEY-----",
        "-----BEGIN " + "PRIVATE KEY-----\\n" + LETTERS + "\\n-----END " + "PRIVATE KEY-----",
    ],
}


@pytest.mark.parametrize(
    ("kind", "secret"), [(kind, secret) for kind, secrets in SECRETS.items() for secret in secrets]
)
@pytest.mark.parametrize("around", ["{}", "use {} now", '{{"key": "{}"}}', "a\\n{}\\nb", "({}),", "ключ: {}。"])
def test_the_formats_of_providers_are_found_wherever_they_stand(kind: str, secret: str, around: str) -> None:
    """The whole secret is found, and nothing of the text around it."""
    text = around.format(secret)
    findings = find_secrets(text)
    assert [(f.kind, text[f.start : f.end]) for f in findings] == [(kind, secret)]
    assert redact_secrets(text) == around.format(f"[REDACTED:{kind}]")


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Authorization: Bearer {}", "Authorization: Bearer [REDACTED:bearer_token]"),
        ("postgres://app:h4x-{}@db:5432/x", "postgres://app:[REDACTED:password]@db:5432/x"),
        ('api_key = "{}"', 'api_key = "[REDACTED:api_key]"'),
        ("SERVICE_API_KEY={}", "SERVICE_API_KEY=[REDACTED:api_key]"),
        ('{{\\"client_secret\\": \\"{}\\"}}', '{{\\"client_secret\\": \\"[REDACTED:secret]\\"}}'),
        ("'password': 'x{}'", "'password': '[REDACTED:password]'"),
        ("auth_token: {}", "auth_token: [REDACTED:secret]"),
    ],
)
def test_values_under_telling_names_are_found(text: str, redacted: str) -> None:
    """The name, the quotes and the address stay readable."""
    assert redact_secrets(text.format(LETTERS[:24])) == redacted.format("")


def test_a_pair_of_aws_keys_is_found_whole() -> None:
    """The second half has no mark of its own but its neighbour or its name."""
    secret = "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"
    for text in (f"AKIA{'IOSFODNN7EXAMPLE'},{secret}", f"aws_secret_access_key = {secret}"):
        assert "aws_secret_key" in [finding.kind for finding in find_secrets(text)]
        assert secret not in redact_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
        "md5 d41d8cd98f00b204e9800998ecf8427e, sha256:" + HEXADECIMAL * 2,
        "id 550e8400-e29b-41d4-a716-446655440000",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
        "sk-estimator-doc-link-2 fitted sk-toggleable__content-arrow",
        "token = tokenizer.next_token(); max_tokens=4096; total_tokens: 123456789",
        'password = getpass.getpass("Password: ")',
        "password = request.form['password']",
        'api_key=os.environ["OPENAI_API_KEY"], api_key = settings.openai_api_key',
        'api_key = "your-api-key-here-123"',
        "https://user@host.example/path?x=1:2@3 and http://localhost:8000/a@b",
        "postgres://user:password@localhost/db",
        "token_type: urn:ietf:params:oauth:token-type:jwt",
        "the bearer authentication-mechanism of basic understanding",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        "",
    ],
)
def test_what_only_looks_like_a_secret_is_left_alone(text: str) -> None:
    """Hashes, identifiers, images, code and examples are what users have most of."""
    assert find_secrets(text) == []
    assert redact_secrets(text) is text


def test_a_private_key_that_is_cut_off_is_redacted_to_its_end() -> None:
    """A truncated text must not show half a key."""
    assert redact_secrets("k: -----BEGIN " + "PRIVATE KEY-----\nMIIEpAIB\nAAKCAQ") == "k: [REDACTED:private_key]"


def test_the_verdict_tells_kinds_and_never_the_secret() -> None:
    """Verdicts go to spans and error messages."""
    key = SECRETS["github_token"][0]
    text = f"one {key} two {key}"
    verdict = Secrets().check(text)
    assert (verdict.action, verdict.reason, verdict.start, verdict.end) == (
        "redact",
        "found 2 github_token",
        4,
        4 + len(key),
    )
    assert verdict.text == "one [REDACTED:github_token] two [REDACTED:github_token]"
    blocked = Secrets(action="block").check(text)
    assert (blocked.action, blocked.text) == ("block", None)
    assert key not in repr(blocked)
    assert Secrets().check("nothing").action == "pass"


def test_another_action_is_refused() -> None:
    """A misspelt action must not let secrets through."""
    with pytest.raises(UsageError, match='"redact" or "block"; it is \'drop\''):
        Secrets(action="drop")  # type: ignore[arg-type]  # what a user without a type checker writes


PIECES = st.sampled_from(
    [s for secrets in SECRETS.values() for s in secrets]
    + [
        "password=",
        "api_key: ",
        "token",
        "Bearer ",
        "://",
        "a:b@",
        "secret_key ",
        '"',
        "'",
        "\\n",
        " ",
        "\n",
        "[",
        "]",
        "İ",
    ]
)


@given(st.lists(PIECES | st.text(max_size=12), max_size=12).map("".join))
def test_redaction_is_idempotent_and_findings_are_places(text: str) -> None:
    """A text that was redacted once, when it was recorded, comes out of a guard as it is."""
    findings = find_secrets(text)
    assert all(0 <= f.start < f.end <= len(text) for f in findings)
    assert all(one.end <= two.start for one, two in itertools.pairwise(findings))
    redacted = redact_secrets(text)
    assert redact_secrets(redacted) == redacted


HOSTILE = [
    *sorted({hint for rule in RULES for hint in rule.hints}),
    "eyJaaaaaaaaaa.",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN A ",
    "://a:",
    "password='",
    "SG." + "a" * 20 + ".",
    "AKIA" + "A" * 16 + ",",
    "\\nsk-",
    "dop_v1_" + HEXADECIMAL * 2,
    "AIza" + LETTERS[:35],
    "-----END PRIVATE KEY-----eyJ" + LETTERS + ".eyJ" + LETTERS,
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_costs_linear_time(piece: str) -> None:
    """Twice the text takes about twice the time, whatever is repeated: four times the text stays under nine times."""

    def cpu_s(size: int) -> float:
        text = (piece * (size // len(piece) + 1))[:size]
        seen = []
        for _ in range(3):
            begun = time.process_time()
            redact_secrets(text)
            seen.append(time.process_time() - begun)
        return min(seen)

    assert cpu_s(80_000) < 9 * cpu_s(20_000) + 0.005
