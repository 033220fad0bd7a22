"""The names of attributes, in one place.

``http``, ``url``, ``server``, ``client``, ``network`` and ``error`` come from ``opentelemetry-semantic-conventions``.
The ``gen_ai`` names are defined here, because that package deprecates its own. They follow the registry
(``model/gen-ai/registry.yaml``) of the repository open-telemetry/semantic-conventions-genai at commit
``GENAI_COMMIT``. This project defines the ``openclaw.egress`` names.
"""

from __future__ import annotations

from opentelemetry.semconv.attributes.client_attributes import CLIENT_ADDRESS
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_NAME, NETWORK_PROTOCOL_VERSION
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_FULL

__all__ = [
    "CLIENT_ADDRESS",
    "ERROR_TYPE",
    "HTTP_REQUEST_METHOD",
    "HTTP_RESPONSE_STATUS_CODE",
    "NETWORK_PROTOCOL_NAME",
    "NETWORK_PROTOCOL_VERSION",
    "SERVER_ADDRESS",
    "SERVER_PORT",
    "URL_FULL",
]

GENAI_COMMIT = "066d4a7f356f8600de6f10c42874626ab88692fb"

GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM = "gen_ai.request.stream"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_RESPONSE_ID = "gen_ai.response.id"
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS = "gen_ai.usage.cache_write.input_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_USAGE_AUDIO_INPUT_TOKENS = "gen_ai.usage.audio.input_tokens"
GEN_AI_USAGE_AUDIO_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.audio.cache_read.input_tokens"
GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS = "gen_ai.usage.audio.output_tokens"
GEN_AI_USAGE_IMAGE_INPUT_TOKENS = "gen_ai.usage.image.input_tokens"
GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS = "gen_ai.usage.image.output_tokens"
GEN_AI_OUTPUT_MESSAGES = "gen_ai.output.messages"

EVENT_NAME = "event_name"
"""The event's name. It is also sent as an attribute, because Loki before 3.8 drops the record's own field."""

EVENT_EXCHANGE = "openclaw.egress.exchange"
EVENT_DENIED = "openclaw.egress.denied"
EVENT_TUNNEL = "openclaw.egress.tunnel"
EVENT_POLICY = "openclaw.egress.policy"
EVENT_CA = "openclaw.egress.ca"
EVENT_SPOOL = "openclaw.egress.spool"
EVENT_CHECKPOINT = "openclaw.egress.checkpoint"

POLICY_DIGEST = "openclaw.egress.policy.digest"
EXCHANGE_ID = "openclaw.egress.exchange.id"
CONNECTION_ID = "openclaw.egress.connection.id"
"""ID of a WebSocket connection: all records of one connection have the same ID."""
CLASS = "openclaw.egress.class"
INSTANCE = "openclaw.egress.instance"
"""Gateway that alone uses the listener of the class (``instance`` in the policy); absent if the policy names none."""
RULE = "openclaw.egress.rule"
CODE = "openclaw.egress.code"
"""Kind of decision (`codes.Code`), for filters and alerts. The reason is for people and may be reworded."""
REASON = "openclaw.egress.reason"
ADDRESS = "openclaw.egress.address"
"""The IP address that a denial is about."""
BEGIN = "openclaw.egress.begin"
"""Start of an exchange or tunnel, or time of a denial: RFC 3339, in UTC, with microseconds."""
DURATION = "openclaw.egress.duration"
"""Duration in seconds."""
KEY = "openclaw.egress.key"
"""Fingerprint of the API key in use: 12 hex digits of its SHA-256."""
COST = "openclaw.egress.cost.usd"
"""Cost in US dollars: the provider's own value, else tokens times the prices in `genai-prices`; absent if unknown."""
CACHE_WRITE_5M = "openclaw.egress.usage.cache_write_5m.input_tokens"
"""Tokens written to a cache for five minutes, a part of ``gen_ai.usage.cache_write.input_tokens``."""
CACHE_WRITE_1H = "openclaw.egress.usage.cache_write_1h.input_tokens"
WEB_SEARCHES = "openclaw.egress.usage.web_searches"
"""Number of web searches by the provider's server tool."""
WEB_FETCHES = "openclaw.egress.usage.web_fetches"
USAGE_DETAILS = {
    GEN_AI_USAGE_AUDIO_INPUT_TOKENS: "audio in",
    GEN_AI_USAGE_AUDIO_CACHE_READ_INPUT_TOKENS: "audio read from cache",
    GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS: "audio out",
    GEN_AI_USAGE_IMAGE_INPUT_TOKENS: "images in",
    GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS: "images out",
    CACHE_WRITE_5M: "written to cache for 5 minutes",
    CACHE_WRITE_1H: "written to cache for 1 hour",
    WEB_SEARCHES: "web searches",
    WEB_FETCHES: "web fetches",
}
"""Display labels of the counts that are stored only in the attributes of a record."""
OUTCOME = "openclaw.egress.outcome"
REQUEST_SIZE = "openclaw.egress.request.size"
RESPONSE_SIZE = "openclaw.egress.response.size"
COUNT = "openclaw.egress.count"
"""Number of denials that a summary record counts."""
SUMMARY = "openclaw.egress.summary"
"""``True`` on a summary record, which counts denials that have no record of their own."""
ENFORCED = "openclaw.egress.enforced"
"""``False`` on a denial that was only reported (action ``report``)."""
PART_INDEX = "openclaw.egress.part.index"
"""Position of a part in a split record, from 1. The first line of the record does not have this attribute."""
PART_COUNT = "openclaw.egress.part.count"
PART_DIRECTION = "openclaw.egress.part.direction"
SPOOL_REASON = "openclaw.egress.spool.reason"
SPOOL_FIRST_SEQ = "openclaw.egress.spool.first_seq"
SPOOL_LAST_SEQ = "openclaw.egress.spool.last_seq"
SPOOL_LINES = "openclaw.egress.spool.lines"
SPOOL_LAST_HASH = "openclaw.egress.spool.last_hash"
SPOOL_INSTANCE = "openclaw.egress.spool.instance"
"""Instance ID of the backup from which a spool was restored."""
SPOOL_KEY = "openclaw.egress.spool.key"
"""Public signing key of the instance from whose backup a spool was restored, in base64."""
SPOOL_REPLACED_SEQ = "openclaw.egress.spool.replaced_seq"
"""Sequence number of the newest line of the spool that a restoration replaced."""
SPOOL_REPLACED_HASH = "openclaw.egress.spool.replaced_hash"
SPOOL_REPLACED_INSTANCE = "openclaw.egress.spool.replaced_instance"
SPOOL_DELETED = "openclaw.egress.spool.deleted"
"""Sequence numbers of the lines that an operator deleted, such as ``12-40,50``."""
SPOOL_SIGNATURE = "openclaw.egress.spool.signature"
"""Signature of a deletion: Ed25519 over the sequence numbers and the last line's hash, in base64."""
CHECKPOINT_SEQ = "openclaw.egress.checkpoint.seq"
CHECKPOINT_HASH = "openclaw.egress.checkpoint.hash"
CHECKPOINT_SIGNATURE = "openclaw.egress.checkpoint.signature"
"""Signature of a checkpoint: Ed25519 over the sequence number and the hash of a line, in base64."""
CHECKPOINT_KEY = "openclaw.egress.checkpoint.key"
"""First 12 hex digits of the public signing key's SHA-256."""
BODY_TRUNCATED = "body_truncated"
MASKED = "openclaw.egress.masked"
"""Number of secrets that are masked in the bodies and in the assembled message; absent if there are none."""
