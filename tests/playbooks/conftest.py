"""Fixtures for complete playbooks against hosts that are directories of this machine, with a fake `docker` and `ufw`.

Run by `make molecule` beside the lab and the scenarios, and by `make playbooks`: each starts hundreds of processes.
"""

from tests.integration.ansible.conftest import run

__all__ = ["run"]
