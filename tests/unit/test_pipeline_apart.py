"""Records that are decoded in a process apart wait for nobody and delay nobody."""

import pytest

from consumer.core.outcome import Answer
from consumer.ports import Request
from consumer.translate import Prepared
from tests.support.rig import OK, PLAN, Rig, on_the_bench

REFUSED_KEY = Answer(401)
UNAVAILABLE = Answer(503)


def test_a_record_that_is_decoded_apart_delays_nobody_else() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "deep:1", "fatal", "game:b", "deep:2")
        await rig.settle()
        assert rig.decoder.apart == ["deep:1", "fatal", "deep:2"]
        await rig.answer(which="game:b")
        await rig.advance(600)
        assert rig.transport.sent == ["game:b"]
        assert not rig.forwarder.waiting
        rig.decoder.apart_gate.set()
        await rig.settle()
        await rig.answer_all()
        await rig.acknowledge()
        assert rig.count("events_delivered") == 3
        assert rig.metrics.decode_errors.values == {("killed_decoder",): 1}
        ((topic, record, headers),) = rig.forwarder.acknowledged
        assert (topic, record.value) == (PLAN.dead_letter_topic, b"fatal")
        assert (headers["kochava-stage"], headers["kochava-reason"]) == ("decode", "killed_decoder")
        await rig.advance(0.25)
        assert rig.published == {at.partition: 4}
        assert rig.budget.records == 0

    on_the_bench(run)


def test_a_record_that_was_decoded_apart_waits_for_a_connection_like_others() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "deep:1", "deep:2", "deep:3", "game:a", "game:b")
        rig.decoder.apart_gate.set()
        await rig.settle()
        assert len(rig.transport.waiting) == 2
        await rig.answer_all()
        assert rig.count("events_delivered") == 5

    on_the_bench(run, connections=2)


def test_a_record_that_was_decoded_apart_does_not_pass_an_open_breaker() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "deep:1", "game:a")
        await rig.answer(Answer(404))
        assert rig.delivery.breaker.is_open
        rig.decoder.apart_gate.set()
        await rig.settle()
        assert rig.transport.sent == ["game:a"]
        await rig.advance(60)
        await rig.answer_all(OK)
        assert rig.count("events_delivered") == 2

    on_the_bench(run)


def test_a_lane_that_reopens_does_not_decode_apart_again() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.decoder.apart_gate.set()
        rig.read(at, "sick:1")
        await rig.answer(REFUSED_KEY)
        rig.translator._prepared = lambda text: Prepared("sick", "Purchase", None, Request(text.encode()), ())
        rig.read(at, "deep:1")
        await rig.settle()
        assert rig.transport.sent == ["sick:1"]
        rig.decoder.apart_gate.clear()
        await rig.advance(5.25)
        await rig.answer_all(OK)
        assert rig.count("events_delivered") == 2

    on_the_bench(run)


@pytest.mark.parametrize("how", ["drain", "fence"])
def test_what_is_decoded_apart_is_abandoned_at_once_when_its_partition_leaves(how: str) -> None:
    async def run(rig: Rig) -> None:
        goes, stays = rig.assign(number=0), rig.assign(number=1)
        rig.read(goes, "deep:1", "fatal")
        rig.read(stays, "deep:2")
        await rig.settle()
        if how == "drain":
            drain = rig.loop.create_task(rig.pipeline.drain([goes], timeout_s=25, reason="revoked"))
            await rig.settle()
            assert drain.done(), "nothing of it has been sent: no need to wait"
        else:
            rig.pipeline.fence([goes], reason="lost")
            await rig.settle()
        assert rig.decoder.apart == ["deep:2"], "and the process is not kept busy for nobody"
        assert rig.count("events_abandoned") == 2
        assert rig.budget.records == 1
        rig.decoder.apart_gate.set()
        await rig.settle()
        await rig.answer_all()
        assert rig.transport.sent == ["deep:2"]
        assert rig.budget.records == 0

    on_the_bench(run)


def test_an_answer_in_the_moment_in_which_the_partition_leaves_is_nobodys() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "deep:1", "fatal")
        await rig.settle()
        rig.decoder.apart_gate.set()
        rig.pipeline.fence([at], reason="lost")
        await rig.settle()
        assert rig.transport.sent == []
        assert not rig.forwarder.waiting
        assert rig.budget.records == 0

    on_the_bench(run)


def test_a_record_in_the_process_apart_steps_aside_with_its_attempts() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "deep:1", *[f"game:{i}" for i in range(10)])
        await rig.answer_all()
        rig.pipeline.over_span()
        await rig.acknowledge()
        assert rig.forwarded() == [("retry.30s", "deep:1")]
        assert rig.forwarder.acknowledged[0][2]["kochava-attempts"] == "0"
        assert rig.decoder.apart == []
        rig.decoder.apart_gate.set()
        await rig.advance(0.25)
        assert rig.published == {at.partition: 11}
        assert "deep:1" not in rig.transport.sent
        assert rig.budget.records == 0

    on_the_bench(run, max_span_records=20)


def test_close_ends_what_is_decoded_apart() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "deep:1")
        await rig.settle()
        await rig.pipeline.close()
        assert rig.decoder.apart == []

    on_the_bench(run)
