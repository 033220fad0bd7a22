"""Code that runs inside a container. It imports only the standard library, because `remote_exec` sends its source."""
