"""Fixtures that run complete playbooks. Each host is a directory of this machine, with a fake `docker` and `ufw`.

`make playbooks` runs these tests, and `make molecule` runs them beside its scenarios. `make test` does not, because
each test starts hundreds of processes.
"""

from tests.integration.ansible.conftest import run

__all__ = ["run"]
