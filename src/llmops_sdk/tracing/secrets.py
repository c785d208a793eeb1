"""Credentials in text: one table of patterns, for what is recorded and for what a guard lets through.

Each rule names literals that every match contains. A text without any of them, which is nearly every text, costs a few
substring searches. Patterns are tried only where a literal stands; each is bounded, or begins where a run of its own
characters begins, so that the time is linear in the text, whatever it holds.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple


class Finding(NamedTuple):
    """A credential: `text[start:end]`, and what kind it is."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How one kind of credential is written.

    The pattern is matched where a literal of `hints` stands; the credential is its group `s`, or else all of it. `folded`
    hints are lower case and found in any case. `accept` looks at what the pattern took for a credential.
    """

    kind: str
    hints: tuple[str, ...]
    pattern: str
    folded: bool = False
    accept: Callable[[str], bool] | None = None


_PASSES: Final = 4


def find_secrets(text: str) -> list[Finding]:
    """Every credential in a text, in order, without overlaps. Never raises; linear in the length of the text."""
    lowered = text.lower()
    if len(lowered) != len(text):
        lowered = text.replace("İ", "I").lower()  # the one letter that grows
    found: list[Finding] = []
    for searched, folded in ((text, False), (lowered, True)):
        for sign, hints in _hints(folded):
            if sign in searched:
                for hint, rules in hints:
                    if hint in searched:
                        found += (finding for rule in rules for finding in _found(rule, hint, searched, text))
    return _apart(found) if found else found


def redact_secrets(text: str) -> str:
    """The text with `[REDACTED:<kind>]` in place of each credential; redacting twice changes nothing more."""
    for _ in range(_PASSES):  # what stood too close to another one is found once that is gone
        if not (findings := find_secrets(text)):
            break
        pieces: list[str] = []
        position = 0
        for kind, start, end in findings:
            pieces += text[position:start], f"[REDACTED:{kind}]"
            position = end
        text = "".join(pieces) + text[position:]
    return text


@cache
def _hints(folded: bool) -> list[tuple[str, list[tuple[str, list[Rule]]]]]:
    """The literals, each with its rules, under a sign that they contain: one look for a rare sign saves many others."""
    signs: dict[str, dict[str, list[Rule]]] = {}
    for rule in RULES:
        for hint in rule.hints if rule.folded is folded else ():
            sign = next((c for c in "_-:/." if c in hint), "")
            signs.setdefault(sign, {}).setdefault(hint, []).append(rule)
    return [(sign, list(hints.items())) for sign, hints in signs.items()]


def _found(rule: Rule, hint: str, searched: str, text: str) -> Iterator[Finding]:
    """What a rule finds where one of its literals stands in `searched`, which is `text` or its lower case."""
    position = searched.find(hint)
    while position >= 0:
        match = _compiled(rule.pattern).match(text, position)
        if match is None:
            position = searched.find(hint, position + 1)
            continue
        start, end = match.span("s")
        if rule.accept is None or rule.accept(text[start:end]):
            yield Finding(rule.kind, start, end)
        position = searched.find(hint, max(match.end(), position + 1))


def _apart(found: list[Finding]) -> list[Finding]:
    """In order of place; of findings that overlap, the first by place and then by rule gives the kind of them all."""
    order = _order()
    found.sort(key=lambda finding: (finding.start, order[finding.kind]))
    apart: list[Finding] = []
    for finding in found:
        if apart and finding.start < apart[-1].end:
            apart[-1] = apart[-1]._replace(end=max(apart[-1].end, finding.end))
        else:
            apart.append(finding)
    return apart


@cache
def _order() -> dict[str, int]:
    return {rule.kind: number for number, rule in reversed([*enumerate(RULES)])}


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


# What is accepted ---------------------------------------------------------------------------------------------------


def entropy_bits(text: str) -> float:
    """Shannon entropy of a text's own characters, in bits a character."""
    counts, total = Counter(text).values(), len(text)
    return -sum(n / total * math.log2(n / total) for n in counts) if total else 0.0


_STAND_IN = re.compile(r"(?i)x{4}|\.{3}|\*{3}|your|example|changeme|placeholder|dummy|insert|redacted|<|\$\{|\{\{")
_NAME = re.compile(r"[A-Za-z_]+(?:[.-][A-Za-z_]+)*")


