"""Health server, metrics, and the stored result of the last audit."""
