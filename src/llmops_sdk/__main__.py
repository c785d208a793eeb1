"""`python -m llmops_sdk` is `llmops`."""

from __future__ import annotations

from llmops_sdk.cli import main

if __name__ == "__main__":
    main()
