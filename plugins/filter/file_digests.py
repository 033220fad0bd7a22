# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter that lists files on the machine that runs Ansible, with their digests."""

from __future__ import annotations

DOCUMENTATION = r"""
name: file_digests
short_description: List the files below a directory on the machine that runs Ansible, with their SHA-256
version_added: 0.1.0
author:
  - openclaw.egress maintainers (@openclaw)
description:
  - Returns the relative path of each file below the directory, with its SHA-256, sorted by path.
options:
  _input:
    description: The directory.
    type: path
    required: true
  patterns:
    description: Shell patterns of file names. A file must match one of them.
    type: list
    elements: str
    default: ["*"]
"""

EXAMPLES = r"""
- name: Print the digests of all Python files
  ansible.builtin.debug:
    msg: "{{ '/srv/package' | openclaw.egress.file_digests(['*.py']) }}"
"""

RETURN = r"""
_value:
  description: The digest of each file, by its relative path.
  type: dict
  sample: {__init__.py: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}
"""

import fnmatch
import hashlib
import os

from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError


def file_digests(directory: str, patterns: Sequence[str] = ("*",)) -> dict[str, str]:
    """Return the SHA-256 of each file below ``directory`` whose name matches a pattern, by relative path."""
    if not os.path.isdir(directory):
        raise AnsibleFilterError("file_digests: %s is not a directory" % directory)
    found = {}
    for parent, _directories, names in os.walk(directory):
        for name in names:
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                path = os.path.join(parent, name)
                with open(path, "rb") as source:
                    found[os.path.relpath(path, directory)] = hashlib.sha256(source.read()).hexdigest()
    return dict(sorted(found.items()))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"file_digests": file_digests}
