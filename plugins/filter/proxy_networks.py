# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: proxy_networks
short_description: Compute the proxy's networks for several gateways
version_added: 0.1.0
author:
  - openclaw.egress maintainers (@openclaw)
description:
  - Computes the Docker networks of several gateways, and the proxy's settings for them.
positional: _input
options:
  _input:
    description: The gateways, as the filter P(openclaw.egress.gateway_instances#filter) returns them.
    type: list
    elements: dict
    required: true
  siblings:
    description: Names of the gateways whose sandboxes run in the host's Docker daemon.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show the networks of the gateways
  ansible.builtin.debug:
    msg: "{{ (gateways | openclaw.egress.proxy_networks([])).networks }}"
"""

RETURN = r"""
_value:
  description: The networks and settings.
  type: dict
  contains:
    networks:
      description: The networks with their addresses, in the order of the gateways.
      type: list
      elements: dict
    interfaces:
      description: The proxy's address with prefix length for each class.
      type: dict
    neighbours:
      description: >-
        NETWORK=ADDRESS for each gateway at enforcement level C(network). Only this address may connect in the network.
      type: list
      elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.openclaw.egress.plugins.module_utils.gateway_instances import proxy_networks


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"proxy_networks": proxy_networks}
