"""The record of exchanges, denials and events: captured, redacted, encoded as log lines."""
