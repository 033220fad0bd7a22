"""Complete playbooks against hosts that are directories of this machine; `docker` and `ufw` are fakes.

Run by `make molecule` beside the lab and the scenarios, and by `make playbooks`: each starts hundreds of processes.
"""

from tests.integration.ansible.conftest import run

__all__ = ["run"]
