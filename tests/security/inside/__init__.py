"""Code that runs inside a container. :mod:`tests.security.remote_exec` sends it as text; use only standard modules."""
