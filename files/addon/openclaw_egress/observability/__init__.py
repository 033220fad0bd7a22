"""The health server and the metrics."""
