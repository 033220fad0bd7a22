"""Records of exchanges, denials and events: capture, masking, redaction, and encoding as log lines."""
