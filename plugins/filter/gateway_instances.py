# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: gateway_instances
short_description: Compute the settings of several gateways on one host
version_added: 0.1.0
author:
  - openclaw.egress maintainers (@openclaw)
description:
  - Completes the entries of C(openclaw_gateway_instances) with default values, networks and addresses.
  - Reports entries that contradict each other or the policy. Each message names the problem, its place and the remedy.
positional: _input
options:
  _input:
    description: The value of C(openclaw_gateway_instances).
    type: list
    elements: dict
    required: true
  defaults:
    description: The value of each option for gateways that do not set it.
    type: dict
    required: true
  policy:
    description: The classes of the policy by name.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the problems of the gateways
  ansible.builtin.debug:
    msg: "{{ (openclaw_gateway_instances | openclaw.egress.gateway_instances(defaults, policy.classes)).problems }}"
"""

RETURN = r"""
_value:
  description: The gateways with all their options, or the problems.
  type: dict
  contains:
    gateways:
      description: The gateways in the order of the input; empty if there are problems.
      type: list
      elements: dict
    problems:
      description: One message for each problem.
      type: list
      elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.openclaw.egress.plugins.module_utils.gateway_instances import gateway_instances


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"gateway_instances": gateway_instances}
