"""Whose answer it is and what a dying connection means, for both transports.

The rule: nothing that came before a request or behind an answer is ever an answer, and a fault says `sent` exactly if a
byte of the request may have left us. A kept connection that ended while idle costs nothing: the request takes another
at once. One that ends after the request was written is `RESET`, and the transport never sends it again by itself.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from consumer.adapters.tls import client_context
from consumer.core.outcome import Answer, Fault
from tests.support.rude_server import OK_BODY, Conversation, RudeServer, always, answer, silent
from tests.support.transports import KINDS, LOOPS, begin, make, run, wait_after_connecting

pytestmark = [pytest.mark.parametrize("loop", LOOPS), pytest.mark.parametrize("kind", KINDS)]

OK = Answer(200, OK_BODY)
EVIL = answer(b"evil")
FULL_READ_BYTES = 64 * 1024


def padded(size_bytes: int) -> bytes:
    """Return an answer of so many bytes on the wire."""
    return answer(b"x" * (size_bytes - len(answer(b"x" * 60_000)) + 60_000))


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110  # the transport has numbers, not events
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return contexts for a server and its client."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    ca_file = Path(tmp_path_factory.mktemp("tls")) / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    return server, client_context(ca_file)


# -- whose answer is it


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("first", "behind"),
    [
        pytest.param(answer(), EVIL, id="a second answer"),
        pytest.param(answer(), b"H", id="its first byte"),
        pytest.param(answer(), b"HTTP/1.1 200 OK\r\nX-Swallow: ", id="half a head, which eats the next one"),
        pytest.param(answer(), b"garbage", id="garbage"),
        pytest.param(answer(), b"HTTP/1.1 100 Continue\r\n\r\n", id="an interim answer"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", EVIL, id="behind 204"),
        pytest.param(b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", b"evil", id="a body of 204"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n", EVIL, id="behind chunks"
        ),
        pytest.param(padded(FULL_READ_BYTES), EVIL, id="behind one that fills a read"),
    ],
)
@pytest.mark.parametrize("parts", [1, 2], ids=["in one", "in two"])
def test_what_follows_an_answer_is_never_the_next_one(
    kind: str, loop: str, tls: Any, first: bytes, behind: bytes, *, is_tls: bool, parts: int
) -> None:
    """Wrong design excluded: keeping a connection whose parser, TLS or queue holds more than the answer."""

    async def behave(conversation: Conversation) -> None:
        while await conversation.request() is not None:
            if conversation.number > 1:
                await conversation.say(answer())
            elif parts == 1:
                await conversation.say(first + behind)
            else:  # two TLS records, and still one packet
                conversation.write(first)
                await conversation.say(behind)

    async def main() -> None:
        server_context, context = tls if is_tls else (None, None)
        async with RudeServer(behave, server_context, host="localhost") as server:
            transport = make(kind, server.url, connections=1, ssl_context=context)
            got, following = await asyncio.gather(begin(transport), begin(transport))
            assert b"evil" not in got.body
            assert following == OK
            assert server.accepted == 2
            await transport.close()

    run(loop, main())


@pytest.mark.parametrize("stray", [EVIL, answer(b"", "408 Request Timeout", "Connection: close"), b"H"])
def test_what_arrives_between_two_requests_is_nobodys_answer(kind: str, loop: str, stray: bytes) -> None:
    """The loop has not read it when the next request is about to be written: the kernel must be asked."""

    async def main() -> None:
        talks: list[Conversation] = []

        async def behave(conversation: Conversation) -> None:
            talks.append(conversation)
            await always(answer())(conversation)

        async with RudeServer(behave) as server:
            transport = make(kind, server.url)
            assert await begin(transport) == OK
            assert talks[0].send_now(stray) == len(stray)
            assert await begin(transport) == OK
            assert server.accepted == 2
            await transport.close()

    run(loop, main())


@pytest.mark.parametrize("early", [EVIL, b"H", b"220 mail ready\r\n"])
def test_an_answer_before_the_request_is_not_an_answer(
    kind: str, loop: str, early: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[object] = []

    async def main() -> None:
        spoken = asyncio.Event()

        async def behave(conversation: Conversation) -> None:
            await conversation.say(early)
            spoken.set()
            requests.append(await conversation.request())

        async with RudeServer(behave) as server:
            transport = make(kind, server.url, **wait_after_connecting(kind, spoken, monkeypatch))
            assert await begin(transport) is Fault.CONNECT
            await until(lambda: requests)
            await transport.close()
        assert requests == [None], "nothing was sent, as the fault says"

    run(loop, main())


def test_an_answer_over_tls_before_the_request_is_not_an_answer(kind: str, loop: str, tls: Any) -> None:
    """Over TLS the handshake's own records wait there too, so the first bytes of HTTP decide."""

    async def behave(conversation: Conversation) -> None:
        await conversation.say(EVIL)
        await conversation.until_gone()

    async def main() -> None:
        server_context, context = tls
        async with RudeServer(behave, server_context, host="localhost") as server:
            transport = make(kind, server.url, ssl_context=context)
            # it may arrive after the request was written; then nothing can tell it from an answer
            assert await begin(transport) in {Fault.CONNECT, Answer(200, b"evil")}
            await transport.close()

    run(loop, main())


