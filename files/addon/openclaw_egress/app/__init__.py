"""The proxy process: its service, and the two programs that start it."""
