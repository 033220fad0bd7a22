# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: class_networks
short_description: Compute the addresses in the Docker networks of the classes
version_added: 0.1.0
author:
  - openclaw.egress maintainers (@openclaw)
description:
  - Computes the proxy's address and Docker's address range for the network of each class whose containers are siblings
    of the gateway.
positional: _input
options:
  _input:
    description: Name and subnet of each class's network, as in C(openclaw_egress_class_networks).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the proxy's address in the network of the class sandbox
  ansible.builtin.debug:
    msg: "{{ (networks | openclaw.egress.class_networks | first).address }}"
  vars:
    networks:
      sandbox: {name: openclaw-egress-sandbox, subnet: 172.31.251.0/24}
"""

RETURN = r"""
_value:
  description: The networks, in the order of the input.
  type: list
  elements: dict
  contains:
    class:
      description: Name of the class.
      type: str
    name:
      description: Name of the network in Docker.
      type: str
    subnet:
      description: Subnet of the network.
      type: str
    parent:
      description: Parent interface of the network on the host. If it is empty, Docker creates a dummy interface.
      type: str
    gateway:
      description: Address that Docker regards as the network's gateway. No interface has it.
      type: str
    address:
      description: The proxy's address.
      type: str
    interface:
      description: The proxy's address with the prefix length of the subnet.
      type: str
    range:
      description: Range from which Docker assigns addresses to the class's containers.
      type: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.openclaw.egress.plugins.module_utils.class_networks import class_networks as computed


def class_networks(given: Any) -> list[dict[str, str]]:
    """Return each class's network with its addresses."""
    try:
        return computed(given)
    except (ValueError, AttributeError) as error:
        raise AnsibleFilterError("openclaw_egress_class_networks: %s" % error) from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., list[dict[str, str]]]]:
        return {"class_networks": class_networks}
