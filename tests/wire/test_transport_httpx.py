"""What only the httpx transport does: a proxy, named by a setting and by nothing else."""

import pytest

from consumer.adapters.tls import client_context
from consumer.core.outcome import Answer, Fault
from tests.support.rude_server import OK_BODY, Conversation, RudeServer, answer
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
