"""Parsers of wire formats: HTTP/1 syntax, content codings, event streams, WebSocket frames, JSON members."""
