"""What only the fast transport must prove: whose answer it is, which connection is used, and when one is given up."""

import asyncio
from typing import Any

import pytest

from consumer.core.outcome import Answer, Fault
from consumer.ports import Request
from tests.support.rude_server import OK_BODY, Conversation, RudeServer, always, answer, once, silent
from tests.support.transports import LOOPS, begin, make, run

pytestmark = pytest.mark.parametrize("loop", LOOPS)

OK = Answer(200, OK_BODY)
EVIL = answer(b"evil")


class ManualClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0


def fast(server: RudeServer, **changes: Any) -> Any:
    return make("fast", server.url, **changes)


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110  # the transport has numbers, not events
        await asyncio.sleep(0)


# -- whose answer is it


def test_a_late_second_answer_closes_the_idle_connection(loop: str) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def behave(conversation: Conversation) -> None:
            await conversation.request()
            await conversation.say(answer())
            await go.wait()
            if conversation.number == 1:
                await conversation.say(EVIL)
            else:
                await conversation.request()
                await conversation.say(answer())

        async with RudeServer(behave) as server:
            transport = fast(server)
            assert await begin(transport) == OK
            go.set()
            await until(lambda: transport.open == 0)
            assert await begin(transport) == OK
            assert server.accepted == 2
            await transport.close()

    run(loop, main())


# -- which connection


def test_a_connection_that_the_server_closed_while_idle_is_not_used(loop: str) -> None:
    async def main() -> None:
        async with RudeServer(once(answer())) as server:
            transport = fast(server)
            for number in range(1, 4):
                assert await begin(transport) == OK
                await until(lambda: transport.open == 0)
                assert server.accepted == number
            await transport.close()

    run(loop, main())


def test_the_last_used_connection_goes_out_first(loop: str) -> None:
    async def behave(conversation: Conversation) -> None:
        while await conversation.request() is not None:
            await conversation.say(answer(str(conversation.number).encode()))

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = fast(server, connections=3)
            await asyncio.gather(*(begin(transport) for _ in range(3)))
            last = (await begin(transport)).body
            assert [(await begin(transport)).body for _ in range(5)] == [last] * 5
            await transport.close()

    run(loop, main())


def test_first_come_first_served(loop: str) -> None:
    async def main() -> None:
        order: list[bytes] = []

        async def behave(conversation: Conversation) -> None:
            while (request := await conversation.request()) is not None:
                order.append(request.body)
                await conversation.say(answer())

        async with RudeServer(behave) as server:
            transport = fast(server, connections=1)
            bodies = [b"%d" % number for number in range(20)]
            await asyncio.gather(*(begin(transport, body) for body in bodies))
            assert order == bodies
            await transport.close()

    run(loop, main())


def test_no_more_connections_than_wait(loop: str) -> None:
    async def main() -> None:
        async with RudeServer(always(answer())) as server:
            transport = fast(server, connections=100)
            await asyncio.gather(*(begin(transport) for _ in range(3)))
            assert server.accepted <= 3
            await transport.close()

    run(loop, main())


def test_one_failure_for_each_failed_attempt_and_the_rest_go_on(loop: str) -> None:
    async def behave(conversation: Conversation) -> None:
        if conversation.number == 1:
            await conversation.say(b"220 mail ready\r\n")
        await always(answer())(conversation)

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = fast(server, connections=1)
            got = await asyncio.gather(*(begin(transport) for _ in range(5)))
            assert got[0] in {Fault.CONNECT, Fault.PROTOCOL}
            assert got[1:] == [OK] * 4
            await transport.close()

    run(loop, main())


# -- time


def _timed(server: RudeServer, clock: ManualClock, **changes: Any) -> Any:
    return fast(server, clock=clock, **{"idle_timeout_s": 30.0, "max_connection_age_s": 300.0} | changes)


async def ask(transport: Any, clock: ManualClock, timeout_s: float = 8.0) -> "Answer | Fault":
    return await start(transport, clock, timeout_s)


def start(transport: Any, clock: ManualClock, timeout_s: float = 8.0) -> "asyncio.Future[Answer | Fault]":
    future = asyncio.get_running_loop().create_future()
    transport.send(Request(b"{}"), clock.now + timeout_s, future.set_result)
    return future


@pytest.mark.parametrize(
    ("header", "idle_s", "is_kept"),
    [
        ("X: y", 29, True),
        ("X: y", 30, False),
        ("Keep-Alive: timeout=5", 3, True),
        ("Keep-Alive: timeout=5, max=100", 4, False),
        ("keep-alive: max=100, TIMEOUT = 5", 4, False),
        ("Keep-Alive: timeout=1", 0, False),
        ("Keep-Alive: timeout=3600", 29, True),
        ("Keep-Alive: timeout=3600", 30, False),
        ("Keep-Alive: whatever", 29, True),
    ],
)
def test_idle_connections_expire(loop: str, header: str, idle_s: float, is_kept: bool) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with RudeServer(always(answer(OK_BODY, "200 OK", header))) as server:
            transport = _timed(server, clock)
            assert await ask(transport, clock) == OK
            clock.now += idle_s
            transport.sweep()
            assert transport.open == is_kept
            assert await ask(transport, clock) == OK
            assert server.accepted == (1 if is_kept else 2)
            await transport.close()

    run(loop, main())