def test_what_connected_for_half_of_its_time_is_not_sent(kind: str, loop: str, tls: Any) -> None:
    seen: list[bytes] = []
    hearing: list[asyncio.Task[None] | None] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hearing.append(asyncio.current_task())
        with suppress(ConnectionError, ssl.SSLError):
            seen.append(await reader.read(1))
        writer.close()

    async def main() -> None:
        server_context, context = tls
        sock = socket.create_server(("127.0.0.1", 0))  # the kernel connects, and nobody speaks TLS yet
        transport = make(kind, f"https://localhost:{sock.getsockname()[1]}/", ssl_context=context)
        answered = begin(transport, timeout_s=2)
        await asyncio.sleep(1.2)
        server = await asyncio.start_server(hear, sock=sock, ssl=server_context)
        assert await answered is Fault.TIMEOUT_UNSENT
        await transport.close()
        server.close()
        await asyncio.gather(*filter(None, hearing))
        assert not any(seen)

    run(loop, main())


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_an_answer_to_half_a_request_ends_the_connection(kind: str, loop: str, tls: Any, *, is_tls: bool) -> None:
    async def behave(conversation: Conversation) -> None:
        if conversation.number == 1:
            await conversation.reader.readuntil(b"\r\n\r\n")
            await conversation.say(answer(b"too large", "413 Too Large"))
            await asyncio.Event().wait()  # reads no more
        await always(answer())(conversation)

    async def main() -> None:
        server_context, context = tls if is_tls else (None, None)
        async with RudeServer(behave, server_context, host="localhost") as server:
            transport = make(kind, server.url, connections=1, ssl_context=context)
            # httpx reads nothing before it has written everything
            timeout_s, expected = (50, Answer(413, b"too large")) if kind == "fast" else (4, Fault.TIMEOUT)
            first, second = begin(transport, b"x" * 20_000_000, timeout_s=timeout_s), begin(transport)
            assert await first == expected
            assert await second == OK
            assert server.accepted == 2
            await transport.close()

    run(loop, main())


def test_a_server_that_refuses_half_a_request_and_closes_is_heard(kind: str, loop: str) -> None:
    async def behave(conversation: Conversation) -> None:
        await conversation.reader.readuntil(b"\r\n\r\n")
        await conversation.say(answer(b"", "413 Too Large", "Connection: close"))

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = make(kind, server.url)
            # closing on unread bytes may destroy the answer on its way
            assert await begin(transport, b"x" * 20_000_000) in {Answer(413), Fault.RESET}
            await transport.close()

    run(loop, main())


# -- a connection that ends


def test_one_that_was_closed_while_idle_costs_nothing(kind: str, loop: str) -> None:
    """Sent again at once, which is for the first time: no byte of the request had been written, and no fault comes."""
    bodies: list[bytes] = []

    async def main() -> None:
        talks: list[Conversation] = []

        async def behave(conversation: Conversation) -> None:
            talks.append(conversation)
            while (request := await conversation.request()) is not None:
                bodies.append(request.body)
                await conversation.say(answer())

        async with RudeServer(behave) as server:
            transport = make(kind, server.url, connections=1)
            for number in range(5):
                assert await begin(transport, b"%d" % number) == OK
                talks[-1].end_now()  # the loop hasn't heard of it when the next one is sent
            assert bodies == [b"0", b"1", b"2", b"3", b"4"]
            assert server.accepted == 5
            await transport.close()

    run(loop, main())


