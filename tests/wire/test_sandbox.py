"""The sandbox over real sockets: what it says, how it misbehaves, and that its ledger is exact about both."""

import asyncio
import json
import ssl
from collections.abc import Callable, Coroutine
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import trustme
import uvloop

from consumer.errors import SettingsError
from consumer.sandbox.checker import Checker, Contract, Credentials
from consumer.sandbox.connection import BODY_MAX_BYTES, HEAD_MAX_BYTES
from consumer.sandbox.server import SUCCESS, Sandbox

CASES = json.loads((Path(__file__).parents[1] / "support" / "kochava_cases.json").read_text())
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1").configure_cert(context)
    return context


@cache
def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context


def event(event_id: str | None = "e-1", *, app: str = "koexample-1", name: str = "Purchase", **data: Any) -> bytes:
    body = {
        "action": "event",
        "kochava_app_id": app,
        "kochava_device_id": "",
        "data": {
            "event_name": name,
            "origination_ip": "203.0.113.7",
            "device_ver": "",
            "device_ua": "Roku%2FDVP-9.10",
            "device_ids": {"udid": "c6c47b69-1f5a"},
            "event_data": {} if event_id is None else {"event_id": event_id},
            **data,
        },
    }
    return json.dumps(body).encode()


def post(body: bytes, *headers: str, target: str = "/track/json", method: str = "POST") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Content-Type: application/json", "User-Agent: test/1", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def rule(do: dict[str, Any], **match: Any) -> list[dict[str, Any]]:
    return [{"match": match, "do": do}]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the sandbox has nobody to tell
        await asyncio.sleep(0)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A connection that says and reads bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        else:
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(head[0].split()[1]), headers, body)

    async def ask(self, data: bytes) -> Answer:
        self.say(data)
        return await self.answer()

    async def ends(self) -> bytes:
        """Return what still comes before an orderly end."""
        return await self.reader.read()

    def close(self) -> None:
        self.writer.transport.abort()


