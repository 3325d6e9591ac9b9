"""`dead-letters list`, `show` and `export`, against a real Apache Kafka."""

import json
import time
from typing import Any

import pytest

from tests.support.dead_letters import Given, write
from tests.support.processes import Setup, command, events

pytestmark = pytest.mark.kafka


def listed(setup: Setup, *options: str, **environment: str) -> list[dict[str, Any]]:
    done = command(setup, "dead-letters", "list", "--json", *options, **environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_groups_are_counted_by_what_they_have_in_common(setup: Setup) -> None:
    setup.create_topics()
    made = [value for _, value in events(24, event_name="Purchase")]  # three apps on four platforms, twice
    setup.kafka.configure_topic(setup.dead_letter, message_timestamp_type="CreateTime")
    write(setup, [
        *(Given(value, reason="no_device_ua", timestamp_ms=1_790_000_000_000 + 1000 * n)
          for n, value in enumerate(made)),
        *(Given(made[0], "deliver", "http_400", 400, timestamp_ms=1_790_000_000_000) for _ in range(5)),
        Given(b"junk", "decode", "bad_magic", timestamp_ms=1_790_000_000_000),
        Given(made[0][:40], "decode", "truncated", timestamp_ms=1_790_000_000_000),
    ])  # fmt: skip
    found = listed(setup)
    counts = {(each["reason"], each["app"], each["event"]): each["count"] for each in found}
    assert counts == {
        ("no_device_ua", "com.example.puzzle", "Purchase"): 8,
        ("no_device_ua", "com.example.racing", "Purchase"): 8,
        ("no_device_ua", "com.example.stories", "Purchase"): 8,
        ("http_400", "com.example.puzzle", "Purchase"): 5,
        ("bad_magic", None, None): 1,
        ("truncated", None, None): 1,
    }
    assert [each["count"] for each in found] == sorted((each["count"] for each in found), reverse=True)
    puzzle = next(each for each in found if each["app"] == "com.example.puzzle" and each["stage"] == "map")
    assert (puzzle["first"], puzzle["last"]) == ("2026-09-21T14:13:20Z", "2026-09-21T14:13:35Z")
    assert puzzle["example_origin"] in {f"{setup.topic}/0/{n}" for n in range(24)}
    assert puzzle["schema"] == "id 2"
    assert {each["fingerprint"] for each in listed(setup)} == {each["fingerprint"] for each in found}, "it is stable"
    assert len({each["fingerprint"] for each in found}) == len(found)
    table = command(setup, "dead-letters", "list").stdout
    assert all(each["fingerprint"] in table for each in found)
    assert listed(setup, "--no-decode")[0]["app"] is None


def test_a_topic_that_is_empty_or_missing(setup: Setup) -> None:
    missing = command(setup, "dead-letters", "list")
    assert missing.returncode == 5
    assert (
        missing.stderr.splitlines()[-1] == f"error: {setup.dead_letter} doesn't exist: kochava-consumer topics --create"
    )
    setup.create_topics()
    assert listed(setup) == []


def test_a_hundred_thousand(setup: Setup, record_property: Any) -> None:
    setup.create_topics()
    made = [value for _, value in events(1000)]
    write(setup, [Given(made[n % 1000], "deliver", f"http_4{n % 7:02}", 400) for n in range(100_000)])
    begun = time.monotonic()
    found = listed(setup)
    seconds = time.monotonic() - begun
    print(f"100,000 dead letters listed in {seconds:.1f} s, the start of the command included")
    record_property("seconds", seconds)
    assert sum(each["count"] for each in found) == 100_000
