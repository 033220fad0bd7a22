"""The mitmproxy add-on and its command line: egress policy for OpenClaw, and exact records of its LLM traffic."""

__version__ = "0.1.0"