def test_an_expired_connection_is_not_used_though_no_sweep_has_come_by(loop: str) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with RudeServer(always(answer())) as server:
            transport = _timed(server, clock)
            assert await ask(transport, clock) == OK
            clock.now += 30
            assert await ask(transport, clock) == OK
            assert server.accepted == 2
            await transport.close()

    run(loop, main())


def test_a_connection_past_its_age_closes_after_its_answer(loop: str) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with RudeServer(always(answer())) as server:
            transport = _timed(server, clock, max_connection_age_s=100.0)
            for _ in range(9):
                assert await ask(transport, clock) == OK
                clock.now += 11
            assert server.accepted == 1
            pending = start(transport, clock)
            clock.now += 2  # comes of age while busy
            assert await pending == OK
            assert transport.open == 0
            assert await ask(transport, clock) == OK
            assert server.accepted == 2
            await transport.close()

    run(loop, main())


def test_deadlines_end_by_the_clock_alone(loop: str) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with RudeServer(silent()) as server:
            transport = _timed(server, clock, connections=1)
            sent, early, late = (start(transport, clock, timeout_s) for timeout_s in (5, 3, 9))
            await until(lambda: transport.busy == 1)
            clock.now += 3
            assert await early is Fault.TIMEOUT_UNSENT
            assert (sent.done(), late.done()) == (False, False)
            clock.now += 2
            assert await sent is Fault.TIMEOUT
            clock.now += 4
            assert await late in {Fault.TIMEOUT, Fault.TIMEOUT_UNSENT}
            await transport.close()

    run(loop, main())


def test_the_timer_stops_when_nothing_is_open(loop: str) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with RudeServer(always(answer())) as server:
            transport = _timed(server, clock)
            assert await ask(transport, clock) == OK
            assert transport._timer is not None
            clock.now += 31
            await until(lambda: transport._timer is None)
            assert await ask(transport, clock) == OK
            assert transport._timer is not None
            await transport.close()

    run(loop, main())


# -- how it arrives


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(answer(OK_BODY, "200 OK", "Retry-After: 7", "X-Empty:"), id="plain"),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nRetry-After: 7\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'5;ext="x"\r\n{"suc\r\na\r\ncess":"1"}\r\n0\r\nX-Trailer: 1\r\nRetry-After: 9\r\n\r\n',
            id="chunked",
        ),
    ],
)
def test_one_byte_at_a_time(loop: str, wire: bytes) -> None:
    async def main() -> None:
        async with RudeServer(always(*(wire[at : at + 1] for at in range(len(wire))))) as server:
            transport = fast(server)
            for _ in range(2):
                assert await begin(transport) == Answer(200, OK_BODY, "7")
            assert server.accepted == 1
            await transport.close()

    run(loop, main())


@pytest.mark.parametrize(
    ("wire", "accepted"),
    [
        pytest.param(answer(version="1.0"), 2, id="1.0 closes"),
        pytest.param(answer(OK_BODY, "200 OK", "Connection: keep-alive", version="1.0"), 1, id="1.0 may keep"),
    ],
)
def test_http_1_0(loop: str, wire: bytes, accepted: int) -> None:
    async def main() -> None:
        async with RudeServer(always(wire)) as server:
            transport = fast(server)
            assert [await begin(transport), await begin(transport)] == [OK, OK]
            assert server.accepted == accepted
            await transport.close()

    run(loop, main())


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, id="interim answers"),
        pytest.param(b"X: y\r\n" * 100, id="header lines"),
        pytest.param(b"y" * 1000, id="one header"),
    ],
)
def test_an_endless_head_ends(loop: str, endless: bytes) -> None:
    async def behave(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.say(b"" if endless.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            await conversation.say(endless)

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = fast(server)
            assert await begin(transport) is Fault.PROTOCOL
            await transport.close()

    run(loop, main())


@pytest.mark.parametrize(
    ("first", "more"),
    [
        pytest.param(b"", b"1;" + b"x" * 5000 + b"\r\na\r\n", id="chunk extensions"),
        pytest.param(b"1\r\na\r\n0\r\nX: ", b"y" * 5000, id="a trailer"),
    ],
)
def test_endless_framing_ends(loop: str, first: bytes, more: bytes) -> None:
    async def behave(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + first)
        while True:
            await conversation.say(more)

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = fast(server)
            got = await begin(transport)
            assert (got.status, set(got.body)) == (200, {ord("a")})
            await transport.close()

    run(loop, main())