def _has_digit(text: str) -> bool:
    return any(c.isdigit() for c in text)


def _random(text: str) -> bool:
    """Digits among letters, as nobody names a thing."""
    return _has_digit(text) and any(c.isalpha() for c in text) and entropy_bits(text) >= 3.0


def _mixed(text: str) -> bool:
    """Digits and both cases: not a hash in hexadecimal."""
    return _has_digit(text) and text != text.lower() and text != text.upper() and entropy_bits(text) >= 3.5


def _openai(text: str) -> bool:
    """Not a class name such as `sk-estimator-doc-link`."""
    body = text[3:]
    return _has_digit(body) and (
        body.isalnum() or body.lower() != body or body.startswith(("proj-", "svcacct-", "admin-"))
    )


def _assigned_key(text: str) -> bool:
    return len(text) >= 12 and _random(text) and _STAND_IN.search(text) is None


def _assigned_password(text: str) -> bool:
    """A password is short; it is known by digits or signs that a name or a word does not have."""
    return len(set(text)) >= 5 and _NAME.fullmatch(text) is None and _STAND_IN.search(text) is None


def _in_address(text: str) -> bool:
    return text.lower() not in ("password", "passwd", "pass", "pwd", "secret") and _STAND_IN.search(text) is None


# The table ----------------------------------------------------------------------------------------------------------

_BEFORE: Final = r"(?:(?<!\w)|(?<=\\[nrt]))"
"""Where a token may begin: not inside a word, but after an escaped line end of a JSON text."""

_SET: Final = r"""[\w-]{0,40}+\\?["'`]?[ \t]{0,8}(?::=|=>|={1,2}|:)[ \t]{0,8}"""
"""Between the name of a setting and its value."""

_VALUE: Final = r"""(?:\\?["'`](?=[^\s"'`\\\[\]<>]{8,200}+\\?["'`]))?(?P<s>[^\s"'`\\\[\]<>(){},;]{8,200}+)(?![(\[{<])"""
"""A value of one word, in quotes or bare; one that is called or indexed is code."""


def _token(kind: str, prefix: str, body: str, *, accept: Callable[[str], bool] | None = None) -> Rule:
    """A token that begins with one fixed prefix."""
    return Rule(kind=kind, hints=(prefix,), pattern=f"{_BEFORE}(?P<s>{re.escape(prefix)}{body})", accept=accept)


