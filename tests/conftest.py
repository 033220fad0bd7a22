"""Settings for all tests."""

import os
from typing import Any

import pytest
from hypothesis import settings

from tests.support import reworded

# Disable Hypothesis deadlines, because `make bench` measures speed. Use the same examples in every CI run, and random
# examples in local runs.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

reworded.install_if_asked()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the longest test to the front, so that the other workers do not wait for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_reworded.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--provider-table",
        action="store_true",
        help="Print the provider table of test_provider_table.py after the tests.",
    )
    parser.addoption(
        "--compose-table",
        action="store_true",
        help="Print the table of compose projects of test_compose_projects.py after the tests.",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tables that command-line options request."""
    if config.getoption("--provider-table"):
        _print_providers(terminalreporter)
    if config.getoption("--compose-table"):
        _print_compose_projects(terminalreporter)


def _properties(terminalreporter: pytest.TerminalReporter, name: str) -> list[Any]:
    found = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    return sorted(value for report in found for key, value in report.user_properties if key == name)


def _print_compose_projects(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the outcome for each compose project, and the percentage of projects that the role refuses."""
    rows = _properties(terminalreporter, "compose")
    for row in [("project", "outcome", "by", "direct"), *rows]:
        terminalreporter.write_line(row[0].ljust(36) + row[1].ljust(10) + row[2].ljust(22) + row[3])
    outcomes = [row[1] for row in rows]
    refused, possible = outcomes.count("refused"), len(rows) - outcomes.count("operator")
    terminalreporter.write_line(
        f"{len(rows)} projects: {outcomes.count('right')} right, {refused} refused with a remedy"
        f" ({refused / max(possible, 1):.1%} of those that a plan can cover),"
        f" {outcomes.count('operator')} that only the operator can change"
    )


def _print_providers(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the provider test table, and below it the reason for each cell other than `equal`."""
    cells = [cell[2:] for cell in _properties(terminalreporter, "cell")]
    rows: dict[str, dict[str, str]] = {}
    for provider, case, stated in cells:
        rows.setdefault(provider, {})[case] = stated
    cases = list(dict.fromkeys(case for _, case, _ in cells))
    table = [["provider", *cases]]
    table += [[name, *(row.get(case, "MISSING").partition(":")[0] for case in cases)] for name, row in rows.items()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        words = (word.ljust(width) for word, width in zip(line, widths, strict=True))
        terminalreporter.write_line(" ".join(words).rstrip())
    for provider, case, stated in cells:
        if stated != "equal":
            terminalreporter.write_line(f"{provider}, {case}: {stated}")
