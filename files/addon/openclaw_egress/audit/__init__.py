"""Audit of the hash chain: in the spool, at a destination of records, and in an exported file."""
