"""The admin server on a real socket: what the probes say, and what a rude client cannot do."""

import asyncio
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from ipaddress import ip_address

import httpx
import pytest
import uvloop
from hypothesis import given, settings, strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from consumer.adapters.admin_server import MAX_CONNECTIONS, MAX_REQUEST_BYTES, AdminServer, parse_listen
from consumer.core.outcome import Answer
from consumer.errors import SettingsError
from consumer.health import Health
from consumer.settings import Admin as AdminSettings
from consumer.telemetry import Metrics
from tests.support.rude_server import OK_BODY, RudeServer, always, answer
from tests.support.transports import KINDS, begin, make

PROBE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


class FixedClock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0


class Admin:
    """The server under test and what it answers from."""

    def __init__(self, *, listen: str = "127.0.0.1:0", exchange_timeout_s: float = 60.0) -> None:
        self.health = Health(stuck_after_s=120.0)
        self.metrics = Metrics()
        self.clock = FixedClock()
        self.server = AdminServer(listen, self.health, self.metrics, self.clock, exchange_timeout_s=exchange_timeout_s)

    async def get(self, path: str, **more: object) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"http://127.0.0.1:{self.server.port}{path}", **more)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.server.port)

    async def say(self, request: bytes) -> bytes:
        """Send *request* and return all that comes until the server closes."""
        reader, writer = await self.connect()
        writer.write(request)
        try:
            return await reader.read()
        finally:
            writer.close()


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - the server says nothing of its connections, and need not
        await asyncio.sleep(0.002)


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the server ends the connection, be it by a reset."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


