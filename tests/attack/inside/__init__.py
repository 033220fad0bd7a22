"""What runs inside a container: the standard library alone, sent there as text by :mod:`tests.attack.places`."""
