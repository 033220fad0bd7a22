"""Tests of the memory budget: the shares of the classes, and the default that depends on the container's limit."""

import asyncio
from types import SimpleNamespace

import pytest

from openclaw_egress.proxy import memory
from openclaw_egress.proxy.memory_budget import (
    DEFAULT_BUDGET,
    MIB,
    REQUEST_SHARE,
    MemoryBudget,
    container_limit,
    default_budget,
)
from openclaw_egress.settings import LEAST_MEMORY_BUDGET, Settings, SettingsError

CLASSES = ["gateway", "browser", "sandbox", "build"]


@pytest.fixture
def budget():
    return MemoryBudget(80 * MIB, lambda: CLASSES)


def fill(budget, class_name, piece=MIB // 4):
    while budget.fits(class_name, piece):
        budget.add(class_name, piece)


def test_one_class_cannot_use_the_guaranteed_memory_of_others(budget):
    fill(budget, "sandbox")
    assert budget.used("sandbox") == 50 * MIB
    assert all(budget.fits(name, 10 * MIB) for name in CLASSES if name != "sandbox")


@pytest.mark.parametrize("order", [CLASSES, CLASSES[::-1]])
def test_all_classes_together_stay_within_the_limit(budget, order):
    for name in order:
        fill(budget, name)
    assert budget.total == budget.limit
    assert all(budget.used(name) >= budget.guarantee for name in CLASSES)


def test_requests_do_not_use_the_memory_reserved_for_responses(budget):
    while budget.fits("sandbox", MIB, request=True):
        budget.add("sandbox", MIB)
    assert budget.used("sandbox") == int(50 * REQUEST_SHARE) * MIB
    assert budget.fits("sandbox", 15 * MIB)


def test_released_memory_is_available_again(budget):
    fill(budget, "sandbox")
    budget.add("sandbox", -20 * MIB)
    fill(budget, "browser")
    assert budget.used("browser") == 30 * MIB
    budget.add("browser", -30 * MIB)
    budget.add("sandbox", -30 * MIB)
    assert budget.total == 0 and budget.report()["sandbox"] == {"used_bytes": 0, "room_bytes": 50 * MIB}


def test_class_above_its_share_gets_no_memory_and_others_keep_their_shares(budget):
    budget.add("sandbox", 200 * MIB)
    assert not budget.fits("sandbox", 1)
    assert budget.fits("sandbox", 0) and budget.fits("sandbox", -1)
    assert budget.fits("gateway", 10 * MIB)
    assert not budget.fits("gateway", 10 * MIB + 1)


def test_memory_of_a_class_removed_by_a_reload_is_still_counted():
    names = [*CLASSES]
    budget = MemoryBudget(80 * MIB, lambda: names)
    budget.add("build", 30 * MIB)
    names.remove("build")
    fill(budget, "gateway")
    assert budget.total <= budget.limit


def test_size_above_the_whole_budget_is_refused(budget):
    assert budget.possible("gateway", 50 * MIB) and not budget.possible("gateway", 50 * MIB + 1)
    assert not budget.possible("gateway", 50 * MIB, request=True)


def test_default_budget_is_computed_from_the_memory_limit():
    assert default_budget(512 * MIB) == 192 * MIB
    assert default_budget(128 * MIB) == default_budget(1) == LEAST_MEMORY_BUDGET
    assert default_budget(None) == DEFAULT_BUDGET


@pytest.mark.parametrize(
    ("cgroup", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "536870912\n"}, 536870912),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "1000000\n"}, 1000000),
        ("0::/../x\n", {"memory.max": "max\n"}, None),
        ("3:cpu:/\n4:memory:/docker/abc\n0::/\n", {"memory/memory.limit_in_bytes": "536870912\n"}, 536870912),
        (
            "4:memory:/a/b\n",
            {"memory/a/memory.limit_in_bytes": "300000\n", "memory/a/b/memory.limit_in_bytes": "700000\n"},
            300000,
        ),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("4:memory:/\n", {}, None),
        ("nonsense", {}, None),
    ],
)
def test_memory_limit_is_read_from_the_cgroups(tmp_path, cgroup, files, limit):
    process, root = tmp_path / "cgroup", tmp_path / "fs"
    process.write_text(cgroup)
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert container_limit(process, root) == limit


def test_missing_cgroup_file_means_no_limit(tmp_path):
    assert container_limit(tmp_path / "missing", tmp_path) is None


@pytest.mark.parametrize("value", ["x", "-1", "1000000", "1.5"])
def test_invalid_budget_is_refused(monkeypatch, value):
    monkeypatch.setenv("EGRESS_MEMORY_BUDGET", value)
    with pytest.raises(SettingsError, match="EGRESS_MEMORY_BUDGET"):
        Settings.load()


@pytest.mark.parametrize(("value", "budget"), [("33554432", 33554432), ("", None)])
def test_configured_budget_replaces_the_default(monkeypatch, value, budget):
    monkeypatch.setenv("EGRESS_MEMORY_BUDGET", value)
    assert Settings.load().memory_budget == budget


@pytest.mark.parametrize("held", [0, 5, 9, 11, 40, 49, 60])
@pytest.mark.parametrize("others", [0, 10, 30])
@pytest.mark.parametrize("request_", [True, False])
def test_guarantee_check_gives_the_same_result_as_the_complete_rule(budget, held, others, request_):
    budget.add("sandbox", held * MIB)
    budget.add("browser", others * MIB)
    for more in range(0, 60 * MIB, MIB):
        room = budget.room("sandbox") * (REQUEST_SHARE if request_ else 1)
        expected = more <= 0 or held * MIB + more <= room
        assert budget.fits("sandbox", more, request=request_) is expected


def test_full_garbage_collection_waits_for_idle_or_for_its_interval(budget, monkeypatch):
    """Expect the proxy to delay a full garbage collection, because it stops the event loop for about 0.1 s."""
    collected, now = [], [1000.0]
    monkeypatch.setattr(memory.gc, "collect", lambda generation=2: collected.append(generation))
    monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
    accounts = memory.Accounts(budget, None, 1.0)

    def burst():
        collected.clear()
        budget.add("sandbox", 20 * MIB)
        accounts.settle_all()
        budget.add("sandbox", -20 * MIB)
        accounts.settle_all()
        return list(collected)

    assert burst() == [1, 2]
    monkeypatch.setattr(accounts, "settle", lambda client: None)
    accounts._accounts["a client"] = memory.Account(SimpleNamespace(client=None), "sandbox", 0)
    assert burst() == [1] and burst() == [1]
    now[0] += memory.COLLECTION_SECONDS
    collected.clear()
    accounts.settle_all()
    assert collected == [2]
    accounts.settle_all()
    assert collected == [2]
    assert burst() == [1]
    accounts._accounts.clear()
    accounts.settle_all()
    assert collected == [1, 2]


def test_socket_reader_at_a_reused_memory_address_is_tuned():
    async def tune() -> None:
        for _ in range(50):
            reader = asyncio.StreamReader()
            transport = SimpleNamespace(max_size=0)
            memory._tune(SimpleNamespace(reader=reader, writer=SimpleNamespace(transport=transport)))
            assert transport.max_size == memory.READ_BYTES and reader._limit == memory.READ_AHEAD_BYTES
            del reader

    asyncio.run(tune())