def _setting(kind: str, names: tuple[str, ...], *, accept: Callable[[str], bool]) -> Rule:
    """A value after a name that tells what it is."""
    written = "|".join(re.escape(name) for name in names)
    return Rule(kind=kind, hints=names, pattern=f"(?i:{written}){_SET}{_VALUE}", folded=True, accept=accept)


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        kind="private_key",
        hints=("-----BEGIN ",),
        # The body ends at the END line, or, where that is cut off, at the first sign that no key contains.
        pattern=(
            r"(?P<s>-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[\w+/=:,.\s\\]|-(?!----))*+(?:-----END [A-Z0-9 ]{0,80}-----)?)"
        ),
    ),
    _token("anthropic_api_key", "sk-ant-", r"[\w-]{16,}+", accept=_has_digit),
    _token("openrouter_api_key", "sk-or-v1-", r"[\w-]{32,}+"),
    _token("openai_api_key", "sk-", r"[\w-]{20,}+", accept=_openai),
    Rule(
        kind="aws_access_key",
        hints=("AKIA", "ASIA", "ABIA", "ACCA"),
        pattern=r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))(?P<s>A(?:KI|SI|BI|CC)A[A-Z0-9]{16})(?![A-Za-z0-9])",
    ),
    Rule(
        kind="aws_secret_key",
        hints=("AKIA", "ASIA"),  # the pair, as credential files in CSV have it
        pattern=r"A[KS]IA[A-Z0-9]{16}[\s,;:|/\"']{1,8}(?P<s>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        accept=_mixed,
    ),
    Rule(
        kind="aws_secret_key",
        hints=("secret",),
        pattern=r"(?i:secret[_-]?(?:access)?[_ -]?key)[\s\"'`=:>\\]{1,12}(?P<s>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        folded=True,
        accept=_mixed,
    ),
    Rule(
        kind="github_token",
        hints=("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
        pattern=_BEFORE + r"(?P<s>gh[pousr]_[A-Za-z0-9]{30,}+)",
    ),
    _token("github_token", "github_pat_", r"\w{22,}+"),
    _token("gitlab_token", "glpat-", r"[\w-]{20,}+"),
    _token("google_api_key", "AIza", r"[\w-]{33,39}(?![\w-])"),
    _token("google_oauth_token", "ya29.", r"[\w-]{20,}+"),
    _token("google_oauth_secret", "GOCSPX-", r"[\w-]{20,}+"),
    Rule(
        kind="slack_token",
        hints=("xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "xapp-"),
        pattern=_BEFORE + r"(?P<s>(?:xox[abeoprs]|xapp)-[\w-]{10,}+)",
        accept=_has_digit,
    ),
    Rule(
        kind="slack_webhook",
        hints=("hooks.slack.com/",),
        pattern=r"hooks\.slack\.com/(?P<s>(?:services|workflows)/[\w/]{20,200}+)",
    ),
    Rule(
        kind="stripe_key",
        hints=("sk_live_", "sk_test_", "rk_live_", "rk_test_"),
        pattern=_BEFORE + r"(?P<s>[sr]k_(?:live|test)_[A-Za-z0-9]{16,}+)",
    ),
    _token("stripe_webhook_secret", "whsec_", r"[A-Za-z0-9+/=]{24,}+"),
    _token("huggingface_token", "hf_", r"[A-Za-z0-9]{30,}+"),
    _token("npm_token", "npm_", r"[A-Za-z0-9]{36,}+"),
    _token("pypi_token", "pypi-AgE", r"[\w-]{40,}+"),
    _token("sendgrid_api_key", "SG.", r"[\w-]{16,80}\.[\w-]{16,}+"),
    _token("groq_api_key", "gsk_", r"[A-Za-z0-9]{40,}+"),
    _token("xai_api_key", "xai-", r"[A-Za-z0-9]{60,}+"),
    _token("replicate_token", "r8_", r"[A-Za-z0-9]{37,}+"),
    _token("digitalocean_token", "dop_v1_", r"[0-9a-f]{64}(?!\w)"),
    _token("azure_storage_key", "AccountKey=", r"[A-Za-z0-9+/=]{60,}+"),
    Rule(
        kind="jwt",
        hints=("eyJ",),
        # One that does not go on after its first part is given up at its end: it begins only where a run begins.
        pattern=r"(?:(?<![\w-])|(?<=\\[nrt]))(?P<s>eyJ[\w-]{8,}+\.eyJ[\w-]{8,}+(?:\.[\w-]*+){0,3})",
    ),
    Rule(
        kind="bearer_token",
        hints=("bearer",),
        pattern=r"(?i:bearer)\\?[\"']?(?:[ \t]{1,8}|[ \t]{0,4}[:=][ \t]{0,4})\\?[\"']?(?P<s>[\w.~+/=-]{16,}+)",
        folded=True,
        accept=_random,
    ),
    Rule(
        kind="basic_credentials",
        hints=("basic ",),
        pattern=r"(?i:basic )[ \t]{0,4}(?P<s>[A-Za-z0-9+/]{12,400}+={0,2})(?![\w+/=-])",
        folded=True,
        accept=lambda text: _mixed(text) or (text.endswith("=") and entropy_bits(text) >= 3.0),
    ),
    Rule(
        kind="password",
        hints=("://",),
        pattern=r"://[^\s/:@\"'<>\[\]]{0,80}:(?P<s>[^\s/@\"'<>\[\]]{1,200}+)@",
        accept=_in_address,
    ),
    _setting(
        "password",
        ("password", "passwd", "passphrase", "pwd"),
        accept=_assigned_password,
    ),
    _setting(
        "api_key",
        (
            "api_key",
            "apikey",
            "api-key",
            "access_key",
            "accesskey",
            "secret_key",
            "secretkey",
            "private_key",
            "account_key",
        ),
        accept=_assigned_key,
    ),
    _setting("secret", ("secret", "token", "credential"), accept=_assigned_key),
)
"""In order of precedence: of two rules that match at one place, the first names the kind."""