def test_all_of_them_closed_while_idle_cost_nothing(kind: str, loop: str) -> None:
    async def main() -> None:
        talks: list[Conversation] = []

        async def behave(conversation: Conversation) -> None:
            talks.append(conversation)
            await always(answer())(conversation)

        async with RudeServer(behave) as server:
            transport = make(kind, server.url, connections=8)
            for _ in range(3):
                assert set(await asyncio.gather(*(begin(transport) for _ in range(8)))) == {OK}
                for talk in talks[-8:]:
                    talk.end_now()
            assert server.accepted == transport.connections_opened == 24
            await transport.close()

    run(loop, main())


@pytest.mark.parametrize("reads_it", [True, False])
@pytest.mark.parametrize("resets", [True, False])
def test_one_that_ends_after_the_request_was_written_may_have_delivered_it(
    kind: str, loop: str, *, reads_it: bool, resets: bool
) -> None:
    """Wrong design excluded: the automatic retry of browsers. Nobody knows what the server did with the first."""
    bodies: list[bytes] = []

    async def behave(conversation: Conversation) -> None:
        request = await conversation.request()
        assert request is not None
        bodies.append(request.body)
        await conversation.say(answer())
        if conversation.number > 1:
            return
        if reads_it:
            request = await conversation.request()
            assert request is not None
            bodies.append(request.body)
        else:
            await conversation.reader.readexactly(1)
        if resets:
            conversation.reset()

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = make(kind, server.url, connections=1)
            assert await begin(transport, b"first") == OK
            assert await begin(transport, b"second") is Fault.RESET
            assert await begin(transport, b"third") == OK
            await transport.close()
            assert server.accepted == 2
        assert bodies == [b"first", *([b"second"] if reads_it else []), b"third"]

    run(loop, main())


def test_one_that_is_closed_before_it_is_asked_has_sent_nothing(
    kind: str, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accept, then close: a load balancer without a backend."""

    async def main() -> None:
        closed = asyncio.Event()

        async def behave(conversation: Conversation) -> None:
            await conversation.close()
            closed.set()

        async with RudeServer(behave) as server:
            transport = make(kind, server.url, **wait_after_connecting(kind, closed, monkeypatch))
            assert [await begin(transport) for _ in range(3)] == [Fault.CONNECT] * 3
            assert server.accepted == 3
            await transport.close()

    run(loop, main())


def test_half_open_ones_cost_a_deadline_each_and_are_given_up(kind: str, loop: str) -> None:
    """The peer vanished without a word: what was asked there is unknown, and what comes next takes another."""

    async def behave(conversation: Conversation) -> None:
        if conversation.number <= 2:
            await conversation.request()
            await conversation.say(answer())
            await asyncio.Event().wait()
        await always(answer())(conversation)

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = make(kind, server.url, connections=2)
            assert await asyncio.gather(begin(transport), begin(transport)) == [OK, OK]
            stuck = [begin(transport, timeout_s=1) for _ in range(2)]
            assert await asyncio.gather(*stuck) == [Fault.TIMEOUT, Fault.TIMEOUT]
            assert await asyncio.gather(begin(transport), begin(transport)) == [OK, OK]
            assert server.accepted <= 4
            await transport.close()

    run(loop, main())


def test_one_stuck_connection_delays_nobody_else(kind: str, loop: str) -> None:
    async def behave(conversation: Conversation) -> None:
        await (silent() if conversation.number == 1 else always(answer()))(conversation)

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = make(kind, server.url, connections=2)
            stuck = begin(transport)
            await until(lambda: server.accepted == 1)
            assert set(await asyncio.gather(*(begin(transport) for _ in range(50)))) == {OK}
            assert not stuck.done()
            await transport.close()
            assert await stuck is Fault.RESET

    run(loop, main())


# -- no connection at all


@contextmanager
def black_hole() -> Iterator[int]:
    """Yield a port that answers no SYN: the queue of its listener is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("connect_timeout_s", "timeout_s", "expected"),
    [pytest.param(0.2, 20, Fault.CONNECT, id="connect"), pytest.param(10, 0.2, Fault.TIMEOUT_UNSENT, id="deadline")],
)
def test_a_black_hole(kind: str, loop: str, connect_timeout_s: float, timeout_s: float, expected: Fault) -> None:
    async def main() -> None:
        with black_hole() as port:
            transport = make(kind, f"http://127.0.0.1:{port}/", connect_timeout_s=connect_timeout_s)
            got = await asyncio.gather(*(begin(transport, timeout_s=timeout_s) for _ in range(3)))
            assert got == [expected] * 3
            await transport.close()
            assert (transport.open, transport.waiting) == (0, 0)

    run(loop, main())
