"""Code that runs inside a container. It imports only standard modules, because `remote_exec` sends it as text."""
