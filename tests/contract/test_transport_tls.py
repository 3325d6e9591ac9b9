"""Whom both transports believe to be Kochava: chain, host name and time are verified, by TLS 1.2 or newer.

A peer that fails this is `Fault.TLS`: the endpoint is misconfigured, nothing was sent, and the breaker opens.
"""

import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from consumer.adapters.tls import client_context
from consumer.core.outcome import Answer, Fault, Misconfigured, classify
from tests.support.certificates import FUTURE, PAST, pem, self_signed, server_context, show
from tests.support.rude_server import OK_BODY, Conversation, Received, RudeServer, always, answer, silent
from tests.support.transports import KINDS, LOOPS, begin, make, run

pytestmark = [pytest.mark.parametrize("loop", LOOPS), pytest.mark.parametrize("kind", KINDS)]

OK = Answer(200, OK_BODY)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trust(authority: trustme.CA, tmp_path: Path) -> ssl.SSLContext:
    """What the transports are given: it trusts *authority* alone."""
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    return client_context(ca_file)


def ask_twice(
    kind: str, loop: str, server: ssl.SSLContext, trust: ssl.SSLContext, host: str = "localhost"
) -> "tuple[list[Answer | Fault], list[Received]]":
    """Return what two requests give, and what the server got to see."""
    got: list[Answer | Fault] = []
    seen: list[Received] = []

    async def behave(conversation: Conversation) -> None:
        while (request := await conversation.request()) is not None:
            seen.append(request)
            await conversation.say(answer())

    async def main() -> None:
        async with RudeServer(behave, server, host=host) as rude:
            transport = make(kind, rude.url, ssl_context=trust)
            got.extend([await begin(transport), await begin(transport)])
            await transport.close()

    run(loop, main())
    return got, seen


# -- certificates

Issue = Callable[[trustme.CA], bytes]


@pytest.mark.parametrize(
    ("issue", "host"),
    [
        pytest.param(lambda ca: pem(ca.issue_cert("localhost")), "localhost", id="its name"),
        pytest.param(lambda ca: pem(ca.issue_cert("x.example", "localhost")), "localhost", id="one of its names"),
        pytest.param(lambda ca: pem(ca.issue_cert("127.0.0.1")), "127.0.0.1", id="its address"),
        pytest.param(
            lambda ca: pem(ca.create_child_ca().issue_cert("localhost")), "localhost", id="by an intermediate"
        ),
    ],
)
def test_a_good_certificate(
    kind: str, loop: str, issue: Issue, host: str, authority: trustme.CA, trust: ssl.SSLContext, tmp_path: Path
) -> None:
    got, seen = ask_twice(kind, loop, server_context(issue(authority), tmp_path), trust, host)
    assert got == [OK, OK]
    assert len(seen) == 2


def _without_intermediate(authority: trustme.CA) -> bytes:
    leaf = authority.create_child_ca().issue_cert("localhost")
    return leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes()


@pytest.mark.parametrize(
    ("issue", "host"),
    [
        pytest.param(lambda ca: pem(ca.issue_cert("localhost", not_after=PAST)), "localhost", id="expired"),
        pytest.param(lambda ca: pem(ca.issue_cert("localhost", not_before=FUTURE)), "localhost", id="not yet valid"),
        pytest.param(lambda ca: pem(ca.issue_cert("elsewhere.example")), "localhost", id="another host"),
        pytest.param(lambda ca: pem(ca.issue_cert("*.localhost")), "localhost", id="hosts below it"),
        pytest.param(lambda ca: pem(ca.issue_cert("localhost")), "127.0.0.1", id="a name for an address"),
        pytest.param(
            lambda ca: pem(ca.issue_cert("elsewhere.example", common_name="localhost")), "localhost", id="common name"
        ),
        pytest.param(lambda _: self_signed("localhost"), "localhost", id="self-signed"),
        pytest.param(lambda _: pem(trustme.CA().issue_cert("localhost")), "localhost", id="unknown authority"),
        pytest.param(_without_intermediate, "localhost", id="broken chain"),
    ],
)
def test_a_certificate_that_does_not_hold_stops_everything(
    kind: str, loop: str, issue: Issue, host: str, authority: trustme.CA, trust: ssl.SSLContext, tmp_path: Path
) -> None:
    got, seen = ask_twice(kind, loop, server_context(issue(authority), tmp_path), trust, host)
    assert got == [Fault.TLS, Fault.TLS]
    assert seen == [], "not a byte of an event was sent"
    assert classify(Fault.TLS) == Misconfigured("endpoint", "tls")
    assert not Fault.TLS.sent


