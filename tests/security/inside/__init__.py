"""Code that runs inside a container: standard library only, sent as text by :mod:`tests.security.vantage_points`."""
