"""Fakes of external services, used by tests only; not part of the product."""
