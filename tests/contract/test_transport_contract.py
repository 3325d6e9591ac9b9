"""What both transports promise (`ports.Transport`), against real sockets on both event loops."""

import asyncio
import json
import socket
import time
from typing import Any

import pytest

from consumer.adapters.tls import client_context
from consumer.core.outcome import Answer, Fault
from tests.support.rude_server import OK_BODY, Conversation, Received, RudeServer, always, answer, once, silent
from tests.support.transports import KINDS, LOOPS, begin, make, run, with_a_short_deadline

pytestmark = [pytest.mark.parametrize("loop", LOOPS), pytest.mark.parametrize("kind", KINDS)]

OK = Answer(200, OK_BODY)


def check(kind: str, loop: str, behaviour: Any, expected: object, *, timeout_s: float = 20.0) -> None:
    """One request to a server that behaves so."""

    async def main() -> None:
        async with RudeServer(behaviour) as server:
            transport = make(kind, server.url)
            got = await begin(transport, timeout_s=timeout_s)
            await transport.close()
            assert got == expected

    run(loop, main())


def test_a_request_as_kochava_wants_it(kind: str, loop: str) -> None:
    seen: list[Received] = []

    async def behave(conversation: Conversation) -> None:
        while (request := await conversation.request()) is not None:
            seen.append(request)
            await conversation.say(answer())

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = make(kind, server.url)
            assert await begin(transport, b'{"a":1}') == OK
            assert await begin(transport, b"{}", ("User-Agent", "Unknown"), ("Kochava-Api-Key", "k")) == OK
            await transport.close()
            host = f"127.0.0.1:{server.port}"
        plain, special = seen
        assert plain.line == "POST /track/json HTTP/1.1"
        assert plain.body == b'{"a":1}'
        fixed = {
            "host": host,
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "content-length": "7",
            "user-agent": "kochava-consumer/test",
        }
        assert fixed.items() <= plain.headers.items()
        assert special.headers["user-agent"] == "Unknown"
        assert special.headers["kochava-api-key"] == "k"

    run(loop, main())


def test_connections_are_kept_and_never_more_than_needed(kind: str, loop: str) -> None:
    async def main() -> None:
        async with RudeServer(always(answer())) as server:
            transport = make(kind, server.url)
            for _ in range(5):
                assert await begin(transport) == OK
            assert (server.accepted, transport.connections_opened, transport.open) == (1, 1, 1)
            assert (transport.busy, transport.waiting) == (0, 0)
            assert await asyncio.gather(begin(transport), begin(transport)) == [OK, OK]
            assert server.accepted <= 2
            await transport.close()
            assert transport.open == 0

    run(loop, main())


def test_a_thousand_sends_over_16_connections_get_their_own_answers(kind: str, loop: str) -> None:
    async def behave(conversation: Conversation) -> None:
        while (request := await conversation.request()) is not None:
            await conversation.say(answer(request.body))

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = make(kind, server.url, connections=16)
            bodies = [json.dumps({"id": number}).encode() for number in range(1000)]
            got = await asyncio.gather(*(begin(transport, body, timeout_s=50) for body in bodies))
            assert got == [Answer(200, body) for body in bodies]
            assert server.accepted == transport.connections_opened == 16
            await transport.close()

    run(loop, main())


def test_retry_after_is_given_raw(kind: str, loop: str) -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    behaviour = always(answer(b"", "503 Busy", f"retry-AFTER: {date}"))
    check(kind, loop, behaviour, Answer(503, b"", date))


@pytest.mark.parametrize("extra_bytes", [0, 1, 300_000])
def test_bodies_are_cut_at_64_kib(kind: str, loop: str, extra_bytes: int) -> None:
    cap = 64 * 1024
    check(kind, loop, once(answer(b"x" * (cap + extra_bytes))), Answer(200, b"x" * cap))