def test_a_replaced_certificate_is_seen_by_the_next_connection(
    kind: str, loop: str, authority: trustme.CA, trust: ssl.SSLContext, tmp_path: Path
) -> None:
    async def main() -> None:
        context = server_context(pem(authority.issue_cert("localhost", not_after=PAST)), tmp_path)
        async with RudeServer(always(answer()), context, host="localhost") as server:
            transport = make(kind, server.url, ssl_context=trust)
            assert [await begin(transport) for _ in range(3)] == [Fault.TLS] * 3
            show(context, pem(authority.issue_cert("localhost")), tmp_path)
            assert [await begin(transport) for _ in range(3)] == [OK] * 3
            await transport.close()

    run(loop, main())


# -- versions


def _speaks(lowest: ssl.TLSVersion, highest: ssl.TLSVersion, chain: bytes, folder: Path) -> ssl.SSLContext:
    context = server_context(chain, folder)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that they are deprecated is the point
        context.minimum_version, context.maximum_version = lowest, highest
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_newer_will_do(
    kind: str, loop: str, version: ssl.TLSVersion, authority: trustme.CA, trust: ssl.SSLContext, tmp_path: Path
) -> None:
    context = _speaks(version, version, pem(authority.issue_cert("localhost")), tmp_path)
    assert ask_twice(kind, loop, context, trust)[0] == [OK, OK]


@contextmanager
def blocking_server(context: ssl.SSLContext) -> Iterator[int]:
    """Yield the port of a server that ends a failed handshake with an alert; asyncio's hangs up without one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return  # the test is over
                with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as talk:
                    talk.settimeout(30)
                    talk.recv(65536)
                    talk.sendall(answer(OK_BODY, "200 OK", "Connection: close"))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_a_server_of_tls_1_1_or_older_is_refused(
    kind: str, loop: str, version: ssl.TLSVersion, authority: trustme.CA, trust: ssl.SSLContext, tmp_path: Path
) -> None:
    context = _speaks(ssl.TLSVersion.TLSv1, version, pem(authority.issue_cert("localhost")), tmp_path)

    async def ask(port: int) -> "Answer | Fault":
        transport = make(kind, f"https://localhost:{port}/", ssl_context=trust)
        try:
            return await begin(transport)
        finally:
            await transport.close()

    async def main() -> None:
        with blocking_server(context) as port:
            assert trust.minimum_version >= ssl.TLSVersion.TLSv1_2
            assert await ask(port) is Fault.TLS
            # and it is the version that is wrong with it: who takes any is served
            trust.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                trust.minimum_version = ssl.TLSVersion.TLSv1
            assert await ask(port) == OK

    run(loop, main())


# -- handshakes that come to nothing


def test_a_server_without_tls(kind: str, loop: str, trust: ssl.SSLContext) -> None:
    async def behave(conversation: Conversation) -> None:
        await conversation.reader.read(10)
        await conversation.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = make(kind, server.url.replace("http:", "https:"), ssl_context=trust)
            assert await begin(transport) is Fault.TLS
            await transport.close()

    run(loop, main())


_HELLO_BEGINS = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03"


@pytest.mark.parametrize("said", [b"", _HELLO_BEGINS], ids=["nothing", "half a hello"])
@pytest.mark.parametrize(
    ("connect_timeout_s", "timeout_s", "expected"),
    [pytest.param(0.2, 20, Fault.CONNECT, id="connect"), pytest.param(10, 0.2, Fault.TIMEOUT_UNSENT, id="deadline")],
)
def test_a_handshake_that_stalls(
    kind: str,
    loop: str,
    said: bytes,
    connect_timeout_s: float,
    timeout_s: float,
    expected: Fault,
    trust: ssl.SSLContext,
) -> None:
    async def behave(conversation: Conversation) -> None:
        await conversation.say(said)
        await silent()(conversation)

    async def main() -> None:
        async with RudeServer(behave) as server:
            url = server.url.replace("http:", "https:")
            transport = make(kind, url, ssl_context=trust, connect_timeout_s=connect_timeout_s)
            assert await begin(transport, timeout_s=timeout_s) is expected
            await transport.close()

    run(loop, main())


@pytest.mark.parametrize("said", [b"", _HELLO_BEGINS], ids=["nothing", "half a hello"])
@pytest.mark.parametrize("resets", [True, False])
def test_a_handshake_that_breaks_off_is_no_misconfiguration(
    kind: str, loop: str, said: bytes, trust: ssl.SSLContext, *, resets: bool
) -> None:
    """A load balancer that restarts does this: worth another try, and nothing was sent."""

    async def behave(conversation: Conversation) -> None:
        await conversation.reader.read(10)
        await conversation.say(said)
        if resets:
            conversation.reset()

    async def main() -> None:
        async with RudeServer(behave) as server:
            transport = make(kind, server.url.replace("http:", "https:"), ssl_context=trust)
            assert await begin(transport) is Fault.CONNECT
            await transport.close()

    run(loop, main())
