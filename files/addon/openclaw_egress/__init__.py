"""Egress policy and an exact LLM record for OpenClaw: the addon and its command line."""

__version__ = "0.1.0"
