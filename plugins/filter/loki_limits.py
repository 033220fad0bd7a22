# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
name: loki_limits
short_description: Compare Loki's configuration with what the proxies send
version_added: 0.1.0
author:
  - openclaw.egress maintainers (@openclaw)
description:
  - Compares limits, schema and labels of Loki's effective configuration with the largest line, the largest push and the
    export rate of the proxies.
  - Returns text for an operator. Each finding names the value found and the value needed. One block of YAML holds the
    lines that correct all findings.
  - Reports a value that it cannot read as a warning, and does not guess.
positional: _input
options:
  _input:
    description: The response to C(GET /config) of Loki, parsed from YAML.
    type: dict
    required: true
  rates:
    description:
      - The maximum export rate of each proxy that pushes to this Loki, in bytes per second. V(0) means no maximum.
      - If it is empty, one proxy with the default rate.
    type: list
    elements: raw
    default: []
"""

EXAMPLES = r"""
- name: Read Loki's configuration
  ansible.builtin.uri:
    url: http://10.0.0.2:3100/config
    return_content: true
  register: config
  no_log: true

- name: Stop if the limits do not fit
  ansible.builtin.assert:
    that: limits.problems | length == 0
    fail_msg: "{{ limits.problems }}"
  vars:
    limits: "{{ config.content | from_yaml | openclaw.egress.loki_limits(rates=[2500000, 2500000]) }}"
"""

RETURN = r"""
_value:
  description: The findings.
  type: dict
  contains:
    metadata_allowed:
      description: Whether the running Loki allows structured metadata.
      type: bool
    problems:
      description: >-
        Settings with which Loki refuses, truncates or loses records, and the lines that correct them. Empty if there
        are none.
      type: list
      elements: str
    problems_without_metadata:
      description: The same without the setting C(allow_structured_metadata), for a caller that sets it.
      type: list
      elements: str
    warnings:
      description: Settings that delay records or queries, and values that could not be checked.
      type: list
      elements: str
    requirements:
      description: The minimum of each setting, for a Loki that does not show its configuration.
      type: list
      elements: str
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.openclaw.egress.plugins.module_utils.loki_limits import (
    EXPORT_BYTES_PER_SECOND,
    check_config,
    flag,
    parse_quantity,
    report,
    requirements,
)

METADATA = "limits_config.allow_structured_metadata"


def loki_limits(config: Any, rates: Sequence[Any] = ()) -> dict[str, Any]:
    """Check Loki's configuration. Return problems, warnings and requirements, each as lines of text.

    The result also states whether Loki allows structured metadata.
    """
    if not isinstance(config, Mapping):
        raise AnsibleFilterError("loki_limits needs Loki's configuration as a mapping, not %s" % type(config).__name__)
    try:
        speeds = [parse_quantity(rate, "bytes") for rate in rates]
    except ValueError as error:
        raise AnsibleFilterError(
            "loki_limits: an export rate is invalid: %s. Give bytes per second." % error
        ) from error
    speeds = speeds or [EXPORT_BYTES_PER_SECOND]
    findings = check_config(config, datetime.now(timezone.utc).date(), speeds)
    problems = [finding for finding in findings if finding.stops]
    return {
        "metadata_allowed": flag(config, METADATA),
        "problems": report(problems),
        "problems_without_metadata": report(finding for finding in problems if finding.key != METADATA),
        "warnings": report(finding for finding in findings if not finding.stops),
        "requirements": requirements(speeds),
    }


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {"loki_limits": loki_limits}
