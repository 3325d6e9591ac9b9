"""The bytes of a request: what is the same for every event is built once, and no header can smuggle a line.

Stands alone because it is the only place that turns strings of others (tokens, settings) into HTTP syntax.
"""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from consumer.ports import Request

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")
_TARGET = re.compile(r"[!-~]+")
_FRAMING = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "te", "upgrade"})
_CACHED_HEADS = 256


class Endpoint(NamedTuple):
    """Where to connect to, and what to ask for there."""

    host: str
    port: int
    is_tls: bool
    authority: str
    target: str

    @classmethod
    def parse(cls, url: str) -> "Endpoint":
        """Take *url* apart.

        Raises:
            ValueError: not an http or https URL with a host, or one with credentials, a fragment or odd characters.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None or parts.fragment:
            raise ValueError("endpoint: expected http(s)://host[:port]/path, without credentials and fragment")
        is_tls = parts.scheme == "https"
        default_port = 443 if is_tls else 80
        port = parts.port or default_port
        host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode("ascii")
        authority = f"[{host}]" if ":" in host else host
        if port != default_port:
            authority += f":{port}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not _TARGET.fullmatch(authority + target):
            raise ValueError("endpoint: host and path must be printable ASCII; percent-encode the rest")
        return cls(host, port, is_tls, authority, target)


class RequestWriter:
    """Writes requests to one endpoint."""

    def __init__(self, endpoint: Endpoint, user_agent: str) -> None:
        self._request_line = f"POST {endpoint.target} HTTP/1.1"
        self._fixed = {
            "host": ("Host", endpoint.authority),
            "user-agent": ("User-Agent", user_agent),
            "content-type": ("Content-Type", "application/json"),
            "accept": ("Accept", "application/json"),
            "accept-encoding": ("Accept-Encoding", "identity"),
        }
        # few variants repeat (an absent user agent); a signed request is one of a kind and costs its 3 µs
        self._head = lru_cache(_CACHED_HEADS)(self._build_head)
        self._plain_head = self._build_head(())

    def write(self, request: Request) -> bytes:
        """Return head and body of *request*.

        Raises:
            ValueError: a header isn't valid HTTP or would change the framing: our bug.
        """
        body, headers = request
        head = self._head(headers) if headers else self._plain_head
        return b"%b%d\r\n\r\n%b" % (head, len(body), body)

    def _build_head(self, extra: tuple[tuple[str, str], ...]) -> bytes:
        """Return everything up to the value of Content-Length, which is the last header."""
        headers = dict(self._fixed)
        for name, value in extra:
            key = name.lower()
            if key in _FRAMING:
                raise ValueError(f"header {name}: belongs to the transport")
            headers[key] = (name, value)
        for name, value in headers.values():
            # the value may be a secret: never named
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise ValueError(f"header {name!r}: name or value isn't printable ASCII on one line")
        lines = [self._request_line, *(f"{name}: {value}" for name, value in headers.values()), "Content-Length: "]
        return "\r\n".join(lines).encode("ascii")
