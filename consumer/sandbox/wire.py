"""Requests and replies as the stand-in's connection and its rules exchange them."""

from collections.abc import Iterator
from functools import lru_cache
from http import HTTPStatus
from typing import Literal, NamedTuple


class Request(NamedTuple):
    """One complete request. Header names are lower case."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    """Whether the client wants the connection to live on."""


class Reply(NamedTuple):
    """What to do with a request. `data` is a whole answer, or its head if there are `chunks`."""

    data: bytes = b""
    delay_s: float = 0.0
    drip_s: float = 0.0
    then: Literal["keep", "close", "reset", "hang"] = "keep"
    """What becomes of the connection; `reset` and `hang` come instead of an answer."""
    chunks: Iterator[bytes] | None = None
    """Pulled one by one, as fast as the client reads."""


@lru_cache(256)
def render(
    status: int, body: bytes, headers: tuple[tuple[str, str], ...] = (), *, announce_close: bool = False
) -> bytes:
    """Return an answer as bytes; its Content-Type is JSON unless *headers* say otherwise."""
    lines = [f"HTTP/1.1 {status} {_phrase(status)}"]
    if status not in _BODILESS:
        if not any(name.lower() == "content-type" for name, _ in headers):
            lines.append("Content-Type: application/json")
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers]
    if announce_close:
        lines.append("Connection: close")
    head = "\r\n".join([*lines, "", ""]).encode("ascii")
    return head if status in _BODILESS else head + body


def render_stream(content_type: str) -> bytes:
    """Return the head of an answer whose body comes in chunks, framed by `chunk`, until `LAST_CHUNK`."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode("ascii")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"

_BODILESS = {204, 304}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
