"""The proxy process: the service, and the two ways to start it (`egress run` and a stock mitmdump)."""
