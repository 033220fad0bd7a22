"""Parsers of data on the wire: HTTP/1 syntax, content codings, server-sent events, JSON members."""
