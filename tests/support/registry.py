"""A stand-in schema registry: Confluent's protocol over real HTTP on loopback, in a thread of its own.

`with Registry() as registry:` gives a `url`. Schemas come in through the protocol (the client library's serializer
registers them) or through `register`. `answer_with` makes the next answers go wrong; `requests` has what was asked.
"""

import base64
import json
import ssl
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import unquote, urlsplit

UNKNOWN_SCHEMA = {"error_code": 40403, "message": "Schema not found"}


class Raw(NamedTuple):
    """An answer as given: any status, body and headers. `hang` never answers until the registry stops."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    hang: bool = False


class _Version(NamedTuple):
    subject: str
    version: int
    id: int
    schema: dict[str, Any]


class Registry:
    """`basic` (user, password) or `bearer` (token) ask for credentials; `prefix` is a path before everything.

    `tls` is the server's context, and makes `url` https.
    """

    def __init__(
        self,
        *,
        basic: tuple[str, str] | None = None,
        bearer: str | None = None,
        prefix: str = "",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[str] = []
        self.is_down = False
        """While set, connections are dropped without an answer."""
        self.hidden_ids: set[int] = set()
        """Answered as if they did not exist, as by an access rule."""
        self._authorization = None
        if basic is not None:
            self._authorization = "Basic " + base64.b64encode(":".join(basic).encode()).decode()
        elif bearer is not None:
            self._authorization = f"Bearer {bearer}"
        self._prefix = prefix
        self._by_id: dict[int, dict[str, Any]] = {}
        self._versions: list[_Version] = []
        self._script: list[Raw] = []
        self._standing: Raw | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._asked = threading.Event()
        self._server = _Server(("127.0.0.1", port), _handler_of(self))
        self._scheme = "http"
        if tls is not None:
            self._scheme = "https"
            # the handshake happens in the thread of its connection
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}{self._prefix}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def register(
        self,
        subject: str,
        schema: object,
        references: Sequence[dict[str, Any]] = (),
        schema_type: str = "AVRO",
        schema_id: int | None = None,
    ) -> int:
        """Store a schema (text, or what JSON makes of it) as the next version of *subject* and return its id."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        entry: dict[str, Any] = {"schema": text}
        if schema_type != "AVRO":
            entry["schemaType"] = schema_type
        if references:
            entry["references"] = list(references)
        with self._lock:
            known = next((number for number, each in self._by_id.items() if each == entry), None)
            number = schema_id or known or max(self._by_id, default=0) + 1
            self._by_id[number] = entry
            of_subject = [each for each in self._versions if each.subject == subject]
            if not any(each.id == number for each in of_subject):
                self._versions.append(_Version(subject, len(of_subject) + 1, number, entry))
            return number

    def answer_with(self, *answers: Raw) -> None:
        """Give these answers next, one to each request, whatever is asked."""
        with self._lock:
            self._script.extend(answers)

    def always_answer_with(self, answer: Raw | None) -> None:
        """Give this answer to everything, until None."""
        self._standing = answer

    def wait_for_request(self, timeout_s: float = 10.0) -> None:
        """Block the calling thread until somebody has asked something."""
        assert self._asked.wait(timeout_s)

    def guid_of(self, number: int) -> str:
        """Guids depend on nothing but the content, as the real ones do."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(self._by_id[number], sort_keys=True)))

    def answer(self, method: str, target: str, authorization: str | None, body: bytes) -> Raw | None:
        """Answer one request; None drops the connection."""
        with self._lock:
            self.requests.append(f"{method} {target}")
            scripted = self._script.pop(0) if self._script else self._standing
        self._asked.set()
        if self.is_down:
            return None
        if scripted is not None:
            if scripted.hang:
                self._stopped.wait(30)
                return None
            return scripted
        if self._authorization is not None and authorization != self._authorization:
            return Raw(401, b'{"message": "Unauthorized"}')  # no error_code, as seen on a real one
        path = urlsplit(target).path
        if not path.startswith(self._prefix + "/"):
            return Raw(404, b'"Not Found"')
        parts = [unquote(part) for part in path[len(self._prefix) + 1 :].split("/")]
        return self._route(method, parts, json.loads(body) if body else {})

    def _route(self, method: str, parts: list[str], body: dict[str, Any]) -> Raw:
        match (method, *parts):
            case ("GET", "schemas", "ids", number):
                return self._stored(int(number))
            case ("GET", "schemas", "guids", guid):
                return self._stored(next((number for number in self._by_id if self.guid_of(number) == guid), 0))
            case ("GET", "subjects"):
                return _json(sorted({each.subject for each in self._versions}))
            case ("GET", "subjects", subject, "versions", version):
                found = [each for each in self._versions if each.subject == subject]
                if not found:
                    return _json({"error_code": 40401, "message": f"Subject '{subject}' not found."}, 404)
                wanted = found[-1].version if version in {"latest", "-1"} else int(version)
                one = next((each for each in found if each.version == wanted), None)
                if one is None:
                    return _json({"error_code": 40402, "message": f"Version {version} not found."}, 404)
                return _json({"subject": subject, "version": one.version, "id": one.id, **one.schema})
            case ("POST", "subjects", subject, "versions"):
                number = self.register(
                    subject, body["schema"], body.get("references") or (), body.get("schemaType", "AVRO")
                )
                return _json({"id": number, "guid": self.guid_of(number)})
            case ("POST", "subjects", subject):
                for each in self._versions:
                    if each.subject == subject and each.schema["schema"] == body["schema"]:
                        known = {"subject": subject, "version": each.version, "id": each.id}
                        return _json({**known, "guid": self.guid_of(each.id), **each.schema})
                return _json(UNKNOWN_SCHEMA, 404)
            case _:
                return Raw(404, b'"Not Found"')

    def _stored(self, number: int) -> Raw:
        if number not in self._by_id or number in self.hidden_ids:
            return _json(UNKNOWN_SCHEMA, 404)
        # real ones rewrite the text, too
        entry = self._by_id[number]
        with suppress(ValueError):
            entry = {**entry, "schema": json.dumps(json.loads(entry["schema"]), sort_keys=True)}
        return _json({**entry, "guid": self.guid_of(number)})


def _json(content: object, status: int = 200) -> Raw:
    return Raw(status, json.dumps(content).encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: tests break connections on purpose."""


def _handler_of(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30
        disable_nagle_algorithm = True
        wbufsize = 65_536  # headers and body in one write

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            answer = registry.answer(self.command, self.path, self.headers.get("authorization"), body)
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            names = {name.lower() for name, _ in answer.headers}
            for name, value in answer.headers:
                self.send_header(name, value)
            if "content-type" not in names:
                self.send_header("content-type", "application/vnd.schemaregistry.v1+json")
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = _serve

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
