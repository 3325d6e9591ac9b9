"""What only the httpx transport does: a proxy, named by a setting and by nothing else."""

import asyncio
import errno
from pathlib import Path

import pytest
import trustme
from httpcore._async import connection_pool

from consumer.adapters.tls import client_context
from consumer.core.outcome import Answer, Fault
from consumer.ports import Request
from tests.support.certificates import pem, server_context
from tests.support.rude_server import OK_BODY, Behaviour, Conversation, RudeServer, always, answer, once
from tests.support.transports import LOOPS, begin, make, run

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def test_the_proxy_of_the_settings_is_used(loop: str) -> None:
    lines: list[str] = []

    async def behave(conversation: Conversation) -> None:
        while (request := await conversation.request()) is not None:
            lines.append(request.line)
            await conversation.say(answer())

    async def main() -> None:
        async with RudeServer(behave) as proxy:
            transport = make("httpx", "http://kochava.invalid/track/json", proxy=f"http://127.0.0.1:{proxy.port}")
            assert await begin(transport) == Answer(200, OK_BODY)
            assert (transport.connections_opened, transport.open) == (1, 1)
            await transport.close()
        assert lines == ["POST http://kochava.invalid/track/json HTTP/1.1"]

    run(loop, main())


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        pytest.param(answer(b"", "407 Proxy Authentication Required"), Fault.CONNECT, id="refused"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", Fault.TLS, id="not TLS behind it"),
        pytest.param(None, Fault.TIMEOUT_UNSENT, id="silence"),
    ],
)
def test_a_tunnel_that_was_not_built_has_sent_nothing(loop: str, says: bytes | None, expected: Fault) -> None:
    """Excludes taking the CONNECT for the request: it would count as perhaps delivered."""

    async def behave(conversation: Conversation) -> None:
        await conversation.request()
        if says is not None:
            await conversation.say(says)
            await conversation.reader.read(10)
            await conversation.say(b"this is no TLS record\r\n")
        await conversation.until_gone()

    async def main() -> None:
        async with RudeServer(behave) as proxy:
            transport = make(
                "httpx",
                "https://kochava.invalid/track/json",
                ssl_context=client_context(),
                proxy=f"http://127.0.0.1:{proxy.port}",
            )
            assert await begin(transport, timeout_s=0.5 if says is None else 20) is expected
            await transport.close()

    run(loop, main())


def test_a_proxy_with_tls_is_verified_like_the_endpoint(loop: str, tmp_path: Path) -> None:
    """Wrong design excluded: httpcore's own trust (certifi) for the proxy, whatever the settings say."""
    authority, stranger = trustme.CA(), trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))

    async def ask(issuer: trustme.CA) -> "tuple[Answer | Fault, list[str]]":
        lines: list[str] = []

        async def behave(conversation: Conversation) -> None:
            while (request := await conversation.request()) is not None:
                lines.append(request.line)
                await conversation.say(answer(b"", "407 Proxy Authentication Required"))

        context = server_context(pem(issuer.issue_cert("localhost")), tmp_path)
        async with RudeServer(behave, context) as proxy:
            transport = make(
                "httpx",
                "https://kochava.invalid/track/json",
                ssl_context=client_context(ca_file),
                proxy=f"https://localhost:{proxy.port}",
            )
            got = await begin(transport)
            await transport.close()
        return got, lines

    async def main() -> None:
        assert await ask(authority) == (Fault.CONNECT, ["CONNECT kochava.invalid:443 HTTP/1.1"])
        assert await ask(stranger) == (Fault.TLS, [])

    run(loop, main())


class ManualClock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0


def test_connections_that_nobody_needed_are_closed_when_something_is_sent(loop: str) -> None:
    async def main() -> None:
        clock = ManualClock()

        def start() -> "asyncio.Future[Answer | Fault]":
            future = asyncio.get_running_loop().create_future()
            transport.send(Request(b"{}"), clock.now + 20, future.set_result)
            return future

        async with RudeServer(always(answer())) as server:
            transport = make("httpx", server.url, connections=3, clock=clock, idle_timeout_s=30)
            await asyncio.gather(start(), start(), start())
            assert transport.open == 3
            for _ in range(3):  # the last used goes out first, so the others grow old
                clock.now += 15
                await start()
            assert (transport.open, server.accepted) == (1, 3)
            clock.now += 30
            await start()
            assert (transport.open, server.accepted) == (1, 4)
            await transport.close()

    run(loop, main())


@pytest.mark.parametrize(
    ("behave", "body"),
    [
        pytest.param(always(answer()), OK_BODY, id="it may be kept"),
        pytest.param(always(answer(OK_BODY, "200 OK", "Connection: close")), OK_BODY, id="it is to be closed"),
        pytest.param(once(b"HTTP/1.1 200 OK\r\n\r\n" + OK_BODY), OK_BODY, id="its end is the answer's"),
        pytest.param(always(answer() + b"HTTP/1.1 200 OK"), OK_BODY, id="more came behind"),
        pytest.param(always(answer(b"x" * 70_000)), b"x" * 65_536, id="too long to be read"),
    ],
)
def test_an_answer_counts_whatever_becomes_of_its_connection(
    loop: str, behave: Behaviour, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Excludes: what was answered is sent again, because httpcore looks for a module when an answer has ended.

    For that it may have to list a folder, and without descriptors it can't.
    """

    def look_for_a_module() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def take_the_descriptors(conversation: Conversation) -> None:
        if conversation.number == 1:
            monkeypatch.setattr(connection_pool, "AsyncShieldCancellation", look_for_a_module)
        await behave(conversation)

    async def main() -> None:
        async with RudeServer(take_the_descriptors) as server:
            transport = make("httpx", server.url, connections=1)
            assert await begin(transport) == Answer(200, body)
            assert transport.open == 0
            monkeypatch.undo()
            assert await begin(transport) == Answer(200, body), "on another connection"
            assert (server.accepted, transport.connections_opened) == (2, 2)
            await transport.close()

    run(loop, main())