class Bench:
    """A sandbox and its clients."""

    def __init__(self, scheme: str, **options: Any) -> None:
        self.is_tls = scheme == "https"
        self.sandbox = Sandbox(ssl=server_context() if self.is_tls else None, **options)
        self._clients: list[Client] = []

    async def __aenter__(self) -> Self:
        await self.sandbox.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        await self.sandbox.close()

    async def client(self) -> Client:
        host, port = self.sandbox.url.partition("://")[2].split(":")
        client = Client(*await asyncio.open_connection(host, int(port), ssl=client_context() if self.is_tls else None))
        self._clients.append(client)
        return client

    async def ask(self, data: bytes) -> Answer:
        return await (await self.client()).ask(data)

    async def control(self, method: str, path: str, body: bytes = b"") -> Answer:
        return await self.ask(post(body, target=f"/_sandbox/{path}", method=method))


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a coroutine on each kind of loop; whatever the loop's exception handler is told fails the test."""
    troubles: list[dict[str, Any]] = []

    async def watched(main: Coroutine[Any, Any, None]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        async with asyncio.timeout(60):
            await main

    def run_it(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(watched(main))
        assert not troubles

    return run_it


Run = Callable[[Coroutine[Any, Any, None]], None]

# -- good manners


def test_a_good_event_is_accepted_and_counted(run: Run, scheme: str) -> None:
    async def main() -> None:
        async with Bench(scheme) as bench:
            answer = await bench.ask(post(event("e-1")))
            assert (answer.status, answer.body, answer.headers["content-type"]) == (200, SUCCESS, "application/json")
            entry = bench.sandbox.ledger["e-1"]
            assert (entry.app, entry.event, entry.seen, entry.accepted) == ("koexample-1", "Purchase", 1, 1)
            assert entry.statuses == (200,)
            assert bench.sandbox.endpoint == f"{bench.sandbox.url}/track/json"
            assert bench.sandbox.url.startswith(f"{scheme}://127.0.0.1:")

    run(main())


@pytest.mark.parametrize(
    ("on_finding", "status", "success", "accepted"),
    [("refuse", 200, "0", 0), ("record", 200, "1", 1)],
)
def test_a_breach_is_named_without_its_value(
    run: Run, scheme: str, on_finding: Any, status: int, success: str, accepted: int
) -> None:
    async def main() -> None:
        async with Bench(scheme, on_finding=on_finding) as bench:
            answer = await bench.ask(post(event(currency="eur", origination_ip="203.0.113.777")))
            assert (answer.status, answer.json["success"]) == (status, success)
            if on_finding == "refuse":
                assert answer.json["error"] == "invalid_ip data.origination_ip; invalid_currency data.currency"
            summary = bench.sandbox.summary()
            assert (summary["accepted"], summary["flawed"], summary["refused"]) == (accepted, 1, 1 - accepted)
            assert summary["findings"] == {"invalid_ip": 1, "invalid_currency": 1}
            assert bench.sandbox.ledger["e-1"].accepted == accepted

    run(main())


def test_unchecked_takes_anything(run: Run) -> None:
    async def main() -> None:
        async with Bench("http", checker=None) as bench:
            client = await bench.client()
            for body in (
                b"",
                b"[]",
                b"\xff",
                b'{"data":[]}',
                b'{"kochava_app_id":7,"data":{"event_data":{"event_id":7}}}',
            ):
                assert (await client.ask(post(body))).body == SUCCESS
            assert bench.sandbox.ledger.accepted_without_id == 5
        async with Bench("http") as bench:
            answer = await bench.ask(post(b"\xff"))
            assert answer.json == {"success": "0", "error": "not_json"}

    run(main())


def test_a_wrong_signature_is_unauthorized(run: Run) -> None:
    vector = CASES["strict_auth"]["vectors"][0]
    contract = Contract(credentials=Credentials(vector["api_key"], vector["app_secret"]))

    async def main() -> None:
        async with Bench("http", checker=Checker(contract)) as bench:
            client = await bench.client()
            body = vector["body_sent"].encode()
            answer = await client.ask(post(body))
            assert (answer.status, answer.json["error"].partition(";")[0]) == (
                401, "auth_missing header Kochava-Api-Key"
            )  # fmt: skip
            answer = await client.ask(post(body, *(f"{name}: {value}" for name, value in vector["headers"].items())))
            assert answer.status == 200, "signed; what else is wrong is the payload's"
            assert "auth" not in answer.json["error"]

    run(main())


def test_one_connection_carries_many(run: Run, scheme: str) -> None:
    async def main() -> None:
        async with Bench(scheme) as bench:
            client = await bench.client()
            for number in range(20):
                assert (await client.ask(post(event(f"e-{number}")))).body == SUCCESS
            await bench.control("GET", "summary")
            summary = bench.sandbox.summary()
            assert summary["accepted_ids"] == 20
            assert (summary["connections_opened"], summary["connections_with_events"]) == (2, 1)

    run(main())


def test_pipelined_requests_are_answered_in_order(run: Run, scheme: str) -> None:
    rules = [{"match": {"id_prefix": "slow"}, "do": {"latency_ms": 5, "status": 202}}]

    async def main() -> None:
        async with Bench(scheme, rules=rules) as bench:
            client = await bench.client()
            ids = [f"slow-{number}" if number % 50 == 0 else f"quick-{number}" for number in range(400)]
            client.say(b"".join(post(event(event_id)) for event_id in ids))
            for event_id in ids:
                assert (await client.answer()).status == (202 if event_id.startswith("slow") else 200)
            assert [line.id for line in bench.sandbox.ledger.log()] == ids

    run(main())


def test_a_client_that_does_not_read_is_not_read_either(run: Run) -> None:
    async def main() -> None:
        async with Bench("http", rules=[{"do": {"body": "x" * 200_000}}]) as bench:
            client = await bench.client()
            client.writer.transport.pause_reading()
            count = 400
            client.say(b"".join(post(event(f"e-{number}")) for number in range(count)))
            await until(lambda: bench.sandbox.ledger.requests >= 3)
            for _ in range(200):  # rounds of the loop in which it could go on
                await asyncio.sleep(0)
            assert bench.sandbox.ledger.requests < count / 2
            client.writer.transport.resume_reading()
            for _ in range(count):
                assert len((await client.answer()).body) == 200_000
            assert bench.sandbox.ledger.requests == count

    run(main())


def test_bodies_in_pieces(run: Run, scheme: str) -> None:
    body = event("e-1")
    head = b"POST /track/json HTTP/1.1\r\nHost: x\r\nUser-Agent: t\r\nContent-Type: application/json\r\n"
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"

    async def main() -> None:
        async with Bench(scheme) as bench:
            client = await bench.client()
            assert (await client.ask(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked)).body == SUCCESS
            for byte in post(body):
                client.say(bytes([byte]))
                await asyncio.sleep(0)
            assert (await client.answer()).body == SUCCESS
            client.say(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert (await client.ask(body)).body == SUCCESS
            assert bench.sandbox.ledger["e-1"].accepted == 3

    run(main())


def test_continue_waits_for_the_answer_before_it(run: Run) -> None:
    head = post(event("e-2"), "Expect: 100-continue")
    head = head[: head.index(b"\r\n\r\n") + 4]

    async def main() -> None:
        async with Bench("http", latency_ms=5) as bench:
            client = await bench.client()
            client.say(post(event("e-1")) + head)
            assert (await client.answer()).body == SUCCESS
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert (await client.ask(event("e-2"))).body == SUCCESS

    run(main())


@pytest.mark.parametrize("latency_ms", [0, 5])
def test_a_last_request_is_answered_and_the_connection_closed(run: Run, scheme: str, latency_ms: int) -> None:
    async def main() -> None:
        async with Bench(scheme, latency_ms=latency_ms) as bench:
            client = await bench.client()
            answer = await client.ask(post(event("e-1"), "Connection: close") + b"what follows is no request")
            assert (answer.body, answer.headers["connection"]) == (SUCCESS, "close")
            assert await client.ends() == b""
            old = b"POST /track/json HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}"
            assert (await (await bench.client()).ask(old)).headers["connection"] == "close"
            assert bench.sandbox.summary()["bad_requests"] == 0

    run(main())


def test_a_client_may_close_its_half_and_wait(run: Run) -> None:
    async def main() -> None:
        async with Bench("http", latency_ms=20) as bench:
            for extra in ((), ("Connection: close",)):
                client = await bench.client()
                client.say(post(event("e-1"), *extra))
                client.writer.write_eof()
                assert (await client.answer()).body == SUCCESS
                assert await client.ends() == b""

    run(main())


# -- bad manners of the client


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"hello\r\n\r\n", 400),
        (b"POST /track/json HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /track/json HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
        (b"POST /track/json HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST /track/json HTTP/1.1\r\nX: " + b"x" * 8 * HEAD_MAX_BYTES, 431),
        (b"POST /track/json HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % BODY_MAX_BYTES, 413),
        (
            b"POST /track/json HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % BODY_MAX_BYTES,
            413,
        ),
        (post(b"x" * BODY_MAX_BYTES), 413),
        (
            b"POST /track/json HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % BODY_MAX_BYTES
            + b"x" * BODY_MAX_BYTES,
            413,
        ),
    ],
)
@pytest.mark.parametrize("latency_ms", [0, 5])
def test_what_is_no_request_is_turned_away_in_its_turn(
    run: Run, scheme: str, data: bytes, status: int, latency_ms: int
) -> None:
    async def main() -> None:
        async with Bench(scheme, latency_ms=latency_ms) as bench:
            client = await bench.client()
            client.say(post(event("e-1")) + data)
            assert (await client.answer()).body == SUCCESS
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (status, "close")
            summary = bench.sandbox.summary()
            assert (summary["requests"], summary["bad_requests"]) == (1, 1)

    run(main())


def test_the_largest_body_is_just_below_two_mebibytes(run: Run) -> None:
    async def main() -> None:
        async with Bench("http", checker=None) as bench:
            assert (await bench.ask(post(b"x" * (BODY_MAX_BYTES - 1)))).body == SUCCESS

    run(main())


def test_other_paths_and_methods(run: Run) -> None:
    async def main() -> None:
        async with Bench("http") as bench:
            client = await bench.client()
            assert (await client.ask(post(event(), target="/track/jsonx"))).status == 404
            assert (await client.ask(post(b"", method="GET"))).status == 405
            assert (await client.ask(post(event(), "Upgrade: h2c", "Connection: Upgrade"))).status == 501
            assert await client.ends() == b""
            client = await bench.client()
            assert (await client.ask(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")).status == 404
            assert await client.ends() == b""
            assert bench.sandbox.ledger.requests == 0

    run(main())


def test_clients_that_leave_leave_nothing_behind(run: Run, scheme: str) -> None:
    rules = [
        *rule({"latency_ms": 500_000}, id="slow"),
        *rule({"action": "hang"}, id="hang"),
        *rule({"drip_ms": 500_000}, id="drip"),
    ]
    expected = 2

    async def main() -> None:
        async with Bench(scheme, rules=rules) as bench:
            for event_id in ("slow", "hang", "drip"):
                client = await bench.client()
                client.say(post(event(event_id)))
                await until(partial(bench.sandbox.ledger.__contains__, event_id))
                client.close()
            # An orderly end over plain http may be that of one half only: the slow answer may still be wanted.
            await until(lambda: bench.sandbox.connections_open == (0 if bench.is_tls else expected))
            assert bench.sandbox.ledger["slow"].accepted == 1, "counted on arrival, whoever waits for the answer"

    run(main())


# -- misbehaviour


@pytest.mark.parametrize(
    ("do", "status", "body", "accepted"),
    [
        ({"status": 503, "headers": {"Retry-After": "2"}}, 503, b"", 0),
        ({"status": 503, "body": "later"}, 503, b"later", 0),
        ({"status": 500, "accepted": True}, 500, b"", 1),
        ({"status": 201}, 201, SUCCESS, 1),
        ({"status": 204}, 204, b"", 1),
        ({"status": 599}, 599, b"", 0),
        ({"action": "refuse"}, 200, b'{"success":"0","error":"refused by a rule of the sandbox"}', 0),
        ({"body": {"success": "0"}}, 200, b'{"success":"0"}', 0),
        ({"body": {"success": 1}}, 200, b'{"success":1}', 1),
        ({"body": ""}, 200, b"", 0),
        ({"body": "", "accepted": True}, 200, b"", 1),
        ({"accepted": False}, 200, SUCCESS, 0),
        ({"drip_ms": 0.1}, 200, SUCCESS, 1),
        ({"drip_ms": 0.1, "status": 503}, 503, b"", 0),
        ({"latency_ms": "uniform:1:3"}, 200, SUCCESS, 1),
        ({"latency_ms": 2, "status": 429}, 429, b"", 0),
        ({"action": "redirect"}, 302, b"", 0),
        ({"action": "redirect", "status": 307, "headers": {"location": "/x"}}, 307, b"", 0),
    ],
    ids=str,
)
def test_answers_by_rule(run: Run, scheme: str, do: dict[str, Any], status: int, body: bytes, accepted: int) -> None:
    async def main() -> None:
        async with Bench(scheme, rules=rule(do, id="e-1")) as bench:
            client = await bench.client()
            answer = await client.ask(post(event("e-1")))
            assert answer.status == status
            assert answer.body == (b"" if status == 204 else body)
            for name, value in do.get("headers", {}).items():
                assert answer.headers[name.lower()] == value
            assert (await client.ask(post(event("e-2")))).body == SUCCESS, "the connection lives on"
            entry = bench.sandbox.ledger["e-1"]
            assert (entry.seen, entry.accepted, entry.statuses) == (1, accepted, (status,))
            assert bench.sandbox.ledger.accepted == accepted + 1

    run(main())


def test_an_interim_answer_comes_before_the_one_that_counts(run: Run) -> None:
    async def main() -> None:
        async with Bench("http", rules=rule({"early_hints": True}, id="e-1")) as bench:
            client = await bench.client()
            interim = await client.ask(post(event("e-1")))
            assert interim.status == 103
            assert "link" in interim.headers
            assert (await client.answer()).body == SUCCESS
            assert (await client.ask(post(event("e-2")))).status == 200
            assert bench.sandbox.ledger["e-1"].statuses == (200,)

    run(main())


@pytest.mark.parametrize("case", [case for case in CASES["response_classification"] if case["status"]], ids=str)
def test_every_answer_of_the_public_cases_can_be_given(run: Run, case: dict[str, Any]) -> None:
    do = {key: case[key] for key in ("status", "body") if key in case}

    async def main() -> None:
        async with Bench("http", rules=rule(do)) as bench:
            answer = await bench.ask(post(event("e-1")))
            assert (answer.status, answer.body.decode()) == (case["status"], case.get("body", ""))
            assert bench.sandbox.ledger.accepted == (case["class"] == "delivered")

    run(main())


def test_wrong_content(run: Run, scheme: str) -> None:
    async def main() -> None:
        async with Bench(scheme, rules=rule({"action": "html"})) as bench:
            answer = await bench.ask(post(event("e-1")))
            assert (answer.status, answer.headers["content-type"]) == (200, "text/html")
            assert answer.body.startswith(b"<!doctype html>")
            assert bench.sandbox.ledger["e-1"].accepted == 0

    run(main())


@pytest.mark.parametrize("latency_ms", [0, 3])
@pytest.mark.parametrize(("action", "accepted"), [("reset_before", 0), ("reset_after", 1)])
def test_resets(run: Run, scheme: str, action: str, accepted: int, latency_ms: int) -> None:
    async def main() -> None:
        rules = rule({"action": action, "latency_ms": latency_ms}, first_tries=1)
        async with Bench(scheme, rules=rules) as bench:
            client = await bench.client()
            client.say(post(event("e-1")))
            with pytest.raises(ConnectionResetError):
                await client.ends()
            assert (await bench.ask(post(event("e-1")))).body == SUCCESS
            entry = bench.sandbox.ledger["e-1"]
            assert (entry.seen, entry.accepted, entry.statuses) == (2, accepted + 1, (action, 200))
            assert bench.sandbox.ledger.duplicates == accepted

    run(main())


def test_a_flawed_event_is_not_accepted_by_a_reset_after(run: Run) -> None:
    async def main() -> None:
        async with Bench("http", rules=rule({"action": "reset_after"})) as bench:
            client = await bench.client()
            client.say(post(event("e-1", currency="eur")))
            with pytest.raises(ConnectionResetError):
                await client.ends()
            assert bench.sandbox.ledger["e-1"].accepted == 0

    run(main())


def test_hang_never_answers(run: Run, scheme: str) -> None:
    async def main() -> None:
        async with Bench(scheme, rules=rule({"action": "hang"}, id="e-1")) as bench:
            client = await bench.client()
            client.say(post(event("e-1")) + post(event("e-2")))
            await until(lambda: "e-1" in bench.sandbox.ledger)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.reader.read(1), 0.05)
            assert (await bench.ask(post(event("e-3")))).body == SUCCESS, "others are served"
            assert bench.sandbox.ledger["e-1"].accepted == 0
            assert "e-2" not in bench.sandbox.ledger, "it waits behind one that never ends"

    run(main())


@pytest.mark.parametrize("close", ["announced", "silent"])
def test_close_behind_an_answer(run: Run, scheme: str, close: str) -> None:
    async def main() -> None:
        async with Bench(scheme, rules=rule({"close": close})) as bench:
            client = await bench.client()
            answer = await client.ask(post(event("e-1")))
            assert (answer.body, answer.headers.get("connection")) == (
                SUCCESS, "close" if close == "announced" else None
            )  # fmt: skip
            assert await client.ends() == b""

    run(main())


def test_answers_overtake_each_other_on_different_connections(run: Run) -> None:
    async def main() -> None:
        async with Bench("http", rules=rule({"latency_ms": 300_000}, id="slow")) as bench:
            slow, quick = await bench.client(), await bench.client()
            slow.say(post(event("slow")))
            assert (await quick.ask(post(event("quick")))).body == SUCCESS

    run(main())


# -- the control API


def rows(answer: Answer) -> list[Any]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.splitlines()]


def test_the_ledger_and_the_log_can_be_read_while_it_runs(run: Run, scheme: str) -> None:
    async def main() -> None:
        async with Bench(scheme, rules=rule({"status": 503}, first_tries=1, app="b")) as bench:
            client = await bench.client()
            await client.ask(post(event("x", app="a", name="View")))
            for _ in range(3):
                await client.ask(post(event("y y&é", app="b")))
            ledger = rows(await bench.control("GET", "ledger"))
            assert [
                (row["id"], row["app"], row["event"], row["seen"], row["accepted"], row["statuses"]) for row in ledger
            ] == [("x", "a", "View", 1, 1, [200]), ("y y&é", "b", "Purchase", 3, 2, [503, 200, 200])]
            assert all(row["first_ms"] <= row["last_ms"] for row in ledger)
            assert rows(await bench.control("GET", "ledger?id=y%20y%26%C3%A9")) == ledger[1:]
            assert rows(await bench.control("GET", "ledger?id=z")) == []
            log = rows(await bench.control("GET", "log"))
            assert [(row["seq"], row["id"], row["status"], row["accepted"]) for row in log] == [
                (1, "x", 200, True),
                (2, "y y&é", 503, False),
                (3, "y y&é", 200, True),
                (4, "y y&é", 200, True),
            ]
            assert rows(await bench.control("GET", "log?after=2")) == log[2:]
            assert rows(await bench.control("GET", "log?after=1&limit=2")) == log[1:3]
            summary = (await bench.control("GET", "summary")).json
            assert (summary["requests"], summary["accepted"], summary["duplicates"]) == (4, 3, 1)
            assert summary["answers"] == {"200": 3, "503": 1}
            assert summary["by_app"] == {"a": {"requests": 1, "accepted": 1}, "b": {"requests": 3, "accepted": 2}}
            assert summary["rules"] == [{"name": "", "fired": 1}]

    run(main())


def test_a_long_ledger_is_streamed(run: Run, scheme: str) -> None:
    async def main() -> None:
        async with Bench(scheme) as bench:
            for number in range(20_000):
                bench.sandbox.ledger.record(f"event-{number}", "app", "View", 200, True, 0.0)
            client = await bench.client()
            client.say(post(b"", target="/_sandbox/ledger", method="GET") + post(event("after")))
            ledger = rows(await client.answer())
            assert [row["id"] for row in ledger] == [f"event-{number}" for number in range(20_000)]
            assert (await client.answer()).body == SUCCESS

    run(main())


def test_rules_are_replaced_while_it_runs(run: Run, scheme: str) -> None:
    async def main() -> None:
        async with Bench(scheme) as bench:
            rules = [{"name": "down", "match": {"limit": 1}, "do": {"status": 503, "latency_ms": "1"}}]
            answer = await bench.control("PUT", "rules", json.dumps(rules).encode())
            assert (answer.status, answer.json) == (200, rules)
            assert (await bench.control("GET", "rules")).json == rules
            client = await bench.client()
            assert [(await client.ask(post(event("e-1")))).status for _ in range(2)] == [503, 200]
            wrong = await bench.control("PUT", "rules", b'[{"do": {"status": 1}}]')
            assert (wrong.status, len(wrong.json["problems"])) == (400, 1)
            assert (await bench.control("GET", "rules")).json == rules
            assert (await bench.control("POST", "reset")).status == 200
            assert (bench.sandbox.ledger.requests, len(bench.sandbox.ledger)) == (0, 0)
            assert (await client.ask(post(event("e-1")))).status == 503, "the rule's count began anew"
            assert (await bench.control("PUT", "rules", b"[]")).json == []
            assert (await client.ask(post(event("e-1")))).status == 200
            assert bench.sandbox.summary()["connections_with_events"] == 1

    run(main())


def test_the_control_api_explains_itself(run: Run) -> None:
    async def main() -> None:
        async with Bench("http") as bench:
            assert b"/_sandbox/summary" in (await bench.control("GET", "")).body
            assert "mixed_platforms" in (await bench.control("GET", "findings")).json
            assert (await bench.control("GET", "nothing")).status == 404
            assert (await bench.control("DELETE", "rules")).status == 405
            assert (await bench.control("GET", "log?after=x")).status == 400
            assert bench.sandbox.ledger.requests == 0

    run(main())


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(SettingsError):
        Sandbox(rules=[{"do": {"status": 1}}])
    with pytest.raises(SettingsError):
        Sandbox(latency_ms="soon")
