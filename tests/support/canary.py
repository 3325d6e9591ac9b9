"""Values that nobody's data may resemble, and a search for them in whatever a process says, in each form they may take.

A marker stands in for somebody's id, address or secret. `Search` looks for each as it is and as text is commonly
changed on its way into a log: escaped, encoded, hashed, shortened. It compares in lower case, so case hides nothing.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from urllib.parse import quote, quote_plus

HASHES = ("md5", "sha1", "sha256", "sha512", "blake2b")
DIGEST_CHARS = 16
"""A hash that is cut short, but not shorter than this, is found, too."""
SHORTEST_FORM_BYTES = 7


def forms(text: str) -> Iterator[tuple[str, bytes]]:
    """Yield each form of *text* with its name."""
    raw = text.encode()
    once = quote(text, safe="")
    ascii_json = json.dumps(text)[1:-1]
    yield "raw", raw
    yield "percent-encoded", once.encode()
    yield "percent-encoded twice", quote(once, safe="").encode()
    yield "form-encoded", quote_plus(text).encode()
    yield "JSON", json.dumps(text, ensure_ascii=False)[1:-1].encode()
    yield "JSON in ASCII", ascii_json.encode()
    yield "JSON in JSON", json.dumps(ascii_json)[1:-1].encode()
    yield "JSON of PHP", ascii_json.replace("/", "\\/").encode()
    yield "Python's repr", repr(text)[1:-1].encode()
    yield "Python's repr of bytes", repr(raw)[2:-1].encode()
    yield "hex", raw.hex().encode()
    yield "hex by byte", raw.hex(" ").encode()
    yield "UTF-16", text.encode("utf-16-le")
    for shift in range(3):
        for alphabet in (None, b"-_"):
            yield f"base64 {shift}", _base64_within(raw, shift, alphabet)
    for name in HASHES:
        for case in {text, text.lower(), text.upper()}:
            digest = hashlib.new(name, case.encode()).digest()
            yield name, digest.hex()[:DIGEST_CHARS].encode()
            yield f"{name} in base64", b64encode(digest)[:DIGEST_CHARS]
    if text.replace("-", "").isalnum() and text.count("-") == 4:
        yield "without hyphens", text.replace("-", "").encode()
    try:
        address = ip_address(text)
    except ValueError:
        return
    yield "exploded", address.exploded.encode()
    yield "as a number", str(int(address)).encode()
    yield "packed", address.packed.hex().encode()


def _base64_within(raw: bytes, shift: int, alphabet: bytes | None) -> bytes:
    """Return what of a longer text's base64 depends on *raw* alone, if *shift* bytes of a group of three precede it."""
    coded = b64encode(bytes(shift) + raw + bytes(3), alphabet)
    return coded[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]


class Search:
    """Finds markers. *markers* by a name that may be told."""

    def __init__(self, markers: Mapping[str, str]) -> None:
        self._needles: dict[bytes, str] = {}
        for name, text in markers.items():
            for form, needle in forms(text):
                assert len(needle) >= SHORTEST_FORM_BYTES, f"{name}, {form}: too short to be anybody's alone"
                self._needles.setdefault(_lower(needle), f"{name}, {form}")

    def __call__(self, text: bytes | str) -> list[str]:
        """Return which marker is in *text*, and in which form."""
        hay = _lower(text.encode() if isinstance(text, str) else text)
        return [what for needle, what in self._needles.items() if needle in hay]


def _lower(text: bytes) -> bytes:
    return text.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape")
