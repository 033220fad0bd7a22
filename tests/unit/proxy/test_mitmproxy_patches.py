"""Tests that the proxy refuses to start with a mitmproxy version for which its patches were not checked."""

import re
from pathlib import Path

import pytest
from mitmproxy import version

from openclaw_egress.proxy import mitmproxy_patches
from openclaw_egress.settings import SettingsError

PROJECT = Path(__file__).parents[3] / "files" / "addon" / "pyproject.toml"


def test_the_required_version_of_mitmproxy_is_the_checked_one():
    mitmproxy_patches.check_version()
    assert re.search(r'"mitmproxy==([0-9.]+)"', PROJECT.read_text())[1] == mitmproxy_patches.CHECKED_VERSION


def test_another_version_of_mitmproxy_is_refused_with_a_remedy(monkeypatch):
    monkeypatch.setattr(version, "VERSION", "12.3.0")
    with pytest.raises(SettingsError, match=r"mitmproxy 12\.3\.0 is installed.*pip install mitmproxy=="):
        mitmproxy_patches.check_version()
