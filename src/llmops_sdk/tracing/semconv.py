"""Names of attributes, events and payload slots: the span vocabulary, in one file.

`gen_ai.*` and `error.type` are OpenTelemetry's GenAI semantic conventions as of 2026-11
(https://github.com/open-telemetry/semantic-conventions-genai); `openinference.span.kind` is OpenInference's
(https://github.com/Arize-ai/openinference/tree/main/spec); `llmops.*` is what neither has a name for.
"""

from __future__ import annotations

from typing import Final

# Who and where --------------------------------------------------------------------------------------------------------

SERVICE_NAME: Final = "service.name"
USER_ID: Final = "user.id"
SESSION_ID: Final = "session.id"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
LLMOPS_TENANT: Final = "llmops.tenant"
LLMOPS_TAGS: Final = "llmops.tags"
LLMOPS_METADATA: Final = "llmops.metadata"
"""Prefix: `llmops.metadata.<name>`."""

# Calls of models ------------------------------------------------------------------------------------------------------

GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_OUTPUT_TYPE: Final = "gen_ai.output.type"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_CREATION_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
GEN_AI_USAGE_REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_EMBEDDINGS_DIMENSION_COUNT: Final = "gen_ai.embeddings.dimension.count"
LLMOPS_COST_USD: Final = "llmops.cost_usd"
LLMOPS_COST_SOURCE: Final = "llmops.cost.source"
LLMOPS_RETRY_EVENT: Final = "llmops.retry"
LLMOPS_RETRY_ATTEMPT: Final = "llmops.retry.attempt"
LLMOPS_RETRY_PAUSE_S: Final = "llmops.retry.pause_s"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

# Content: only on what may leave the process, after redaction -----------------------------------------------------------

GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_RETRIEVAL_DOCUMENTS: Final = "gen_ai.retrieval.documents"
LLMOPS_ARGUMENTS: Final = "llmops.arguments"
LLMOPS_RESULT: Final = "llmops.result"
GEN_AI_DETAILS_EVENT: Final = "gen_ai.client.inference.operation.details"

SLOTS: Final = {
    "input_messages": GEN_AI_INPUT_MESSAGES,
    "output_messages": GEN_AI_OUTPUT_MESSAGES,
    "documents": GEN_AI_RETRIEVAL_DOCUMENTS,
    "arguments": LLMOPS_ARGUMENTS,
    "result": LLMOPS_RESULT,
}
"""The slots of a span's payload, and the attribute that carries each where content may leave."""

# Prompts, caches, guards, retrieval -------------------------------------------------------------------------------------

GEN_AI_PROMPT_NAME: Final = "gen_ai.prompt.name"
GEN_AI_PROMPT_VERSION: Final = "gen_ai.prompt.version"
LLMOPS_PROMPT_HASH: Final = "llmops.prompt.hash"
LLMOPS_PROMPT_OVERRIDE: Final = "llmops.prompt.override"
"""Prefix: `llmops.prompt.override.<parameter>`."""
LLMOPS_REPAIR_REASON: Final = "llmops.repair.reason"
LLMOPS_REPAIR_RESULT: Final = "llmops.repair.result"
LLMOPS_CACHE_RESULT: Final = "llmops.cache.result"
LLMOPS_CACHE_ERROR: Final = "llmops.cache.error"
LLMOPS_CACHE_SAVED_INPUT_TOKENS: Final = "llmops.cache.saved_input_tokens"
LLMOPS_CACHE_SAVED_OUTPUT_TOKENS: Final = "llmops.cache.saved_output_tokens"
LLMOPS_FALLBACK_MODELS: Final = "llmops.fallback.models"
LLMOPS_FALLBACK_ANSWERED: Final = "llmops.fallback.answered"
LLMOPS_FALLBACK_FAILED_EVENT: Final = "llmops.fallback.failed"
LLMOPS_MODEL: Final = "llmops.model"
LLMOPS_RACE_LOST_EVENT: Final = "llmops.race.lost"
LLMOPS_RACE_LOSERS: Final = "llmops.race.losers"
LLMOPS_GUARD_VERDICT_EVENT: Final = "llmops.guard.verdict"
LLMOPS_GUARD_CHECK: Final = "llmops.guard.check"
LLMOPS_GUARD_ACTION: Final = "llmops.guard.action"
LLMOPS_GUARD_STAGE: Final = "llmops.guard.stage"
LLMOPS_GUARD_SCORE: Final = "llmops.guard.score"
LLMOPS_GUARD_THRESHOLD: Final = "llmops.guard.threshold"
LLMOPS_GUARD_REASON: Final = "llmops.guard.reason"
LLMOPS_GUARD_TEXTS: Final = "llmops.guard.texts"
"""How many texts the check saw; the event tells the worst verdict."""
LLMOPS_RETRIEVAL_K: Final = "llmops.retrieval.k"
LLMOPS_RETRIEVAL_HITS: Final = "llmops.retrieval.hits"
LLMOPS_RETRIEVAL_SCORES: Final = "llmops.retrieval.scores"
GEN_AI_DATA_SOURCE_ID: Final = "gen_ai.data_source.id"
LLMOPS_INDEX_WRITTEN: Final = "llmops.index.written"
LLMOPS_INDEX_UNCHANGED: Final = "llmops.index.unchanged"
LLMOPS_INDEX_CHUNKS: Final = "llmops.index.chunks"
LLMOPS_CANCELLED: Final = "llmops.cancelled"
LLMOPS_CLOSED_EARLY: Final = "llmops.closed_early"
LLMOPS_ITEMS: Final = "llmops.items"
OPENINFERENCE_SPAN_KIND: Final = "openinference.span.kind"
