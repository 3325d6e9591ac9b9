"""What the product relies on of Kafka's client, and what the simulation's fake claims: one suite for fake and real.

The real one is confluent-kafka on Apache Kafka, with the classic cooperative protocol and with KIP-848. Left out, since
a real broker can't show them within seconds, or not each time:

- a callback that raises destroys what the client had taken from its queue: which records are hit is a race, and close()
  may hang afterwards. `test_the_fake_destroys_records_when_a_callback_raises` holds the fake alone to it.
- refusals of commits (REBALANCE_IN_PROGRESS, NOT_COORDINATOR ...): tests/integration/test_mock_cluster.py.
- a frozen or killed member: the chaos suite (tests/chaos).
- close() that hangs after a fatal error: a member without a static name, and only under the classic protocol.
- `seek` that is refused in the first moments of an assignment.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException

from tests.support.consumer_stages import INTERVAL_S, FakeStage, Reader, RealStage, Stage, poll_for, poll_until

FAKES = [("fake", seed, protocol) for seed in range(3) for protocol in ("classic", "consumer")]
REAL = [
    pytest.param(("real", 0, protocol), marks=pytest.mark.kafka, id=f"real-{protocol}")
    for protocol in ("classic", "consumer")
]
LONG_S = INTERVAL_S * 2.5
"""In this time, whatever the client commits by itself is committed."""


@pytest.fixture(params=[*[pytest.param(fake, id=f"fake-{fake[2]}-{fake[1]}") for fake in FAKES], *REAL])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    kind, seed, protocol = request.param
    made: Stage = FakeStage(seed, protocol) if kind == "fake" else RealStage(request.getfixturevalue("kafka"), protocol)
    yield made
    made.end()


@pytest.fixture
def reader(stage: Stage) -> Iterator[Reader]:
    """One member that has both partitions, with twenty records each."""
    stage.produce(0, 20)
    stage.produce(1, 20)
    made = Reader(stage)
    poll_until(lambda: made.assigned == {0, 1}, made)
    yield made
    if made.told:
        _close(made)


def _close(reader: Reader) -> None:
    try:
        reader.close()
    except RuntimeError as error:
        assert str(error) == "Consumer closed"  # noqa: PT017 - by the test


def code_of(call: Any, *arguments: Any, **options: Any) -> int | None:
    """Return the code that *call* raises, if it does."""
    try:
        call(*arguments, **options)
    except KafkaException as error:
        return int(error.args[0].code())
    return None


# -- stored offsets


def test_what_is_stored_is_committed_with_its_metadata(stage: Stage, reader: Reader) -> None:
    reader.store(0, 5, "five")
    poll_until(lambda: stage.committed(0) == (5, "five"), reader)
    assert stage.committed(1) == (OFFSET_INVALID, "")


def test_an_answer_names_all_partitions_and_no_offset_for_those_without_news(reader: Reader) -> None:
    reader.store(0, 5)
    poll_until(lambda: reader.commits, reader)
    assert reader.commits[0] == (None, {0: 5, 1: OFFSET_INVALID})


def test_a_lower_offset_is_not_committed(stage: Stage, reader: Reader) -> None:
    reader.store(0, 9)
    poll_until(lambda: stage.committed(0)[0] == 9, reader)
    reader.store(0, 3)
    poll_for(LONG_S, reader)
    assert stage.committed(0)[0] == 9


def test_the_last_store_counts_before_anything_is_committed(stage: Stage, reader: Reader) -> None:
    """Even a lower one: so whoever stores must never go back."""
    reader.store(0, 9)
    reader.store(0, 5)
    poll_until(lambda: stage.committed(0)[0] >= 0, reader)
    assert stage.committed(0)[0] == 5


def test_new_metadata_alone_is_committed_only_explicitly(stage: Stage, reader: Reader) -> None:
    reader.store(0, 5, "first")
    poll_until(lambda: stage.committed(0) == (5, "first"), reader)
    reader.store(0, 5, "second")
    poll_for(LONG_S, reader)
    assert stage.committed(0) == (5, "first")
    assert code_of(reader.client.commit, asynchronous=False) == KafkaError._NO_OFFSET
    reader.client.commit(offsets=[reader.at(0, 5, "third")], asynchronous=True)
    poll_until(lambda: stage.committed(0) == (5, "third"), reader)
    poll_until(lambda: reader.commits[-1] == (None, {0: 5}), reader)


def test_new_metadata_alone_is_committed_when_the_partition_is_given_back(stage: Stage, reader: Reader) -> None:
    reader.store(0, 5, "first")
    poll_until(lambda: stage.committed(0) == (5, "first"), reader)
    reader.store(0, 5, "second")
    reader.close()
    assert stage.committed(0) == (5, "second")


def test_close_commits_what_is_stored(stage: Stage, reader: Reader) -> None:
    reader.store(0, 5, "five")
    reader.close()
    assert stage.committed(0) == (5, "five")
    assert reader.told[-1][0] == "revoke"


def test_an_unassign_commits_what_is_stored_and_forgets_it(stage: Stage, reader: Reader) -> None:
    reader.store(0, 5, "five")
    reader.move(0, 5)
    poll_until(lambda: stage.committed(0) == (5, "five"), reader)
    assert code_of(reader.client.commit, asynchronous=False) == KafkaError._NO_OFFSET
    reader.store(0, 5, "again")
    poll_for(LONG_S, reader)
    assert stage.committed(0) == (5, "five"), "that it is committed is remembered across assignments"


def test_what_is_not_ours_can_not_be_stored(reader: Reader) -> None:
    reader.client.incremental_unassign([reader.at(1)])
    assert code_of(reader.store, 1, 5) == KafkaError._STATE
    reader.stage.topic, topic = "unheard-of", reader.stage.topic
    assert code_of(reader.store, 1, 5) == KafkaError._UNKNOWN_PARTITION
    reader.stage.topic = topic


def test_metadata_has_a_limit(stage: Stage, reader: Reader) -> None:
    reader.client.commit(offsets=[reader.at(0, 5, "m" * 4000)], asynchronous=True)
    poll_until(lambda: len(reader.commits) == 1, reader)
    assert stage.committed(0) == (5, "m" * 4000)
    reader.client.commit(offsets=[reader.at(0, 6, "m" * 4096)], asynchronous=True)
    poll_until(lambda: len(reader.commits) == 2, reader)
    assert reader.commits == [(None, {0: 5}), ("OFFSET_METADATA_TOO_LARGE", {0: 6})]
    assert stage.committed(0)[0] == 5


def test_a_synchronous_commit_returns_when_it_is_done(stage: Stage, reader: Reader) -> None:
    reader.store(0, 0, "start")
    outcome = reader.client.commit(asynchronous=False)
    assert [(at.partition, at.offset) for at in outcome or () if at.offset >= 0] == [(0, 0)]
    assert stage.committed(0) == (0, "start")


# -- rebalance


def test_an_assignment_brings_no_offsets(stage: Stage, reader: Reader) -> None:
    """Even if there is a commit: it has to be asked for."""
    assert reader.told == [("assign", [(0, OFFSET_INVALID), (1, OFFSET_INVALID)])]
    reader.store(0, 5, "five")
    reader.close()
    other = Reader(stage)
    poll_until(lambda: other.assigned, other)
    assert {offset for _, partitions in other.told for _, offset in partitions} == {OFFSET_INVALID}
    other.close()


def test_no_commit_is_no_error(reader: Reader) -> None:
    (found,) = reader.client.committed([reader.at(0)], timeout=30)
    assert (found.offset, found.error) == (OFFSET_INVALID, None)


def test_a_callback_that_assigns_nothing_leaves_it_to_the_client(stage: Stage) -> None:
    stage.produce(0, 3)
    reader = Reader(stage, assigns=False, **{"auto.offset.reset": "earliest"})
    poll_until(lambda: len(reader.found) == 3, reader)
    reader.close()


def test_partitions_are_shared_and_only_what_moves_is_revoked(stage: Stage, reader: Reader) -> None:
    other = Reader(stage)
    poll_until(lambda: len(reader.assigned) == len(other.assigned) == 1, reader, other)
    assert reader.assigned != other.assigned
    assert [len(partitions) for name, partitions in reader.told if name == "revoke"] == [1]
    other.close()
    poll_until(lambda: reader.assigned == {0, 1}, reader)


def test_what_was_declined_can_not_be_given_back_by_the_client(stage: Stage) -> None:
    """It unassigns all that is revoked, and the error comes out of poll: as SystemError after one more callback."""
    reader = Reader(stage, declines=True)
    poll_until(lambda: reader.assigned == {0, 1}, reader)
    other = Reader(stage)
    with pytest.raises((KafkaException, SystemError)):
        poll_until(lambda: other.assigned, reader, other)
    other.close()
    reader.when_revoked = _unassign_nothing_at_the_end
    reader.close()


def test_what_was_declined_is_given_back_by_unassigning_what_there_is(stage: Stage) -> None:
    reader = Reader(stage, declines=True)
    reader.when_revoked = lambda client, _partitions: client.incremental_unassign([])
    poll_until(lambda: reader.assigned == {0, 1}, reader)
    other = Reader(stage)
    poll_until(lambda: other.assigned and len(reader.assigned) == 1, reader, other)
    assert reader.client.assignment() == []
    other.close()
    reader.when_revoked = _unassign_nothing_at_the_end
    reader.close()


def _unassign_nothing_at_the_end(client: Any, _partitions: object) -> None:
    with suppress(KafkaException):  # past its end: once, on a loaded machine, it took no call any more
        client.incremental_unassign([])


def test_what_is_stored_while_it_is_revoked_reaches_the_next_owner(stage: Stage, reader: Reader) -> None:
    reader.when_revoked = lambda _client, partitions: [reader.store(at.partition, 7, "last") for at in partitions]
    other = Reader(stage)
    poll_until(lambda: other.assigned, reader, other)
    reader.when_revoked = lambda _client, _partitions: None
    (moved,) = other.assigned
    assert stage.committed(moved) == (7, "last")
    poll_until(lambda: other.found, reader, other)
    assert other.found[0] == (moved, 7)
    other.close()


def test_nothing_of_a_revoked_partition_is_handed_out(stage: Stage, reader: Reader) -> None:
    other = Reader(stage)
    poll_until(lambda: other.assigned, reader, other)
    (moved,) = other.assigned
    count = len(reader.offsets(moved))
    poll_until(lambda: len(other.offsets(moved)) == 20, reader, other)
    assert len(reader.offsets(moved)) == count
    other.close()


def test_an_explicit_commit_for_what_another_owns_is_accepted(stage: Stage, reader: Reader) -> None:
    """It rewinds the owner: why progress is only ever stored."""
    other = Reader(stage)
    poll_until(lambda: len(reader.assigned) == len(other.assigned) == 1, reader, other)
    (its,) = other.assigned
    other.store(its, 9)
    poll_until(lambda: stage.committed(its)[0] == 9, reader, other)
    reader.client.commit(offsets=[reader.at(its, 2, "foreign")], asynchronous=False)
    assert stage.committed(its) == (2, "foreign")
    other.close()


@pytest.mark.timeout(60)
def test_who_does_not_poll_loses_its_partitions_and_what_it_stored(stage: Stage) -> None:
    stage.produce(0, 3)
    reader = Reader(stage, **{"max.poll.interval.ms": 2500, "auto.commit.interval.ms": 60_000})
    poll_until(lambda: reader.assigned == {0, 1}, reader)
    reader.store(0, 2, "lost")
    stage.sleep(4.0)
    poll_until(lambda: any(name == "lost" for name, _ in reader.told), reader)
    assert not any(name == "revoke" for name, _ in reader.told)
    poll_until(lambda: reader.assigned == {0, 1}, reader)
    assert stage.committed(0) == (OFFSET_INVALID, "")
    reader.close()


# -- reading


def test_records_of_a_partition_come_in_order_and_once(reader: Reader) -> None:
    poll_until(lambda: len(reader.found) == 40, reader)
    assert reader.offsets(0) == reader.offsets(1) == [*range(20)]


def test_a_poll_for_callbacks_only_returns_records(reader: Reader) -> None:
    deadline = reader.stage.now() + 20
    while reader.client.poll(0) is None:
        assert reader.stage.now() < deadline
        reader.stage.sleep(0.01)


def test_consume_waits_all_its_time_unless_enough_comes(reader: Reader) -> None:
    poll_until(lambda: len(reader.found) == 39, reader)
    began = reader.stage.now()
    (last,) = reader.client.consume(10, 0.6)
    assert reader.stage.now() - began >= 0.55
    reader.client.seek(reader.at(last.partition(), 0))
    assert len(reader.client.consume(5, 30)) == 5


def test_offsets_without_a_record_are_passed(stage: Stage) -> None:
    stage.produce(0, 2)
    stage.leave_a_gap(0)
    stage.produce(0, 1)
    reader = Reader(stage)
    poll_until(lambda: len(reader.found) == 3, reader)
    first, second, third = reader.offsets(0)
    assert (first, second) == (0, 1)
    assert third > 2
    assert reader.client.get_watermark_offsets(reader.at(0), timeout=30, cached=False) == (0, third + 1)
    reader.close()


def test_a_pause_keeps_everything_back_and_loses_nothing(reader: Reader) -> None:
    poll_until(lambda: reader.offsets(0), reader)
    reader.client.pause([reader.at(0)])
    seen = len(reader.offsets(0))
    poll_until(lambda: len(reader.offsets(1)) == 20, reader)
    poll_for(0.3, reader)
    assert len(reader.offsets(0)) == seen, "what was fetched beforehand is not handed out"
    reader.client.resume([reader.at(0)])
    poll_until(lambda: len(reader.offsets(0)) >= 20, reader)
    assert reader.offsets(0) == [*range(20)]


def test_a_pause_outlives_the_assignment(reader: Reader) -> None:
    poll_until(lambda: len(reader.found) == 40, reader)
    reader.client.pause([reader.at(0)])
    reader.move(0, 0)
    poll_for(0.5, reader)
    assert len(reader.offsets(0)) == 20
    reader.client.resume([reader.at(0)])
    poll_until(lambda: len(reader.offsets(0)) == 40, reader)


def test_after_a_seek_the_record_sought_is_the_next(reader: Reader) -> None:
    poll_until(lambda: len(reader.offsets(0)) >= 10, reader)
    reader.found.clear()
    reader.client.seek(reader.at(0, 4))
    poll_until(lambda: reader.offsets(0), reader)
    assert reader.offsets(0)[0] == 4


def test_what_can_be_done_to_a_partition_that_is_not_ours(reader: Reader) -> None:
    reader.client.incremental_unassign([reader.at(1)])
    assert code_of(reader.client.seek, reader.at(1, 3)) == KafkaError._STATE
    assert code_of(reader.client.incremental_unassign, [reader.at(1)]) == KafkaError._INVALID_ARG
    assert code_of(reader.client.pause, [reader.at(1)]) is None
    assert code_of(reader.client.resume, [reader.at(1)]) is None


def test_a_position_outside_the_log_is_told_once_and_the_partition_idles(stage: Stage, reader: Reader) -> None:
    poll_until(lambda: len(reader.found) == 40, reader)
    stage.delete_before(0, 10)
    reader.move(0, 3)
    poll_until(lambda: reader.errors, reader)
    poll_for(0.5, reader)
    assert reader.errors == [(KafkaError._AUTO_OFFSET_RESET, 0, 3)]
    reader.found.clear()
    reader.move(0, 10)
    poll_until(lambda: len(reader.found) == 10, reader)
    assert reader.offsets(0) == [*range(10, 20)]


# -- the end


def test_a_closed_client_says_so(reader: Reader) -> None:
    reader.close()
    with pytest.raises(RuntimeError, match="Consumer closed"):
        reader.client.poll(0)


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(("fake", 1, "classic"), id="fake"),
        pytest.param(("real", 0, "classic"), marks=pytest.mark.kafka, id="real"),
    ],
    indirect=True,
)
def test_a_fatal_error_is_told_once_and_then_there_is_silence(stage: Stage) -> None:
    """KIP-848 fences the newcomer instead."""
    stage.produce(0, 3)
    reader = Reader(stage, **{"group.instance.id": "static"})
    poll_until(lambda: reader.assigned == {0, 1}, reader)
    stage.make_fatal(reader)
    poll_until(lambda: reader.errors, reader)
    assert [code for code, _, _ in reader.errors] == [KafkaError._FATAL]
    stage.produce(0, 3)
    count = len(reader.found)
    poll_for(1.0, reader)
    assert len(reader.errors) == 1
    assert len(reader.found) == count
    reader.close()


@pytest.mark.parametrize("seed", range(5))
def test_the_fake_destroys_records_when_a_callback_raises(seed: int) -> None:
    """Seen on the real client, but by chance: 660 of 40,000 in one run (docs/architecture.md)."""
    stage = FakeStage(seed, "classic")
    stage.produce(0, 20)

    def raising(*_: object) -> None:
        raise ValueError("a bug in a callback")

    reader = Reader(stage, on_commit=raising)
    poll_until(lambda: reader.assigned == {0, 1}, reader)
    stage.produce(0, 200)
    read: list[int] = []
    raised = 0
    while not read or read[-1] < 219:
        if raised < 8:
            reader.store(0, read[-1] + 1 if read else 1)
            stage.sleep(LONG_S)  # so that the answer to its commit waits in the queue
        try:
            read += [message.offset() for message in reader.client.consume(10, 0.3)]
        except ValueError:
            raised += 1
    assert raised
    assert read == sorted(set(read))
    assert len(read) < 220, "the position moved past what was destroyed, and no error named it"
    stage.end()