@asynccontextmanager
async def serving(**settings: object) -> AsyncIterator[Admin]:
    admin = Admin(**settings)
    await admin.server.start()
    try:
        yield admin
    finally:
        await admin.server.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    def run(work: Awaitable[None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(work)

    return run


class TestProbes:
    def test_a_process_that_has_not_joined_is_alive_and_neither_started_nor_ready(self, run) -> None:
        async def work() -> None:
            async with serving() as admin:
                assert (await admin.get("/livez")).status_code == 200
                for path in ("/startupz", "/readyz"):
                    answer = await admin.get(path)
                    assert answer.status_code == 503
                    assert answer.text == "group: not joined yet\n"

        run(work())

    def test_a_process_that_works_is_well(self, run) -> None:
        async def work() -> None:
            async with serving() as admin:
                admin.health.set_started()
                admin.health.beat_kafka(admin.clock.now - 120)
                admin.health.beat_loop(admin.clock.now)
                for path in ("/livez", "/startupz", "/readyz", "/readyz?verbose"):
                    answer = await admin.get(path)
                    assert (answer.status_code, answer.text) == (200, "ok\n")
                    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
                    assert answer.headers["connection"] == "close"

        run(work())

    def test_not_ready_says_why_one_reason_a_line_and_stays_alive_and_started(self, run) -> None:
        async def work() -> None:
            async with serving() as admin:
                admin.health.set_started()
                admin.health.not_ready("shutdown", "draining")
                admin.health.not_ready("breaker", "http_404")
                answer = await admin.get("/readyz")
                assert (answer.status_code, answer.text) == (503, "breaker: http_404\nshutdown: draining\n")
                assert (await admin.get("/livez")).status_code == 200
                assert (await admin.get("/startupz")).status_code == 200
                admin.health.ready_again("breaker")
                admin.health.ready_again("breaker")
                assert (await admin.get("/readyz")).text == "shutdown: draining\n"

        run(work())

    @pytest.mark.parametrize(("name", "thread"), [("kafka", "the Kafka thread"), ("loop", "the event loop")])
    def test_a_thread_that_stands_still_fails_liveness(self, run, name: str, thread: str) -> None:
        async def work() -> None:
            async with serving() as admin:
                setattr(admin.health, f"{name}_heartbeat", admin.clock.now - 120.5)
                answer = await admin.get("/livez")
                assert (answer.status_code, answer.text) == (503, f"{thread} has not moved for 120 s\n")

        run(work())


class TestMetricsPage:
    def test_both_formats(self, run) -> None:
        async def work() -> None:
            async with serving() as admin:
                admin.metrics.events_consumed.add(("events",), 5)
                plain = await admin.get("/metrics", headers={"Accept": "*/*"})
                opened = await admin.get("/metrics", headers={"aCCept": "application/openmetrics-text; version=1.0.0"})
                assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
                assert opened.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
                for text, parse in ((plain.text, parse_text), (opened.text, parse_openmetrics)):
                    values = {sample.name: sample.value for family in parse(text) for sample in family.samples}
                    assert values["kochava_events_consumed_total"] == 5

        run(work())

    def test_a_bug_in_a_gauge_fails_the_scrape_and_nothing_else(self, run) -> None:
        async def work() -> None:
            async with serving() as admin:
                asyncio.get_running_loop().set_exception_handler(lambda *_: None)
                admin.metrics.connections_open.read_from(lambda: 1 // 0)
                assert await admin.say(b"GET /metrics HTTP/1.1\r\n\r\n") == b""
                assert (await admin.get("/livez")).status_code == 200

        run(work())


class TestBadRequests:
    @pytest.mark.parametrize(
        ("request_bytes", "status", "more"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", 404, b"/livez, /readyz, /startupz, /metrics"),
            (b"GET /livez/../metrics HTTP/1.1\r\n\r\n", 404, b""),
            (b"POST /livez HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", 405, b"Allow: GET\r\n"),
            (b"HEAD /metrics HTTP/1.1\r\n\r\n", 405, b""),
            (b"GET /livez HTTP/2.0\r\n\r\n", 400, b""),
            (b"GET  /livez HTTP/1.1\r\n\r\n", 400, b""),
            (b"\x16\x03\x01\x02\x00\r\n\r\n", 400, b""),
            (b"\r\n\r\n", 400, b""),
            (b"GET /livez HTTP/1.1\r\nX: " + b"x" * MAX_REQUEST_BYTES + b"\r\n\r\n", 431, b"too large"),
            (b"x" * 60_000, 431, b""),
        ],
    )  # fmt: skip
    def test_get_a_status_and_a_closed_connection(self, run, request_bytes: bytes, status: int, more: bytes) -> None:
        async def work() -> None:
            async with serving() as admin:
                answer = await admin.say(request_bytes)
                assert answer.startswith(f"HTTP/1.1 {status} ".encode())
                assert more in answer
                head, _, body = answer.partition(b"\r\n\r\n")
                assert f"Content-Length: {len(body)}".encode() in head

        run(work())

    def test_an_oversized_request_is_told_so_although_it_was_not_read(self, run) -> None:
        """Wrong design excluded: closing on unread bytes, which resets the connection and takes the answer with it."""

        async def work() -> None:
            loop = asyncio.get_running_loop()
            async with serving() as admin:
                with socket.socket() as client:
                    client.setblocking(False)
                    await loop.sock_connect(client, ("127.0.0.1", admin.server.port))
                    await loop.sock_sendall(client, b"x" * 20_000)
                    await admin.say(PROBE)  # accepted after the first
                    await loop.sock_sendall(client, b"x" * 20_000)
                    client.shutdown(socket.SHUT_WR)
                    await until(lambda: not admin.server._open)
                    assert (await loop.sock_recv(client, 9000)).startswith(b"HTTP/1.1 431 ")

        run(work())

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.binary(max_size=300) | st.sampled_from([b"GET /metrics HTTP/1.1", b"\r\n", b"Accept: "])))
    def test_any_bytes_get_an_answer_or_nothing_and_hurt_nobody(self, parts: list[bytes]) -> None:
        failed: list[object] = []

        async def work() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
            async with serving() as admin:
                reader, writer = await admin.connect()
                writer.write(b"".join(parts))
                writer.write_eof()
                answer = await reader.read()
                writer.close()
                assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
                assert (await admin.say(PROBE)).startswith(b"HTTP/1.1 200 ")

        asyncio.run(work())
        assert not failed


class TestRudeClients:
    def test_a_request_that_drips_is_cut_off_in_time(self, run) -> None:
        """Wrong design excluded: a timeout per read, which a byte now and then keeps alive for ever."""

        async def work() -> None:
            async with serving(exchange_timeout_s=0.2) as admin:
                reader, writer = await admin.connect()
                ended = asyncio.ensure_future(rest_of(reader))
                while not ended.done():
                    writer.write(b"G")
                    await asyncio.sleep(0.01)
                writer.close()
                assert ended.result() == b""

        run(work())

    def test_a_client_that_never_reads_is_dropped_in_time(self, run) -> None:
        async def work() -> None:
            async with serving(exchange_timeout_s=0.2) as admin:
                for number in range(9000):  # far more than the socket's buffers hold
                    admin.metrics.events_dead_lettered.add((f"{number:0500d}", "app"))
                rude = socket.socket()
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                rude.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(rude, ("127.0.0.1", admin.server.port))
                await loop.sock_sendall(rude, b"GET /metrics HTTP/1.1\r\n\r\n")
                await until(lambda: bool(admin.server._open))
                await until(lambda: not admin.server._open)
                rude.close()

        run(work())

    def test_when_connections_run_out_the_oldest_goes_and_a_probe_comes_through(self, run) -> None:
        async def work() -> None:
            async with serving() as admin:
                idle = [await admin.connect() for _ in range(MAX_CONNECTIONS)]
                await until(lambda: len(admin.server._open) == MAX_CONNECTIONS)
                assert (await admin.say(PROBE)).startswith(b"HTTP/1.1 200 ")
                assert len(admin.server._open) <= MAX_CONNECTIONS
                assert await rest_of(idle[0][0]) == b""
                writer = idle[-1][1]  # a younger one is still served
                writer.write(PROBE)
                assert (await idle[-1][0].read()).startswith(b"HTTP/1.1 200 ")
                for _, writer in idle:
                    writer.close()

        run(work())

    def test_a_probe_that_came_first_is_answered_before_a_flood_pushes_it_out(self, run) -> None:
        """Wrong design excluded: accepting more at once than there is room for, before anything is read."""

        async def work() -> None:
            loop = asyncio.get_running_loop()
            async with serving() as admin:
                address = ("127.0.0.1", admin.server.port)
                with ExitStack() as stack:  # all of it happens before the loop accepts the first
                    probe = stack.enter_context(socket.create_connection(address))
                    probe.sendall(PROBE)
                    probe.setblocking(False)
                    for _ in range(300):
                        idle = stack.enter_context(socket.socket())
                        idle.setblocking(False)
                        idle.connect_ex(address)
                    assert (await loop.sock_recv(probe, 9000)).startswith(b"HTTP/1.1 200 ")

        run(work())

    @pytest.mark.parametrize("kind", KINDS)
    def test_two_hundred_slow_clients_hurt_neither_probes_nor_deliveries(self, run, kind: str) -> None:
        async def work() -> None:
            loop = asyncio.get_running_loop()

            async def drip(clients: list[socket.socket]) -> None:
                while True:
                    for client in clients:
                        with suppress(OSError):  # pushed out
                            client.send(b"G")
                    await asyncio.sleep(0.01)

            async with serving() as admin, RudeServer(always(answer())) as kochava:
                with ExitStack() as stack:
                    clients = [stack.enter_context(socket.socket()) for _ in range(200)]
                    for client in clients:
                        client.setblocking(False)
                        await loop.sock_connect(client, ("127.0.0.1", admin.server.port))
                    await until(lambda: len(admin.server._open) == MAX_CONNECTIONS)
                    dripping = asyncio.create_task(drip(clients))
                    transport = make(kind, kochava.url)
                    for _ in range(10):
                        answers = await asyncio.gather(*(begin(transport, timeout_s=50) for _ in range(20)))
                        assert set(answers) == {Answer(200, OK_BODY)}
                        assert (await admin.say(PROBE)).startswith(b"HTTP/1.1 200 ")
                        assert 1 < len(admin.server._open) <= MAX_CONNECTIONS, "they are still at it"
                    dripping.cancel()
                    await transport.close()

        run(work())

    @pytest.mark.parametrize(
        "request_bytes",
        [
            pytest.param(b"x" * 10_000_000, id="a line without end"),
            pytest.param(b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 1_000_000, id="headers without end"),
            pytest.param(b"GET /metrics HTTP/1.1\r\n\r\n" + b"x" * 10_000_000, id="a body"),
            pytest.param(PROBE * 100_000, id="a hundred thousand requests"),
        ],
    )
    def test_what_is_too_much_is_not_read(self, run, request_bytes: bytes) -> None:
        """Wrong design excluded: reading a request to its end, however long, before judging it."""

        async def work() -> None:
            loop = asyncio.get_running_loop()

            async def send(admin: Admin) -> None:
                with socket.socket() as client:
                    client.setblocking(False)
                    await loop.sock_connect(client, ("127.0.0.1", admin.server.port))
                    with suppress(ConnectionError):
                        await loop.sock_sendall(client, request_bytes)
                        while await loop.sock_recv(client, 65_536):
                            pass

            async with serving() as admin:
                tracemalloc.start()
                try:
                    await asyncio.gather(*(send(admin) for _ in range(20)))
                    _, peak = tracemalloc.get_traced_memory()
                finally:
                    tracemalloc.stop()
                assert peak < 10_000_000, "less than one of the twenty"
                await until(lambda: not admin.server._open)
                assert (await admin.say(PROBE)).startswith(b"HTTP/1.1 200 ")

        run(work())

    def test_a_second_request_on_a_connection_gets_no_answer(self, run) -> None:
        async def work() -> None:
            async with serving() as admin:
                answer = await admin.say(PROBE * 5)
                assert answer.count(b"HTTP/1.1 ") == 1

        run(work())

    def test_a_client_that_has_closed_its_side_gets_its_answer(self, run) -> None:
        async def work() -> None:
            async with serving() as admin:
                for request, status in (
                    (b"GET /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 "),
                    (b"GET /met", b""),
                    (b"", b""),
                ):
                    reader, writer = await admin.connect()
                    writer.write(request)
                    writer.write_eof()
                    said = await rest_of(reader)
                    assert said[:13] == status
                    writer.close()
                await until(lambda: not admin.server._open)

        run(work())

    def test_a_client_that_resets_is_no_news(self, run) -> None:
        failed: list[object] = []

        async def work() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
            async with serving() as admin:
                for request in (b"", b"GET /liv", PROBE):
                    _, writer = await admin.connect()
                    writer.write(request)
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    writer.transport.abort()
                assert (await admin.say(PROBE)).startswith(b"HTTP/1.1 200 ")
                await until(lambda: not admin.server._open)

        run(work())
        assert not failed

    def test_close_waits_for_nobody(self, run) -> None:
        async def work() -> None:
            async with serving() as admin:
                reader, writer = await admin.connect()
                await until(lambda: bool(admin.server._open))
                await admin.server.close()
                assert not admin.server._open
                assert admin.server.port is None
                assert await rest_of(reader) == b""
                writer.close()

        run(work())


class TestListening:
    def test_on_loopback_alone_if_nothing_else_is_said(self, run) -> None:
        host, _ = parse_listen(AdminSettings().listen)
        assert ip_address(host).is_loopback

        async def work() -> None:
            async with serving(listen=f"{host}:0") as admin:
                addresses = {sock.getsockname()[0] for sock in admin.server._server.sockets}
                assert addresses == {host}

        run(work())

    @pytest.mark.parametrize(
        ("listen", "address"),
        [
            ("127.0.0.1:9464", ("127.0.0.1", 9464)),
            ("localhost:0", ("localhost", 0)),
            ("[::1]:9464", ("::1", 9464)),
            ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        ],
    )
    def test_an_address_is_host_and_port(self, listen: str, address: tuple[str, int]) -> None:
        assert parse_listen(listen) == address

    @pytest.mark.parametrize("listen", ["", "9464", ":9464", "host:", "host:x", "h:65536", "::1:9464", "[]:1", "[h]:1"])
    def test_anything_else_is_refused_with_an_example(self, listen: str) -> None:
        with pytest.raises(SettingsError, match=r"127\.0\.0\.1:9464"):
            parse_listen(listen)

    def test_nowhere_if_empty(self, run) -> None:
        async def work() -> None:
            async with serving(listen="") as admin:
                assert admin.server.port is None

        run(work())

    def test_on_ipv6(self, run) -> None:
        try:
            with socket.create_server(("::1", 0), family=socket.AF_INET6):
                pass
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")

        async def work() -> None:
            async with serving(listen="[::1]:0") as admin:
                reader, writer = await asyncio.open_connection("::1", admin.server.port)
                writer.write(PROBE)
                assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
                writer.close()

        run(work())

    def test_a_port_in_use_is_an_error_that_says_what_to_do(self, run) -> None:
        async def work() -> None:
            async with serving() as admin:
                second = Admin(listen=f"127.0.0.1:{admin.server.port}")
                with pytest.raises(SettingsError, match=r"cannot listen on 127\.0\.0\.1:\d+ .*choose another"):
                    await second.server.start()
                await second.server.close()

        run(work())
