"""The endpoint is away or wrong: reading stops, nothing is given up, and one record at a time asks (I7, I8)."""

from consumer.core.breaker import BreakerPolicy
from consumer.core.headers import ATTEMPTS
from consumer.core.outcome import Answer, Fault
from tests.support.rig import OK, Rig, on_the_bench

REFUSED_KEY = Answer(401)
UNAVAILABLE = Answer(503)


def test_a_wrong_endpoint_stops_reading_and_makes_no_dead_letter() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a", "game:b")
        await rig.answer(Answer(404))
        await rig.answer(Answer(404))
        assert rig.budget.closed_for == {"breaker"}
        await rig.advance(600)
        assert not rig.forwarder.waiting, "an hour of 404 forwards nothing"
        probes = len(rig.transport.sent) - 2
        assert probes == 1, "the probe is on the wire, and nothing else"
        await rig.answer(OK)
        assert rig.budget.closed_for == frozenset()
        await rig.answer_all()
        assert rig.count("events_delivered") == 2

    on_the_bench(run)


def test_probes_come_at_growing_intervals_and_budgets_stand_still() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), "game:a")
        await rig.answer(Answer(302))
        for _ in range(8):
            await rig.advance(31)
            await rig.answer(Answer(302))
        assert len(rig.transport.sent) == 9
        await rig.advance(31)
        await rig.answer(UNAVAILABLE)  # a failing answer keeps it open, too
        await rig.advance(31)
        await rig.answer(OK)
        assert rig.count("events_delivered") == 1
        assert not rig.forwarder.waiting

    on_the_bench(run)


def test_with_nothing_in_hand_a_little_is_read_to_probe_with() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a")
        await rig.answer(Answer(404), which="game:a")
        rig.pipeline.fence([at], reason="revoked")
        await rig.advance(2)
        assert rig.budget.closed_for == frozenset()
        rig.read(rig.assign(), "game:b", "game:c")
        assert rig.budget.closed_for == {"breaker"}
        assert [body for body in rig.transport.sent if body != "game:a"] == ["game:b"]
        await rig.answer(OK)
        await rig.answer(OK)
        assert rig.count("events_delivered") == 2

    on_the_bench(run)


def test_records_that_fail_for_a_reason_of_their_own_do_not_keep_the_breaker_open() -> None:
    """Excludes: nothing is read any more, because what is in hand fails alone and is all that asks."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, *[f"game:bad-{i}" for i in range(5)])
        while not rig.delivery.breaker.is_open:
            await rig.answer_all(UNAVAILABLE)
            await rig.advance(0.5)
        reading = 0
        while not reading:
            await rig.advance(31)
            await rig.answer_all(UNAVAILABLE)
            reading = not rig.budget.closed_for
            assert len(rig.transport.sent) < 100, "each asks once, then one is read"
        rig.read(at, "game:good")
        await rig.advance(31)
        await rig.answer(OK, which="game:good")
        assert not rig.delivery.breaker.is_open
        while not rig.forwarder.waiting:
            await rig.answer_all(UNAVAILABLE)
            await rig.advance(0.5)
        await rig.acknowledge()
        assert {headers[ATTEMPTS] for _, _, headers in rig.forwarder.acknowledged} == {"4"}

    on_the_bench(run)


def test_with_nothing_to_read_what_has_asked_asks_again() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), "game:a", "game:b")
        await rig.answer_all(Answer(404))
        for _ in range(6):
            await rig.advance(31)
            assert len(rig.transport.waiting) == 1
            await rig.answer(UNAVAILABLE)
        assert {rig.transport.sent[2:].count(f"game:{name}") for name in "ab"} == {3}, "by turns"

    on_the_bench(run)


def test_one_record_may_probe_for_days() -> None:
    """Excludes a backoff that doubles with each of a thousand probes: no number holds that, and the process ended."""

    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), "game:a")
        await rig.answer(Answer(404))
        for _ in range(1100):
            await rig.advance(0.5)
            await rig.answer(UNAVAILABLE)
        await rig.advance(0.5)
        await rig.answer(OK)
        assert rig.count("events_delivered") == 1

    on_the_bench(run, breaker=BreakerPolicy(probe_initial_s=0.25, probe_max_s=0.25))


def test_a_probe_burns_no_attempt() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), *[f"game:{i}" for i in range(20)])
        for _ in range(20):
            await rig.answer(UNAVAILABLE)
        assert rig.delivery.breaker.is_open
        for _ in range(50):
            await rig.advance(31)
            await rig.answer(UNAVAILABLE)
        await rig.advance(31)
        await rig.answer(OK)
        while rig.transport.waiting:
            await rig.answer_all(UNAVAILABLE)
            await rig.advance(1)
        await rig.acknowledge()
        assert [headers[ATTEMPTS] for _, _, headers in rig.forwarder.acknowledged] == ["2"] * 19

    on_the_bench(run, max_attempts=2, breaker=BreakerPolicy(failing_share=1.0, min_answers=20))


def test_what_has_no_try_left_waits_for_the_breaker_only_to_be_forwarded() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), *[f"game:{i}" for i in range(20)])
        while rig.transport.waiting:  # all before the first of them is looked at
            rig.transport.waiting.popleft()[2](UNAVAILABLE)
        await rig.advance(31)
        assert not rig.forwarder.waiting
        await rig.answer(OK)
        await rig.acknowledge()
        assert len(rig.transport.sent) == 21, "each once, and the probe"
        assert [headers[ATTEMPTS] for _, _, headers in rig.forwarder.acknowledged] == ["1"] * 19

    on_the_bench(run, max_attempts=1)


def test_a_dead_endpoint_opens_the_breaker_and_forwards_only_the_first_few() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), *[f"game:{i}" for i in range(60)])
        for _ in range(60):
            await rig.answer(Fault.CONNECT)
        await rig.advance(60)
        assert rig.budget.closed_for == {"breaker"}
        assert not rig.forwarder.waiting
        await rig.answer_all(OK)
        assert rig.count("events_delivered") == 60

    on_the_bench(run)


def test_a_changed_success_body_cannot_send_everything_again() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), *[f"game:{i}" for i in range(100)])
        for _ in range(100):
            await rig.answer(Answer(200, b'{"ok":1}'))
        assert rig.delivery.breaker.reason == "unconfirmed_answers"
        await rig.advance(3600)
        assert len(rig.transport.sent) <= 100 + 11 + 1

    on_the_bench(run)


def test_a_probe_that_ends_in_the_moment_it_is_let_through_makes_room_for_another() -> None:
    async def run(rig: Rig) -> None:
        goes, stays = rig.assign(number=0), rig.assign(number=1)
        rig.read(goes, "game:a")
        rig.read(stays, "game:b")
        await rig.answer(Answer(404))
        await rig.answer(Answer(404))
        rig.loop.now += 2
        rig.pipeline.tick()  # the first one is let through ...
        rig.pipeline.fence([goes], reason="lost")  # ... and its partition goes before it could ask
        await rig.advance(0.5)
        assert rig.transport.sent == ["game:a", "game:b", "game:b"]
        await rig.answer(OK)
        assert rig.count("events_delivered") == 1

    on_the_bench(run)
