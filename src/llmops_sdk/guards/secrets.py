"""`Secrets`: keeps API keys, passwords and private keys from going in or coming out."""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal

from llmops_sdk.errors import UsageError
from llmops_sdk.tracing.secrets import find_secrets, redact_secrets
from llmops_sdk.types import Verdict

_ACTIONS: Final = ("redact", "block")


class Secrets:
    """Finds credentials and puts `[REDACTED:<kind>]` in their place, or blocks the text that holds them.

    It knows the formats of the common providers, JWTs, bearer tokens, private keys, passwords in addresses, and values
    that look random under a name such as `api_key`. Hashes, UUIDs and encoded images are not taken for secrets. The kinds
    stand in `llmops_sdk.tracing.secrets`, which cleans what is recorded by the same rules. Raises `UsageError` for another
    action.
    """

    name = "secrets"

    def __init__(self, action: Literal["redact", "block"] = "redact") -> None:
        if action not in _ACTIONS:
            raise UsageError(f'Secrets(action=…) is "redact" or "block"; it is {action!r}.')
        self.action: Literal["redact", "block"] = action

    def check(self, text: str) -> Verdict:
        """The verdict names kinds and counts, never a secret; `start` and `end` are those of the first."""
        findings = find_secrets(text)
        if not findings:
            return Verdict(check=self.name)
        kinds = Counter(finding.kind for finding in findings)
        return Verdict(
            check=self.name,
            action=self.action,
            reason="found " + ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in kinds.items()),
            text=redact_secrets(text) if self.action == "redact" else None,
            start=findings[0].start,
            end=findings[0].end,
        )

    def __repr__(self) -> str:
        return f"Secrets(action={self.action!r})"
