"""The completed-offsets map: what is settled beyond the commit position, as text for the commit's metadata.

One slow event holds the commit position while thousands beyond it are settled; a crash would send those again. So the
runs of settled offsets travel with the commit, and the next owner passes over them.

Between two runs lies something in flight, and that is bounded: a map is small by nature. The text is

    version "1" · number of characters that follow, four digits · base64url of: CRC-32 (4 bytes) · varints

where the varints are the epoch second since which the position has stood, for people to see, and then the lengths of
what is not settled and of what is, by turns, from the commit position on. The checksum covers the position, too, so a
map is good for exactly the offset it was committed with. The text states its length because the Python client reads
metadata up to a NUL byte that other clients don't write, and returns whatever memory lies behind; whoever reads must
believe nothing.
"""

import base64
import binascii
import zlib
from collections.abc import Iterable
from typing import NamedTuple

VERSION = "1"
HEAD_CHARS = 5
MAX_CHARS = 4000
"""Below the broker's offset.metadata.max.bytes, 4096; a longer one would make it refuse the whole commit."""
CRC_BYTES = 4
MAX_VARINT_BYTES = 9


class Run(NamedTuple):
    """Offsets from `first` to before `end`."""

    first: int
    end: int


class OffsetMap(NamedTuple):
    """What is settled beyond a commit position that has stood since epoch second `since_s`."""

    runs: tuple[Run, ...] = ()
    since_s: int = 0


class UnreadableMapError(Exception):
    """The text is no map for this position; `str` says why, in one word. It must then be ignored as a whole."""


def encode(position: int, runs: Iterable[Run], since_s: int = 0, max_chars: int = MAX_CHARS) -> tuple[str, int]:
    """Write *runs*, ascending and from *position* on, as text of at most *max_chars*.

    Returns:
        The text, empty if there is nothing to say, and how many offsets it covers. Where not all fit, the lowest win.
    """
    room = (max_chars - HEAD_CHARS) * 3 // 4 - CRC_BYTES
    body = bytearray(_varint(since_s))
    covered = 0
    at = position
    for first, end in runs:
        pair = _varint(first - at) + _varint(end - first)
        if len(body) + len(pair) > room:
            break
        body += pair
        covered += end - first
        at = end
    if not covered:
        return "", 0
    text = base64.urlsafe_b64encode(_checksum(position, body) + body).rstrip(b"=").decode()
    return f"{VERSION}{len(text):04d}{text}", covered


def decode(text: str, position: int, limit: int) -> OffsetMap:
    """Read the runs that were committed with *position*.

    Args:
        text: the commit's metadata; anything may stand there.
        position: the offset it was committed with.
        limit: the end of the highest run that can be true: the log's end, and the span that we ever keep open.

    Raises:
        UnreadableMapError: it isn't ours, is damaged, belongs to another position, or promises more than can be.
    """
    if not text:
        return OffsetMap()
    digits = text[1:HEAD_CHARS]
    if text[0] != VERSION or len(digits) != HEAD_CHARS - 1 or not (digits.isascii() and digits.isdigit()):
        raise UnreadableMapError("foreign")
    chars = int(digits)
    encoded = text[HEAD_CHARS : HEAD_CHARS + chars]
    if len(encoded) != chars:
        raise UnreadableMapError("truncated")
    try:
        raw = base64.b64decode(encoded + "=" * (-chars % 4), altchars="-_", validate=True)
    except (binascii.Error, ValueError):
        raise UnreadableMapError("damaged") from None
    body = raw[CRC_BYTES:]
    if raw[:CRC_BYTES] != _checksum(position, body):
        raise UnreadableMapError("checksum")
    since_s, *lengths = _varints(body) or [0]
    return OffsetMap(_runs(lengths, position, limit), since_s)


def own_text(text: str) -> str:
    """Return what we wrote of a *text* that `decode` can read: the client may return more, whatever lies behind it."""
    return text[: HEAD_CHARS + int(text[1:HEAD_CHARS])] if text else ""


def _runs(lengths: list[int], position: int, limit: int) -> tuple[Run, ...]:
    if len(lengths) % 2 or not all(lengths[1::2]):
        raise UnreadableMapError("damaged")
    runs: list[Run] = []
    at = position
    for gap, length in zip(lengths[::2], lengths[1::2], strict=True):
        run = Run(at + gap, at + gap + length)
        runs.append(run)
        at = run.end
    if at > limit:
        raise UnreadableMapError("span")
    return tuple(runs)


def _checksum(position: int, body: bytes | bytearray) -> bytes:
    return zlib.crc32(body, zlib.crc32(position.to_bytes(8, "big"))).to_bytes(CRC_BYTES, "big")


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last byte have the top bit set."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _varints(body: bytes) -> list[int]:
    numbers: list[int] = []
    number = shift = 0
    for byte in body:
        if shift >= 7 * MAX_VARINT_BYTES:
            raise UnreadableMapError("damaged")
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
    if shift:
        raise UnreadableMapError("damaged")
    return numbers
