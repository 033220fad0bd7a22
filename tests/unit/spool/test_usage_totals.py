"""Tests of the hourly totals: they match the records, are bounded in size, and survive crashes and pruned records."""

import math
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from openclaw_egress.llm.model import RequestFacts, ResponseFacts, Usage
from openclaw_egress.recording.records import Body, DeniedRecord, ExchangeRecord
from openclaw_egress.spool import usage_totals
from openclaw_egress.spool.reader import SpoolReader
from openclaw_egress.spool.schema import SpoolError
from openclaw_egress.spool.usage_totals import (
    DAY,
    GROUP,
    HOUR_NS,
    KEPT_HOURS,
    MAX_GROUPS,
    MOST,
    OTHER,
    Times,
    local_day,
)
from openclaw_egress.spool.writer import Spool

START = 1_795_784_400_000_000_000
START -= START % HOUR_NS
ALL = ("hour", *GROUP)


def exchange(name: str, **changes: object) -> ExchangeRecord:
    known: dict = {
        "id": name,
        "class_name": "gateway",
        "method": "POST",
        "url": "https://api.anthropic.com/v1/messages",
        "host": "api.anthropic.com",
        "port": 443,
        "begin_ns": 0,
        "end_ns": 1_500_000_000,
        "first_chunk_ns": 250_000_000,
        "status": 200,
        "key_fingerprint": "0123456789ab",
        "request_facts": RequestFacts("chat", "anthropic", "claude-opus-5", False),
        "response_facts": ResponseFacts(usage=Usage(11, 7, 5, 3, 2)),
        "cost_usd": 0.001,
    }
    return ExchangeRecord(**known | changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def opened(path: Path, times: list[int] | None = None, **options: object) -> Spool:
    """Return a spool whose clock returns the last item of ``times``. To move the clock, append to the list."""
    now = times or [START]
    return Spool(path, sync_seconds=None, local=True, clock_ns=lambda: now[-1], **options)


def totals(path: Path) -> dict[tuple, tuple]:
    with SpoolReader(path) as reader:
        return {
            key: (dict(+usage.counts), dict(usage.duration.buckets), dict(usage.first_chunk.buckets))
            for key, usage in reader.usage(ALL)
        }


def test_exchange_adds_its_counts_and_times(path):
    with opened(path) as spool:
        spool.close_exchange(exchange("a"))
        spool.close_exchange(exchange("b", cost_usd=None))
        failed = {"status": 529, "error_type": "overloaded_error", "response_facts": ResponseFacts(), "cost_usd": None}
        spool.close_exchange(exchange("c", **failed))
        spool.add(DeniedRecord(class_name="a", host="b.example", port=1, rule="default", code="no_rule", reason="why"))
    with SpoolReader(path) as reader:
        found = {key[GROUP.index("status") + 1]: usage for key, usage in reader.usage(ALL)}
    assert set(found) == {200, 529}
    assert found[200].counts == Counter(
        requests=2,
        errors=0,
        input_tokens=22,
        output_tokens=14,
        cache_read_tokens=10,
        cache_write_tokens=6,
        reasoning_tokens=4,
        cost_nano_usd=1_000_000,
        unpriced=1,
    )
    assert found[200].cost_usd == 0.001
    assert found[529].counts["errors"] == 1
    # A call that used no tokens needs no price, so it does not count as unpriced.
    assert found[529].counts["unpriced"] == 0
    assert found[200].duration.percentile(0.5) == pytest.approx(1.5, rel=0.03)
    assert found[200].first_chunk.percentile(0.95) == pytest.approx(0.25, rel=0.03)


def random_exchanges(count: int, seed: int = 4) -> list[ExchangeRecord]:
    draw = random.Random(seed)
    return [
        exchange(
            f"x{number}",
            class_name=draw.choice(["gateway", "browser"]),
            host=draw.choice(["api.anthropic.com", "api.openai.com"]),
            status=draw.choice([200, 200, 429, None]),
            error_type=draw.choice([None, "timeout"]),
            end_ns=int(draw.lognormvariate(0, 1) * 1e9),
            first_chunk_ns=draw.choice([None, 10_000_000]),
            key_fingerprint=draw.choice([None, "0123456789ab"]),
            cost_usd=draw.choice([None, 0.0001, 1.25, 1e-9]),
            request_facts=RequestFacts("chat", "anthropic", draw.choice([None, "m", "n"]), False),
            response_facts=ResponseFacts(usage=draw.choice([Usage(), Usage(1, 2), Usage(3, 4, 5, 6, 7)])),
            response_body=Body.of(b"x" * draw.choice([10, 300_000])),
        )
        for number in range(count)
    ]


def test_totals_equal_a_plain_sum_over_the_records(path):
    times = [START]
    records = random_exchanges(300)
    with opened(path, times) as spool:
        for number, record in enumerate(records):
            times.append(START + number * HOUR_NS // 40)
            spool.close_exchange(record)
    with SpoolReader(path) as reader:
        found = [usage for _, usage in reader.usage(ALL)]
        hours = {key[0] for key, _ in reader.usage(ALL)}
    assert len(hours) == 8
    assert sum(usage.counts["requests"] for usage in found) == 300
    for name in ("input_tokens", "output_tokens"):
        plain = sum(getattr(record.response_facts.usage, name) or 0 for record in records)
        assert sum(usage.counts[name] for usage in found) == plain
    assert sum(usage.counts["cost_nano_usd"] for usage in found) == sum(
        round((record.cost_usd or 0) * 1e9) for record in records
    )
    assert sum(usage.counts["unpriced"] for usage in found) == sum(
        record.cost_usd is None and record.response_facts.usage.input_tokens is not None for record in records
    )


def test_rebuild_gives_the_same_totals(path):
    times = [START]
    with opened(path, times) as spool:
        for number, record in enumerate(random_exchanges(200)):
            times.append(START + number * HOUR_NS // 30)
            spool.close_exchange(record)
    before = totals(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE usage_hours SET requests = requests + 1")
    assert totals(path) != before
    with opened(path, times) as spool:
        assert spool.rebuild_usage() == 0
    assert totals(path) == before


def test_totals_outlive_pruned_records_also_after_a_rebuild(path):
    times = [START]
    with opened(path, times, max_bytes=1 << 20) as spool:
        for number in range(40):
            times.append(START + number * HOUR_NS)
            spool.close_exchange(exchange(f"x{number}", response_body=Body.of(b"x" * 100_000)))
        assert spool.stats()["local_records"] < 40
        before = totals(path)
        assert sum(counts["requests"] for counts, _, _ in before.values()) == 40
        kept = spool.rebuild_usage()
        assert kept > 20
        assert totals(path) == before


def test_failed_fold_adds_nothing_and_is_repeated(path, monkeypatch):
    def fails(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with opened(path) as spool:
        for name in ("a", "b"):
            spool.close_exchange(exchange(name))
            before = totals(path)
            monkeypatch.setattr(usage_totals, "_set_folded", fails)
            with pytest.raises(SpoolError):
                spool.fold_usage()
            monkeypatch.undo()
            assert totals(path) == before
            spool.fold_usage()
            assert totals(path) == before
    ((counts, _, _),) = totals(path).values()
    assert counts["requests"] == 2


def test_exchanges_that_are_not_folded_yet_count_in_each_result(path, monkeypatch):
    monkeypatch.setattr(usage_totals, "BATCH", 7)
    times = [START]
    with opened(path, times) as spool:
        for number, record in enumerate(random_exchanges(90)):
            times.append(START + number * HOUR_NS // 40)
            spool.close_exchange(record)
            if number == 40:
                spool.fold_usage()
        unfolded = totals(path), of_class(path, "browser")
        assert sum(counts["requests"] for counts, _, _ in unfolded[0].values()) == 90
        spool.fold_usage()
        assert (totals(path), of_class(path, "browser")) == unfolded


def of_class(path: Path, name: str) -> dict[tuple, dict[str, int]]:
    with SpoolReader(path) as reader:
        found = reader.usage(("host",), START + HOUR_NS, START + 2 * HOUR_NS, name)
        return {key: dict(+usage.counts) for key, usage in found}


def test_exchange_that_a_crash_interrupted_is_counted(path):
    with opened(path) as spool:
        spool.open_exchange("a", "gateway", {"method": "POST", "request_complete": True})
    with opened(path) as spool:
        spool.recover()
    ((counts, _, _),) = totals(path).values()
    assert counts["requests"] == counts["errors"] == 1


def test_agent_with_many_models_and_keys_cannot_fill_the_disk(path):
    with opened(path) as spool:
        for number in range(MAX_GROUPS + 50):
            requested = RequestFacts("chat", "anthropic", f"model-{number}", False)
            changes = {"host": f"host-{number}.example", "status": 200 + number}
            spool.close_exchange(
                exchange(f"x{number}", request_facts=requested, key_fingerprint=f"{number:012x}", **changes)
            )
        spool.fold_usage()
        found = totals(path)
        others = [key for key in found if key[GROUP.index("model") + 1] == OTHER]
        assert len(found) == MAX_GROUPS + 1
        assert len(others) == 1
        assert found[others[0]][0]["requests"] == 50
        assert sum(counts["requests"] for counts, _, _ in found.values()) == MAX_GROUPS + 50
        # The limit on groups applies to each class separately.
        spool.close_exchange(exchange("other class", class_name="browser"))
        spool.fold_usage()
        found = totals(path)
        assert len(found) == MAX_GROUPS + 2
        spool.rebuild_usage()
        assert totals(path) == found


@pytest.mark.parametrize("by", [(), ("model",), ("status", "class"), (DAY, "model"), ("hour", "key"), (DAY,)])
@pytest.mark.parametrize("huge", [False, True])
def test_groups_are_the_sums_of_single_rows(path, by, huge):
    times = [START]
    with opened(path, times) as spool:
        for number in range(60):
            times.append(START + number * HOUR_NS)
            model = RequestFacts("chat", "anthropic", f"m{number % 5}", False)
            changes = {"class_name": f"c{number % 2}", "status": 200 + number % 3, "request_facts": model}
            if huge:
                changes["response_facts"] = ResponseFacts(usage=Usage(MOST, 2**40 + number))
            spool.close_exchange(exchange(f"{number}", **changes))
            if number == 50:
                spool.fold_usage()
    names = (*ALL, DAY)
    expected: dict[tuple, usage_totals.Usage] = {}
    with SpoolReader(path) as reader:
        for key, usage in reader.usage(ALL):
            values = dict(zip(names, (*key, local_day(key[0])), strict=True))
            expected.setdefault(tuple(values[name] for name in by), usage_totals.Usage()).merge(usage)
        assert dict(reader.usage(by)) == expected


def test_day_is_in_the_local_time_zone(monkeypatch):
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        local_day.cache_clear()
        assert [local_day(14), local_day(15)] == ["1970-01-01", "1970-01-02"]
    time.tzset()
    local_day.cache_clear()


def test_counts_and_costs_beyond_the_integers_of_sqlite_are_recorded(path):
    huge = {"response_facts": ResponseFacts(usage=Usage(MOST, MOST, MOST, MOST, MOST)), "cost_usd": float(2**62)}
    with opened(path) as spool:
        spool.close_exchange(exchange("a", **huge))
        spool.close_exchange(exchange("b", **huge))
        spool.close_exchange(exchange("c", **huge, status=201))
        spool.fold_usage()
        for _ in range(2):
            with SpoolReader(path) as reader:
                ((_, usage),) = reader.usage(())
            assert usage.counts["requests"] == 3
            # Each of the two stored rows contains the largest integer that SQLite can store. The sum must be exact.
            assert {usage.counts[name] for name in ("input_tokens", "reasoning_tokens", "cost_nano_usd")} == {2 * MOST}
            assert spool.rebuild_usage() == 0


def test_rebuild_counts_exchanges_that_are_not_folded_yet_also_in_an_hour_with_pruned_lines(path):
    with opened(path) as spool:
        for number in range(5):
            spool.close_exchange(exchange(f"a{number}"))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DELETE FROM records WHERE seq = 1")
    with opened(path) as spool:
        for number in range(5):
            spool.close_exchange(exchange(f"b{number}"))
        spool.rebuild_usage()
        ((counts, _, _),) = totals(path).values()
    assert counts["requests"] == 10


def test_migration_counts_the_stored_exchanges_of_an_hour_with_pruned_lines(path):
    with opened(path) as spool:
        for number in range(5):
            spool.close_exchange(exchange(f"a{number}"))
    downgraded(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DELETE FROM records WHERE seq = 1")
    opened(path).close()
    ((counts, _, _),) = totals(path).values()
    assert counts["requests"] == 4


def test_clock_that_was_wrong_once_deletes_no_totals(path):
    times = [START]
    with opened(path, times) as spool:
        for offset in (0, KEPT_HOURS + 24, 1):
            times.append(START + offset * HOUR_NS)
            spool.close_exchange(exchange(f"x{offset}"))
            spool.fold_usage()
    assert len(totals(path)) == 3


def test_totals_of_old_hours_are_deleted(path, monkeypatch):
    monkeypatch.setattr(usage_totals, "KEPT_HOURS", 2)
    times = [START]
    with opened(path, times) as spool:
        for hour in (0, 3, 10, 11):
            times.append(START + hour * HOUR_NS)
            spool.close_exchange(exchange(f"x{hour}"))
            spool.fold_usage()
    assert [key[0] - START // HOUR_NS for key in totals(path)] == [10, 11]


def test_totals_are_limited_to_a_range_of_hours(path):
    times = [START]
    with opened(path, times) as spool:
        for hour in range(4):
            times.append(START + hour * HOUR_NS + 5)
            spool.close_exchange(exchange(f"x{hour}"))
    with SpoolReader(path) as reader:

        def hours(since: int | None, until: int | None) -> list[int]:
            return [key[0] - START // HOUR_NS for key, _ in reader.usage(ALL, since, until)]

        assert hours(None, None) == [0, 1, 2, 3]
        assert hours(START + HOUR_NS + 17, START + 3 * HOUR_NS) == [1, 2]
        assert hours(START + HOUR_NS, START + HOUR_NS + 1) == [1]


def test_percentiles_are_within_three_percent():
    draw = random.Random(9)
    values = sorted(draw.lognormvariate(0, 2) for _ in range(5000))
    times = Times()
    for value in values:
        times.add(value)
    for share in (0.01, 0.5, 0.95, 0.99, 1.0):
        exact = values[math.ceil(share * len(values)) - 1]
        if exact > 0.001:
            assert times.percentile(share) == pytest.approx(exact, rel=0.03)
    assert Times().percentile(0.5) is None
    assert Times.read(times.text()) == times


def downgraded(path: Path) -> None:
    """Convert a spool to the previous version, which did not store totals."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TABLE usage_hours")
        db.execute("ALTER TABLE records DROP COLUMN key")
        db.execute("ALTER TABLE records DROP COLUMN cost_usd")
        db.execute("PRAGMA user_version = 1")


def test_spool_of_the_version_before_gets_totals_at_the_next_start(path):
    with opened(path) as spool:
        spool.close_exchange(exchange("a"))
    downgraded(path)
    with SpoolReader(path) as reader:
        assert [row.cost_usd for row in reader.query()] == [None]
        with pytest.raises(SpoolError, match="start the proxy once"):
            list(reader.usage(ALL))
    with opened(path) as spool:
        spool.close_exchange(exchange("b"))
    found = totals(path)
    assert sorted(counts["requests"] for counts, _, _ in found.values()) == [1, 1]
    assert sum(counts["input_tokens"] for counts, _, _ in found.values()) == 22
    # The cost of exchange "a" is unknown, because the older version had no column for it.
    assert sum(counts.get("unpriced", 0) for counts, _, _ in found.values()) == 1
