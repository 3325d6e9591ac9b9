"""The stand-in Kochava: takes events, checks them, counts them, and misbehaves as its rules say.

What is decided here is the order: a request is parsed and checked, a rule may choose, and then, in the same step of the
event loop, it is counted and its answer fixed. Whatever happens later to the connection changes nothing in the ledger.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import lru_cache
from ssl import SSLContext
from types import TracebackType
from typing import Any, Literal, Self

import orjson

from consumer.sandbox import control
from consumer.sandbox.behaviour import NO_LATENCY, Behaviour, Do, Latency, Rule, read_latency, read_rules
from consumer.sandbox.checker import Checker
from consumer.sandbox.connection import Connection
from consumer.sandbox.findings import Finding
from consumer.sandbox.ledger import IDS_MAX_ENTRIES, LOG_MAX_ENTRIES, Ledger, Status
from consumer.sandbox.wire import Reply, Request, render

PATH = b"/track/json"
ERROR_MAX_FINDINGS = 20
"""A refusal names no more of them."""
BACKLOG_CONNECTIONS = 4096

SUCCESS = b'{"success":"1"}'
_EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n"
_HTML = b"<!doctype html><html><body><h1>Sign in to continue</h1></body></html>"
_KEEP = Reply(render(200, SUCCESS))
_CLOSE = Reply(render(200, SUCCESS, announce_close=True), then="close")
_AUTH_HEADERS = {"auth_missing", "auth_wrong"}


class Sandbox:
    """A stand-in Kochava on a port of its own; `async with Sandbox() as sandbox:` in tests."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ssl: SSLContext | None = None,
        rules: Sequence[Rule | dict[str, Any]] = (),
        latency_ms: Latency | str | float = NO_LATENCY,
        checker: Checker | None = Checker(),  # noqa: B008 - it has no state
        on_finding: Literal["refuse", "record"] = "refuse",
        seed: int = 0,
        ids_max_entries: int = IDS_MAX_ENTRIES,
        log_max_entries: int = LOG_MAX_ENTRIES,
    ) -> None:
        """Take the settings; `start` opens the port.

        Args:
            host: The address to listen on.
            port: 0 takes any free one.
            ssl: A server-side context, for https.
            rules: How to misbehave, the first match wins.
            latency_ms: Of every answer that no rule delays.
            checker: None leaves payloads unchecked, for benchmarks.
            on_finding: What becomes of an event that breaks the contract: `refuse` answers so and doesn't accept it.
            seed: Of everything random.
            ids_max_entries: How many event ids the ledger has room for.
            log_max_entries: How many of the last requests the log remembers.
        """
        self._host, self._port, self._ssl = host, port, ssl
        self._checker = checker
        self._refuses = on_finding == "refuse"
        self._seed = seed
        self._latency = latency_ms if isinstance(latency_ms, Latency) else read_latency(latency_ms)
        self._behaviour = Behaviour(read_rules(rules), self._latency, seed)
        self._bounds = ids_max_entries, log_max_entries
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._connections_opened = self._connections_with_events = self._bad_requests = 0
        self.ledger = Ledger(*self._bounds)

    # -- life

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self, loop), self._host, self._port, ssl=self._ssl, backlog=BACKLOG_CONNECTIONS
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
            for connection in tuple(self._connections):
                connection.drop()
            await self._server.wait_closed()
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def url(self) -> str:
        """Scheme, host and port, without a slash behind."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._ssl is None else 'https'}://{host}:{self._port}"

    @property
    def endpoint(self) -> str:
        """What `kochava.endpoint` is set to."""
        return self.url + PATH.decode()

    # -- what the control API and the command use

    @property
    def connections_open(self) -> int:
        return len(self._connections)

    def summary(self) -> dict[str, object]:
        """Return all totals, ready for JSON."""
        rules = zip(self._behaviour.rules, self._behaviour.fired, strict=True)
        return {
            **self.ledger.summary(),
            "rules": [{"name": rule.name, "fired": fired} for rule, fired in rules],
            "connections_opened": self._connections_opened,
            "connections_with_events": self._connections_with_events,
            "connections_open": self.connections_open,
            "bad_requests": self._bad_requests,
        }

    def dump_rules(self) -> list[dict[str, object]]:
        return self._behaviour.dump()

    def set_rules(self, given: bytes | Sequence[Rule | dict[str, Any]]) -> None:
        """Replace all rules, their counts begin anew.

        Raises:
            SettingsError: and nothing has changed.
        """
        self._behaviour = Behaviour(read_rules(given), self._latency, self._seed)

    def reset(self) -> None:
        """Forget everything counted; the rules stay, and their counts begin anew."""
        self.ledger = Ledger(*self._bounds)
        self._behaviour = Behaviour(self._behaviour.rules, self._latency, self._seed)
        self._connections_opened = self._connections_with_events = self._bad_requests = 0
        for connection in self._connections:
            connection.has_sent_events = False

    # -- what connections call

    def opened(self, connection: Connection) -> None:
        self._connections_opened += 1
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def turned_away(self, status: int) -> None:  # noqa: ARG002 - the connection has said it already
        self._bad_requests += 1

    def serve(self, request: Request, connection: Connection) -> Reply:
        method, target, headers, body, keep_alive = request
        if target == PATH:
            if method == b"POST":
                if not connection.has_sent_events:
                    connection.has_sent_events = True
                    self._connections_with_events += 1
                return self._take(headers, body, keep_alive)
            reply = Reply(render(405, b"", (("Allow", "POST"),)))
        elif target.startswith(control.PREFIX):
            reply = control.answer(self, request)
        else:
            self._bad_requests += 1
            reply = Reply(render(404, b'{"error":"events go to /track/json, see GET /_sandbox"}'))
        return reply if keep_alive else reply._replace(then="close")

    def _take(self, headers: dict[bytes, bytes], body: bytes, keep_alive: bool) -> Reply:
        app = event = event_id = payload = None
        findings: list[Finding] | None = None
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError:
            findings = [Finding("not_json", "")]
        if type(payload) is dict:
            app = payload.get("kochava_app_id")
            if type(data := payload.get("data")) is dict:
                event = data.get("event_name")
                if type(properties := data.get("event_data")) is dict:
                    event_id = properties.get("event_id")
            # A name of another type is the checker's to report; the ledger has only text.
            app = app if type(app) is str else None
            event = event if type(event) is str else None
            event_id = event_id if type(event_id) is str else None
        ledger = self.ledger
        refused = False
        if self._checker is not None:
            findings = findings or self._checker.check(payload, headers, body)
            if findings:
                refused = self._refuses
                ledger.record_findings(findings, refused=refused)
        behaviour = self._behaviour
        if behaviour.is_plain and not refused:
            ledger.record(event_id, app, event, 200, True, time.time())
            return _KEEP if keep_alive else _CLOSE
        do = behaviour.choose(app, event, event_id, ledger.tries(event_id))
        plain_status, plain_body = _refusal(findings) if refused and findings else (200, SUCCESS)
        reply, status, accepted = _perform(do or _NOTHING, plain_status, plain_body, keep_alive)
        delay_s = behaviour.latency_s(do)
        is_answered = reply.then in {"keep", "close"}
        ledger.record(event_id, app, event, status, accepted, time.time(), delay_s if is_answered else None)
        return reply._replace(delay_s=delay_s) if delay_s else reply


_NOTHING = Do()


def _refusal(findings: list[Finding]) -> tuple[int, bytes]:
    error = "; ".join(map(str, findings[:ERROR_MAX_FINDINGS]))
    status = 401 if any(finding.code in _AUTH_HEADERS for finding in findings) else 200
    return status, orjson.dumps({"success": "0", "error": error})


def _perform(do: Do, plain_status: int, plain_body: bytes, keep_alive: bool) -> tuple[Reply, Status, bool]:
    """Return the reply, what the ledger calls it, and whether the event counts.

    The plain answer is what the sandbox would say of its own accord; a rule reshapes it.
    """
    is_good = plain_status == 200 and plain_body is SUCCESS
    headers = tuple(do.headers.items())
    match do.action:
        case "hang":
            return Reply(then="hang"), "hang", bool(do.accepted)
        case "reset_before":
            return Reply(then="reset"), "reset_before", bool(do.accepted)
        case "reset_after":
            return Reply(then="reset"), "reset_after", is_good if do.accepted is None else do.accepted
        case "refuse":
            status, body = 200, b'{"success":"0","error":"refused by a rule of the sandbox"}'
        case "html":
            status, body = 200, _HTML
            headers = _with_default(headers, "Content-Type", "text/html")
        case "redirect":
            status, body = 302, b""
            headers = _with_default(headers, "Location", "https://login.example.com/")
        case "answer":
            status, body = plain_status, plain_body
            if do.status is not None and not 200 <= do.status < 300:
                body = b""
    status = do.status or status
    body = body if do.body is None else do.body.encode()
    closes = do.close != "no" or not keep_alive
    data = render(status, body, headers, announce_close=closes and do.close != "silent")
    if do.early_hints:
        data = _EARLY_HINTS + data
    reply = Reply(data, drip_s=do.drip_ms / 1000, then="close" if closes else "keep")
    accepted = is_good and 200 <= status < 300 and _says_success(body)
    return reply, status, accepted if do.accepted is None else do.accepted


def _with_default(headers: tuple[tuple[str, str], ...], name: str, value: str) -> tuple[tuple[str, str], ...]:
    return headers if any(given.lower() == name.lower() for given, _ in headers) else ((name, value), *headers)


@lru_cache(256)
def _says_success(body: bytes) -> bool:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return type(answer) is dict and answer.get("success") in ("1", 1, True)
