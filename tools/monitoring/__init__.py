"""Typed source of the Grafana dashboards and Prometheus alerts. `make docs` generates the role's files from it."""
