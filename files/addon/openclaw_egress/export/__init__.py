"""Export of the spool's log lines over OTLP."""
