"""What the chaos suite draws from a seed: each protocol meets transactions, and each odd record is known by its end."""

import hashlib
from itertools import product
from pathlib import Path
from random import Random

import pytest

from consumer.sandbox.events import sample_event
from tests.chaos.__main__ import PROTOCOLS, world_of
from tests.chaos.privacy import told
from tests.chaos.records import NO_EVENT, ODD_EVERY, UNMAPPABLE, records
from tests.chaos.scenario import is_transactional
from tests.support.registry import Registry


def test_each_world_of_real_brokers_sees_each_protocol_with_and_without_transactions() -> None:
    seen = {(world_of(seed), PROTOCOLS[seed % 2], is_transactional(seed)) for seed in range(1, 25)}
    assert seen >= {*product(("one", "three"), PROTOCOLS, (True, False))}


def test_records_are_events_but_for_those_that_are_to_be_dead_letters_or_tombstones() -> None:
    with Registry() as registry:
        made = [*records("chaos", 1500, Random(1), registry)]
    ids = [event_id for event_id, _ in made if event_id]
    assert len(ids) == len({*ids})
    without = [index for index, (event_id, _) in enumerate(made) if not event_id]
    odd = [index for index in without if index % ODD_EVERY == 0]
    assert len(without) - len(odd) <= 1, "at most one has an unknown schema"
    assert len(odd) >= len(NO_EVENT) + len(UNMAPPABLE), "each kind comes"
    assert any(value is None for _, value in made)
    assert all(value is not None for event_id, value in made if event_id)


DEVICE = sample_event(4321, Random(1))["device"]


@pytest.mark.parametrize(
    "text",
    [
        *(DEVICE[name] for name in ("install_id", "android_id", "advertising_id", "ip", "user_agent")),
        sample_event(4300, Random(1))["device"]["ip"],
        DEVICE["install_id"].encode().hex(),
        hashlib.sha256(DEVICE["ip"].encode()).hexdigest(),
        "3405803777",
    ],
)
def test_a_log_that_tells_of_any_event_is_found(tmp_path: Path, text: str) -> None:
    log = tmp_path / "member-1.log"
    log.write_text('{"event": "consumer.assigned", "offset": 4321, "ts": "2026-11-03T12:00:00.123Z"}\n')
    assert told(tmp_path) == []
    with log.open("a") as file:
        file.write(f'{{"event": "x", "why": "{text}"}}\n')
    assert told(tmp_path)