def test_a_cut_body_does_not_reach_the_next_answer(kind: str, loop: str) -> None:
    async def behave(conversation: Conversation) -> None:
        while await conversation.request() is not None:
            await conversation.say(answer(b"x" * 200_000) if conversation.number == 1 else answer())

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = make(kind, server.url, connections=1)
            first, second = await asyncio.gather(begin(transport), begin(transport))
            assert (len(first.body), second) == (64 * 1024, OK)
            await transport.close()

    run(loop, main())


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(["X: " + "x" * 300_000], id="300 kB in one"),
        pytest.param(["X: " + "x" * 30_000] * 3, id="90 kB in three"),
        pytest.param(["X: x"] * 200, id="200 lines"),
    ],
)
def test_too_many_headers_are_a_protocol_fault(kind: str, loop: str, headers: list[str]) -> None:
    check(kind, loop, once(answer(OK_BODY, "200 OK", *headers)), Fault.PROTOCOL)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], Fault.PROTOCOL, id="not HTTP"),
        pytest.param([answer(version="9.x")], Fault.PROTOCOL, id="no such version"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"], Fault.PROTOCOL, id="no length"),
        pytest.param(
            [b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"], Fault.PROTOCOL, id="101"
        ),
        pytest.param([], Fault.RESET, id="nothing"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Le"], Fault.RESET, id="half a head"),
        pytest.param([answer()[:-1]], Fault.RESET, id="half a body"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"], Fault.RESET, id="no last chunk"
        ),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n", answer()], OK, id="100 first"),
        pytest.param([b"HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n" + answer()], OK, id="103 first"),
        pytest.param([b"HTTP/1.1 204 No Content\r\n\r\n"], Answer(204), id="204"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\nuntil ", b"the end"], Answer(200, b"until the end"), id="until closed"),
        pytest.param([answer(version="1.0")], OK, id="HTTP/1.0"),
        pytest.param([answer(OK_BODY, "200 OK", "Connection: close")], OK, id="close"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok", b"\r\n0\r\nRetry-After: 9\r\n\r\n"],
            Answer(200, b"ok"),
            id="trailers",
        ),
    ],
)
def test_answers_good_and_bad(kind: str, loop: str, parts: list[bytes], expected: object) -> None:
    check(kind, loop, once(*parts), expected)


def test_a_reset_after_the_request(kind: str, loop: str) -> None:
    async def behave(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.say(answer()[:-1])
        conversation.reset()

    check(kind, loop, behave, Fault.RESET)


def test_a_connection_that_announced_its_end_is_not_used_again(kind: str, loop: str) -> None:
    async def main() -> None:
        async with RudeServer(always(answer(OK_BODY, "200 OK", "Connection: close"))) as server:
            transport = make(kind, server.url, connections=1)
            assert await asyncio.gather(begin(transport), begin(transport)) == [OK, OK]
            assert server.accepted == 2
            await transport.close()

    run(loop, main())


def test_nobody_listens(kind: str, loop: str) -> None:
    async def main() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            transport = make(kind, f"http://127.0.0.1:{unused.getsockname()[1]}/")
            got = await asyncio.gather(*(begin(transport) for _ in range(50)))
            assert got == [Fault.CONNECT] * 50
            await transport.close()

    run(loop, main())


def test_no_such_name(kind: str, loop: str) -> None:
    async def main() -> None:
        # longer than a name can be: the resolver refuses it without asking anybody
        transport = make(kind, f"http://{'a.' * 130}invalid/")
        assert await begin(transport) is Fault.DNS
        await transport.close()

    run(loop, main())


def test_the_deadline_while_waiting_for_a_connection(kind: str, loop: str) -> None:
    async def main() -> None:
        async with RudeServer(silent()) as server:
            transport = make(kind, server.url, connections=1)
            first = begin(transport)
            assert await begin(transport, timeout_s=0.1) is Fault.TIMEOUT_UNSENT
            assert (transport.waiting, first.done()) == (0, False)
            await transport.close()
            assert await first is Fault.RESET

    run(loop, main())


def test_what_waited_for_half_of_its_time_is_not_sent(kind: str, loop: str) -> None:
    """Its answer might come when it has been given up: sent again, the event would count twice."""

    async def main() -> None:
        asked, free = asyncio.Event(), asyncio.Event()

        async def behave(conversation: Conversation) -> None:
            await conversation.request()
            asked.set()
            await free.wait()
            await conversation.say(answer())
            await conversation.until_gone()

        async with RudeServer(behave) as server:
            transport = make(kind, server.url, connections=1)
            first = begin(transport)
            await asked.wait()
            second = begin(transport, timeout_s=2)
            asyncio.get_running_loop().call_later(1.3, free.set)
            assert await second is Fault.TIMEOUT_UNSENT
            assert isinstance(await first, Answer)
            await transport.close()

    run(loop, main())


def test_an_answer_that_is_here_is_read_however_late_the_event_loop_is(kind: str, loop: str) -> None:
    """Timers go before sockets; the machine was frozen, or its CPU away, while the answer came."""

    async def main() -> None:
        async def behave(conversation: Conversation) -> None:
            while await conversation.request() is not None:
                conversation.send_now(answer())
                time.sleep(0.8)  # noqa: ASYNC251 - it is the client's event loop, too

        async with RudeServer(behave) as server:
            transport = make(kind, server.url)
            assert await begin(transport, timeout_s=0.5) == OK
            assert await begin(transport, timeout_s=0.5) == OK
            assert transport.connections_opened == 1
            await transport.close()

    run(loop, main())


def test_a_deadline_that_is_over_already(kind: str, loop: str) -> None:
    async def main() -> None:
        async with RudeServer(always(answer())) as server:
            transport = make(kind, server.url)
            assert await begin(transport, timeout_s=-1) is Fault.TIMEOUT_UNSENT
            await transport.close()
            assert server.accepted == 0

    run(loop, main())


@pytest.mark.parametrize(
    ("connect_timeout_s", "timeout_s", "expected"),
    [pytest.param(0.1, 20, Fault.CONNECT, id="connect"), pytest.param(10, 0.1, Fault.TIMEOUT_UNSENT, id="deadline")],
)
def test_too_slow_while_connecting(
    kind: str, loop: str, connect_timeout_s: float, timeout_s: float, expected: Fault
) -> None:
    async def main() -> None:
        async with RudeServer(silent()) as server:  # never says a word of TLS
            url = server.url.replace("http:", "https:")
            context = client_context()
            transport = make(kind, url, ssl_context=context, connect_timeout_s=connect_timeout_s)
            assert await begin(transport, timeout_s=timeout_s) is expected
            await transport.close()

    run(loop, main())


@pytest.mark.parametrize("body", [pytest.param(b"{}", id="reading"), pytest.param(b"x" * 20_000_000, id="sending")])
def test_the_deadline_after_the_request_has_begun(kind: str, loop: str, body: bytes) -> None:
    got: list[Answer | Fault] = []

    async def main(timeout_s: float) -> None:
        async def behave(_: Conversation) -> None:
            await asyncio.Event().wait()  # reads nothing beyond the stream's own buffer

        async with RudeServer(behave) as server:
            transport = make(kind, server.url)
            got.append(await begin(transport, body, timeout_s=timeout_s))
            await transport.close()

    def attempt(timeout_s: float) -> "Answer | Fault":
        run(loop, main(timeout_s))
        return got[-1]

    assert with_a_short_deadline(attempt) is Fault.TIMEOUT


def test_close_answers_everything_once(kind: str, loop: str) -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def behave(conversation: Conversation) -> None:
            await conversation.request()
            asked.set()
            await conversation.until_gone()

        async with RudeServer(behave) as server:
            transport = make(kind, server.url, connections=1)
            first, second = begin(transport), begin(transport)
            await asked.wait()
            third = begin(transport)
            await transport.close()
            assert [await first, await second, await third] == [
                Fault.RESET,
                Fault.TIMEOUT_UNSENT,
                Fault.TIMEOUT_UNSENT,
            ]
            assert await begin(transport) is Fault.TIMEOUT_UNSENT
            await transport.close()
            assert (transport.open, transport.waiting) == (0, 0)

    run(loop, main())


def test_a_callback_may_send(kind: str, loop: str) -> None:
    async def main() -> None:
        async with RudeServer(always(answer())) as server:
            transport = make(kind, server.url, connections=1)
            seconds: list[asyncio.Future[Answer | Fault]] = []
            first = begin(transport)
            first.add_done_callback(lambda _: seconds.append(begin(transport)))
            assert await first == OK
            assert await seconds[0] == OK
            assert server.accepted == 1
            await transport.close()

    run(loop, main())


@pytest.mark.parametrize(
    "header",
    [("X", "a\r\nY: b"), ("X\r\nY", "b"), ("X", "a\x00"), ("X", "é"), ("Host", "other"), ("Content-Length", "0")],
)
def test_no_header_can_change_the_request(kind: str, loop: str, header: tuple[str, str]) -> None:
    async def main() -> None:
        transport = make(kind, "http://127.0.0.1:9/")
        with pytest.raises(ValueError, match="header"):
            begin(transport, b"{}", header)
        await transport.close()

    run(loop, main())


@pytest.mark.parametrize("url", ["ftp://x/", "http:///x", "http://u:p@x/", "https://x/", "http://x/#y"])
def test_endpoints_that_are_refused(kind: str, loop: str, url: str) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="endpoint"):
            make(kind, url)

    run(loop, main())
