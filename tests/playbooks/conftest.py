"""Fixtures for complete playbooks against hosts that are directories of this machine, with a fake `docker` and `ufw`.

`make playbooks` runs these tests, and `make molecule` does so beside its scenarios; `make test` does not, because each
test starts hundreds of processes.
"""

from tests.integration.ansible.conftest import run

__all__ = ["run"]
