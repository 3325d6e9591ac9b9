"""I10 at the wire: an endpoint that throws ids back in every part of an answer, good or bad, is quoted nowhere."""

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from consumer.core.outcome import Fault, classify
from consumer.telemetry import configure_logging
from tests.support.canary import Search
from tests.support.rude_server import RudeServer, always, answer, once
from tests.support.transports import KINDS, begin, make, run

MARKERS = {
    "id": "c0ffee11-2222-4333-8444-feedfacecafe",
    "agent": 'Canary/1.0 (X11; "quoted") 5d2e',
    "sent": "canary-user@example.com",
    "token": "s3cret/+canary==9c1e",
}
SEARCH = Search(MARKERS)
ID, AGENT = MARKERS["id"], MARKERS["agent"]
ECHO = str(MARKERS).encode()

ANSWERS = {
    "no HTTP at all": once(ECHO * 3),
    "an odd protocol": once(f"{ID}/1.1 200 OK\r\n\r\n".encode()),
    "an odd status": once(f"HTTP/1.1 {ID} OK\r\n\r\n".encode()),
    "a status text": always(answer(ECHO, f"500 {AGENT}", f"X-{ID}: {AGENT}")),
    "a header that is none": once(f"HTTP/1.1 200 OK\r\n{AGENT}\r\n\r\n".encode()),
    "a header name with a blank": once(f"HTTP/1.1 200 OK\r\nX {ID} : {AGENT}\r\n\r\n".encode()),
    "an odd length": once(f"HTTP/1.1 200 OK\r\nContent-Length: {ID}\r\n\r\n".encode()),
    "too many headers": once(b"HTTP/1.1 200 OK\r\n" + f"X-Echo: {AGENT}\r\n".encode() * 20_000),
    "a body that ends early": once(answer(ECHO * 9)[:-40]),
    "an odd chunk": once(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{ID}\r\n{AGENT}\r\n".encode()),
    "a trailer": once(
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x={ID}\r\n{{}}\r\n0\r\nX-{AGENT}\r\n\r\n".encode()
    ),
    "two answers at once": always(answer(ECHO, "503 Busy") * 2),
    "an upgrade": once(f"HTTP/1.1 101 {AGENT}\r\nUpgrade: {ID}\r\nConnection: upgrade\r\n\r\n".encode() + ECHO),
    "a redirect": always(answer(b"", "302 Found", f"Location: https://x/{ID}", f"Set-Cookie: id={ID}")),
    "not UTF-8": always(answer(b"\xff\xfe" + ECHO, "200 OK", "Content-Type: application/json; charset=utf-16")),
}


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str]) -> Iterator[io.StringIO]:  # capfd first: handlers bind stderr
    """The log as `run` sets it up, at its most talkative."""
    root, config, stream = logging.getLogger(), structlog.get_config(), io.StringIO()
    handlers, level = root.handlers, root.level
    configure_logging("debug", "json", stream)
    yield stream
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**config)


@pytest.mark.parametrize("what", ANSWERS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_an_answer_is_told(
    kind: str, what: str, told: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with RudeServer(ANSWERS[what]) as server:
            transport = make(kind, server.url)
            headers = ("Kochava-Api-Key", MARKERS["token"])
            for _ in range(2):
                said = await begin(transport, ECHO, headers, timeout_s=5.0)
                assert SEARCH(ECHO + MARKERS["token"].encode()), "the search works"
                outcome = classify(said)
                assert SEARCH(repr(outcome)) == [], "what is counted, logged and put into headers"
                assert isinstance(said, Fault) or said.status
            await transport.close()

    run("uvloop", main())
    printed = capfd.readouterr()
    assert SEARCH(told.getvalue() + printed.out + printed.err) == []
