"""The Grafana dashboards and the Prometheus alerts, as one typed source. `make docs` writes the role's files."""
