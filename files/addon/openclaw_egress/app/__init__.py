"""The process: its service, and the two ways to start it."""
