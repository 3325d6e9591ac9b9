"""The control API of the stand-in, under /_sandbox/ on the same port: what it counted, and how it shall behave.

Its own requests are counted nowhere.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs, urlsplit

import orjson

from consumer.errors import SettingsError
from consumer.sandbox.findings import FINDINGS
from consumer.sandbox.ledger import Ledger
from consumer.sandbox.wire import LAST_CHUNK, Reply, Request, chunk, render, render_stream

PREFIX = b"/_sandbox"
CHUNK_LINES = 500

_HELP = """\
GET  /_sandbox/summary          totals: requests, accepted, duplicates, findings, by app, by event
GET  /_sandbox/ledger           every event id, a JSON object a line; ?id=ID for one
GET  /_sandbox/log?after=N      the last requests in order, a JSON object a line; &limit=N
GET  /_sandbox/findings         what the checker's codes mean
GET  /_sandbox/rules            how it misbehaves; PUT a JSON list to replace the rules
POST /_sandbox/reset            forget everything counted; rules stay
"""


class Desk(Protocol):
    """What the control API shows and changes."""

    @property
    def ledger(self) -> Ledger: ...

    def summary(self) -> dict[str, object]: ...

    def dump_rules(self) -> list[dict[str, object]]: ...

    def set_rules(self, given: bytes) -> None: ...

    def reset(self) -> None: ...


def answer(desk: Desk, request: Request) -> Reply:
    """Answer one request to the control API."""
    url = urlsplit(request.target.decode("latin-1"))
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    match request.method, url.path.removeprefix(PREFIX.decode()).strip("/"):
        case b"GET", "":
            return Reply(render(200, _HELP.encode(), (("Content-Type", "text/plain"),)))
        case b"GET", "summary":
            return _json(desk.summary())
        case b"GET", "findings":
            return _json(FINDINGS)
        case b"GET", "rules":
            return _json(desk.dump_rules())
        case b"PUT", "rules":
            try:
                desk.set_rules(request.body)
            except SettingsError as error:
                return _json({"problems": error.problems}, 400)
            return _json(desk.dump_rules())
        case b"POST", "reset":
            desk.reset()
            return _json({})
        case b"GET", "ledger":
            if (event_id := query.get("id")) is None:
                return _lines(desk.ledger)
            return _lines([desk.ledger[event_id]] if event_id in desk.ledger else [])
        case b"GET", "log":
            try:
                after, limit = int(query.get("after", "0")), int(query.get("limit", "-1"))
            except ValueError:
                return _json({"problems": ["after and limit are whole numbers"]}, 400)
            lines = desk.ledger.log(after)
            return _lines(lines if limit < 0 else islice(lines, limit))
        case _, "" | "summary" | "findings" | "rules" | "reset" | "ledger" | "log":
            return _json({"problems": ["see GET /_sandbox for the methods"]}, 405)
        case _:
            return _json({"problems": ["see GET /_sandbox for what there is"]}, 404)


def _json(value: object, status: int = 200) -> Reply:
    return Reply(render.__wrapped__(status, orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n"))


def _lines(rows: Iterable[NamedTuple]) -> Reply:
    return Reply(render_stream("application/x-ndjson"), chunks=_chunks(iter(rows)))


def _chunks(rows: Iterator[NamedTuple]) -> Iterator[bytes]:
    while piece := b"".join(orjson.dumps(row._asdict()) + b"\n" for row in islice(rows, CHUNK_LINES)):
        yield chunk(piece)
    yield LAST_CHUNK
