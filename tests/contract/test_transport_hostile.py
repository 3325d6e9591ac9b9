"""Bombs, drips and nonsense, for both transports: memory stays flat, the deadline holds, and no guess is an answer."""

import asyncio
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from consumer.core.outcome import Answer, Fault, Misconfigured, classify
from tests.support.rude_server import OK_BODY, Conversation, Received, RudeServer, always, answer, once
from tests.support.transports import KINDS, LOOPS, begin, make, run, with_a_short_deadline

pytestmark = [pytest.mark.parametrize("loop", LOOPS), pytest.mark.parametrize("kind", KINDS)]

OK = Answer(200, OK_BODY)
CAP_BYTES = 64 * 1024
FLAT_BYTES = 8 << 20
"""What a client may take for one answer, the test's own server included."""
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def ask(kind: str, loop: str, behaviour: Any, *, body: bytes = b"{}", timeout_s: float = 50.0) -> "Answer | Fault":
    """Return what one request to a server that behaves so gives."""
    got: list[Answer | Fault] = []

    async def main() -> None:
        async with RudeServer(behaviour) as server:
            transport = make(kind, server.url)
            got.append(await begin(transport, body, timeout_s=timeout_s))
            await transport.close()

    run(loop, main())
    return got[0]


def peak_bytes(work: Callable[[], object]) -> int:
    """Return how much memory Python objects took on top at most while *work* ran."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# -- bombs


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """400 MB of zeros in 400 kB."""
    squeeze = zlib.compressobj(6, wbits=31)
    block = bytes(1_000_000)
    return b"".join([*(squeeze.compress(block) for _ in range(400)), squeeze.flush()])


@pytest.mark.parametrize("header", ["Content-Encoding: gzip", "Content-Encoding: gzip, gzip", "X: y"])
def test_a_gzip_bomb_stays_small(kind: str, loop: str, bomb: bytes, header: str) -> None:
    assert 300_000 < len(bomb) < 600_000
    wire = answer(bomb, "200 OK", header)
    got: list[Answer | Fault] = []
    assert peak_bytes(lambda: got.append(ask(kind, loop, once(wire)))) < FLAT_BYTES
    assert got == [Answer(200, bomb[:CAP_BYTES])]


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(HEAD + b"Content-Length: 1000000000\r\n\r\n", b"x" * 65_536, id="a gigabyte"),
        pytest.param(HEAD + b"Content-Length: 18446744073709551615\r\n\r\n", b"x" * 65_536, id="16 exabytes"),
        pytest.param(HEAD + b"\r\n", b"x" * 65_536, id="until closed"),
        pytest.param(CHUNKED, b"10000\r\n" + b"x" * 65_536 + b"\r\n", id="chunks"),
        pytest.param(CHUNKED, b"1\r\nx\r\n" * 10_000, id="chunks of one byte"),
        pytest.param(CHUNKED + b"7fffffffffffffff\r\n", b"x" * 65_536, id="one endless chunk"),
    ],
)
def test_an_endless_body_is_left_at_64_kib(kind: str, loop: str, head: bytes, piece: bytes) -> None:
    sent_bytes = 0

    async def behave(conversation: Conversation) -> None:
        nonlocal sent_bytes
        await conversation.request()
        await conversation.say(head)
        while sent_bytes < 1_000_000_000:
            await conversation.say(piece)
            sent_bytes += len(piece)

    got: list[Answer | Fault] = []
    assert peak_bytes(lambda: got.append(ask(kind, loop, behave))) < FLAT_BYTES
    is_crumbs = piece.startswith(b"1\r\n")
    assert got == [Fault.PROTOCOL if is_crumbs and kind == "httpx" else Answer(200, b"x" * CAP_BYTES)]
    assert sent_bytes < 64_000_000, "it hung up; the rest is what the kernel's buffers took"


@pytest.mark.parametrize(
    ("first", "more"),
    [
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, id="interim answers"),
        pytest.param(HEAD, b"X: y\r\n" * 1000, id="header lines"),
        pytest.param(HEAD + b"X: ", b"y" * 10_000, id="one header"),
        pytest.param(b"HTTP/1.1 200 ", b"y" * 10_000, id="a reason"),
        pytest.param(CHUNKED + b"1;", b"y" * 10_000, id="a chunk extension"),
        pytest.param(CHUNKED, b"1;" + b"y" * 10_000 + b"\r\nx\r\n", id="chunk extensions"),
        pytest.param(CHUNKED + b"1\r\nx\r\n0\r\nX: ", b"y" * 10_000, id="a trailer"),
        pytest.param(CHUNKED + b"1\r\nx\r\n0\r\n", b"X: y\r\n" * 1000, id="trailers"),
    ],
)
def test_endless_framing_ends_and_stays_small(kind: str, loop: str, first: bytes, more: bytes) -> None:
    """By a cap in the fast transport, at the latest by the deadline in the other."""

    async def behave(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.say(first)
        while True:
            await conversation.say(more)

    got: list[Answer | Fault] = []
    assert peak_bytes(lambda: got.append(ask(kind, loop, behave, timeout_s=50 if kind == "fast" else 3))) < FLAT_BYTES
    if isinstance(got[0], Answer):
        assert set(got[0].body) <= {ord("x")}
        assert len(got[0].body) <= CAP_BYTES
    else:
        assert got[0] is Fault.PROTOCOL or (kind, got[0]) == ("httpx", Fault.TIMEOUT)


@pytest.mark.parametrize("lines", [300, 30_000])
def test_hundreds_of_header_lines_are_a_protocol_fault(kind: str, loop: str, lines: int) -> None:
    assert ask(kind, loop, once(answer(OK_BODY, "200 OK", *["X: y"] * lines))) is Fault.PROTOCOL


# -- drips


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        pytest.param(b"", b"\r\n", id="empty lines"),
        pytest.param(b"", b"HTTP/1.1 102 Processing\r\n\r\n", id="interim answers"),
        pytest.param(b"HTTP/1.1 200 ", b"O", id="reason"),
        pytest.param(HEAD + b"X: ", b"y", id="header"),
        pytest.param(HEAD + b"Content-Length: 100000\r\n\r\n", b"x", id="body"),
        pytest.param(HEAD + b"\r\n", b"x", id="body until closed"),
        pytest.param(CHUNKED, b"1\r\nx\r\n", id="chunks"),
        pytest.param(CHUNKED + b"1;", b"x", id="chunk extension"),
        pytest.param(CHUNKED + b"1\r\nx\r\n0\r\nX: ", b"x", id="trailer"),
    ],
)
def test_a_drip_does_not_move_the_deadline(kind: str, loop: str, first: bytes, drop: bytes) -> None:
    """Wrong design excluded: a timeout per read, which a byte now and then keeps from ever firing."""

    async def behave(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.say(first)
        while True:
            await conversation.say(drop)
            await asyncio.sleep(0.05)

    expected = {Fault.TIMEOUT}
    if (kind, drop) == ("httpx", b"\r\n"):
        expected.add(Fault.PROTOCOL)  # h11 takes no empty line before an answer
    assert with_a_short_deadline(lambda timeout_s: ask(kind, loop, behave, timeout_s=timeout_s)) in expected


def test_a_request_that_is_taken_in_drips_ends_by_the_deadline(kind: str, loop: str) -> None:
    async def behave(conversation: Conversation) -> None:
        while await conversation.reader.read(1):  # noqa: ASYNC110  # this is the drip
            await asyncio.sleep(0.05)

    def attempt(timeout_s: float) -> "Answer | Fault":
        return ask(kind, loop, behave, body=b"x" * 20_000_000, timeout_s=timeout_s)

    assert with_a_short_deadline(attempt) is Fault.TIMEOUT


# -- nonsense


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(CHUNKED + b"zz\r\nok\r\n0\r\n\r\n", id="a chunk of zz"),
        pytest.param(CHUNKED + b"-1\r\nok\r\n0\r\n\r\n", id="a chunk of -1"),
        pytest.param(CHUNKED + b"+2\r\nok\r\n0\r\n\r\n", id="a chunk of +2"),
        pytest.param(CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n", id="a chunk of 0x2"),
        pytest.param(CHUNKED + b"\r\nok\r\n0\r\n\r\n", id="a chunk of nothing"),
        pytest.param(CHUNKED + b"f" * 18 + b"\r\nok\r\n0\r\n\r\n", id="a chunk beyond 64 bits"),
        pytest.param(CHUNKED + b"2\r\nokX\r\n0\r\n\r\n", id="a chunk longer than it says"),
        pytest.param(CHUNKED + b"5\r\nok\r\n0\r\n\r\n", id="a chunk shorter than it says"),
        pytest.param(CHUNKED + b"2\nok\n0\n\n", id="chunks by line feeds"),
        pytest.param(
            HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", id="CL, TE"
        ),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", id="TE, CL"
        ),
        pytest.param(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", id="TE: gzip, chunked"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n", id="TE: chunked, gzip"),
        pytest.param(HEAD + b"Transfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", id="TE: xchunked"),
        pytest.param(HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", id="TE: vertical tab"),
        pytest.param(HEAD + b"Transfer-Encoding: identity\r\n\r\nok", id="TE: identity"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n2\r\nok\r\n0\r\n\r\n", id="TE twice"),
        pytest.param(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!", id="CL: two lengths"),
        pytest.param(HEAD + b"Content-Length: 2, 3\r\n\r\nok!", id="CL: two in one"),
        pytest.param(HEAD + b"Content-Length: -2\r\n\r\nok", id="CL: negative"),
        pytest.param(HEAD + b"Content-Length: +2\r\n\r\nok", id="CL: +2"),
        pytest.param(HEAD + b"Content-Length: 0x2\r\n\r\nok", id="CL: 0x2"),
        pytest.param(HEAD + b"Content-Length: 2 2\r\n\r\nok", id="CL: 2 2"),
        pytest.param(HEAD + b"Content-Length:\r\n\r\nok", id="CL: none"),
        pytest.param(HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nok", id="CL: beyond 64 bits"),
        pytest.param(HEAD + b"Content-Length: 18446744073709551618\r\n\r\nok", id="CL: 2 in 64 bits"),
        pytest.param(HEAD + b"Content-Length : 2\r\n\r\nok", id="a space before the colon"),
        pytest.param(HEAD + b"Retry-After 1\r\nContent-Length: 2\r\n\r\nok", id="no colon"),
        pytest.param(HEAD + b": 1\r\nContent-Length: 2\r\n\r\nok", id="no name"),
        pytest.param(HEAD + b"X\x00Y: 1\r\nContent-Length: 2\r\n\r\nok", id="NUL in a name"),
        pytest.param(HEAD + b"Retry-After: 1\x002\r\nContent-Length: 2\r\n\r\nok", id="NUL in a value"),
        pytest.param(HEAD + b"Retry-After: 1\r2\r\nContent-Length: 2\r\n\r\nok", id="CR in a value"),
        pytest.param(HEAD + b"Retry-After: 1\n2\r\nContent-Length: 2\r\n\r\nok", id="LF in a value"),
        pytest.param(b"HTTP/1.1 OK\r\n\r\n", id="status: a word"),
        pytest.param(b"HTTP/1.1 2OO OK\r\nContent-Length: 2\r\n\r\nok", id="status: letters"),
        pytest.param(b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", id="status: two digits"),
        pytest.param(b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", id="status: four digits"),
        pytest.param(b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok", id="status: 000"),
        pytest.param(b"HTTP/1.1 -200 OK\r\nContent-Length: 2\r\n\r\nok", id="status: negative"),
        pytest.param(b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok", id="two spaces"),
        pytest.param(b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", id="small letters"),
        pytest.param(b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok", id="another protocol"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="a request"),
        pytest.param(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" * 10, id="HTTP/2"),
        pytest.param(b"\x15\x03\x03\x00\x02\x02\x28" * 10, id="a TLS alert"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + answer(), id="101"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="an interim answer alone"),
        pytest.param(
            b"HTTP/1.1 104 X\r\nContent-Length: 15\r\n\r\n" + OK_BODY + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            id="an interim answer with a body",
        ),
    ],
)
def test_nonsense_is_a_fault_that_counts_as_sent(kind: str, loop: str, wire: bytes) -> None:
    """`PROTOCOL`, or `RESET` where the parser waits for more of what never comes; never a guess at an answer."""
    assert ask(kind, loop, once(wire)) in {Fault.PROTOCOL, Fault.RESET}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"Retry-After: 7\r\n", "7"),
        (b"Retry-After: \t 7 \t \r\n", "7"),
        (b"Retry-After:\r\n", ""),
        (b"Retry-After: \xc3\xa9\xff\r\n", "\xc3\xa9\xff"),
        (b"Retry-After: 1\r\nRETRY-AFTER: 2\r\n", "2"),
        (b"Retry-After: -5\r\n", "-5"),
        (b"Retry-After: " + b"9" * 400 + b"\r\n", "9" * 400),
        (b"", None),
    ],
)
def test_retry_after_is_one_line_and_given_as_it_came(kind: str, loop: str, lines: bytes, expected: str | None) -> None:
    got = ask(kind, loop, once(b"HTTP/1.1 503 Busy\r\n" + lines + b"Content-Length: 0\r\n\r\n"))
    assert got == Answer(503, b"", expected)


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints", b"199 X"])
def test_interim_answers_and_their_headers_are_passed_over(kind: str, loop: str, interim: bytes) -> None:
    early = b"HTTP/1.1 %b\r\nRetry-After: 9\r\nLink: </x>\r\n\r\n" % interim
    assert ask(kind, loop, once(early, early, answer(b"", "503 Busy"))) == Answer(503)


@pytest.mark.parametrize("status", [201, 202, 204, 205, 206, 300, 304, 399, 400, 418, 451, 499, 500, 599, 600, 999])
def test_every_status_is_an_answer(kind: str, loop: str, status: int) -> None:
    body = b"" if status in {204, 205, 304} else b"x"
    assert ask(kind, loop, once(answer(body, f"{status} X"))) == Answer(status, body)


@pytest.mark.parametrize("location", ["/elsewhere", "http://169.254.169.254/latest/meta-data", "another server"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_within_the_host_or_beyond(kind: str, loop: str, status: int, location: str) -> None:
    lines: list[str] = []

    async def main() -> None:
        async with RudeServer(always(answer())) as other:

            async def behave(conversation: Conversation) -> None:
                target = other.url if location == "another server" else location
                while (request := await conversation.request()) is not None:
                    lines.append(request.line)
                    await conversation.say(answer(b"", f"{status} Go", f"Location: {target}"))

            async with RudeServer(behave) as server:
                transport = make(kind, server.url)
                got = await begin(transport)
                assert got == Answer(status)
                assert classify(got) == Misconfigured("endpoint", f"http_{status}", status)
                await transport.close()
            assert other.accepted == 0

    run(loop, main())
    assert lines == ["POST /track/json HTTP/1.1"]


def test_nothing_of_one_answer_goes_out_with_the_next_request(kind: str, loop: str) -> None:
    """Cookies, validators, challenges: each event is the first."""
    seen: list[Received] = []
    sticky = (
        "Set-Cookie: a=1; Path=/",
        "Set-Cookie: b=2; Max-Age=1000",
        'ETag: "x"',
        "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT",
        'Alt-Svc: h3=":443"',
        'WWW-Authenticate: Basic realm="x"',
        "Strict-Transport-Security: max-age=1000",
    )

    async def behave(conversation: Conversation) -> None:
        while (request := await conversation.request()) is not None:
            seen.append(request)
            await conversation.say(answer(b"", "401 Who?", *sticky))

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = make(kind, server.url)
            assert [await begin(transport) for _ in range(3)] == [Answer(401)] * 3
            await transport.close()
        assert seen[0] == seen[1] == seen[2]

    run(loop, main())


def test_the_environment_is_not_asked(
    kind: str, loop: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Neither for a proxy nor for trust, credentials or a file to log session keys into."""
    home = tmp_path_factory.mktemp("home")
    (home / ".netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    seen: list[Received] = []

    async def behave(conversation: Conversation) -> None:
        while (request := await conversation.request()) is not None:
            seen.append(request)
            await conversation.say(answer())

    async def main() -> None:
        async with RudeServer(behave) as server, RudeServer(always(answer(b"proxy"))) as proxy:
            for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
            monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
            monkeypatch.setenv("NETRC", str(home / ".netrc"))
            monkeypatch.setenv("HOME", str(home))
            transport = make(kind, server.url)
            assert await begin(transport) == OK
            await transport.close()
            assert proxy.accepted == 0
        assert "authorization" not in seen[0].headers

    run(loop, main())
