"""Any text is a map or `UnreadableMapError`, never half a map; what is understood stays within the limit, carries the
checksum of its own position, and encodes back to the same text.

The second implementation reads the envelope by itself: base64 by its alphabet,
CRC-32 bit by bit. So a decoder that forgot to look at one of them disagrees.
"""  # fmt: skip

import string

from consumer.core.offset_map import HEAD_CHARS, MAX_CHARS, OffsetMap, Run, UnreadableMapError, decode, encode
from tests.fuzz.feed import Feed

MAX_BYTES = 600
WORDS = [b"1000", b"10008", b"10012", b"==", b"\x00"]
ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
FAR = 2**62


def _crc32(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def _checksum(position: int, body: bytes) -> bytes:
    return _crc32(position.to_bytes(8, "big") + body).to_bytes(4, "big")


def _wrap(position: int, body: bytes) -> str:
    """Write the envelope around *body*, whatever it says."""
    raw = _checksum(position, body) + body
    bits = int.from_bytes(raw, "big") << (-len(raw) * 8) % 6
    text = "".join(ALPHABET[bits >> at & 63] for at in range((len(raw) * 8 + 5) // 6 * 6 - 6, -1, -6))
    return f"1{len(text):04d}{text}"


def _unwrap(text: str, position: int) -> bytes:
    """Return the body of a text that was understood; fails where it should not have been."""
    assert text[0] == "1"
    size = int(text[1:HEAD_CHARS])
    encoded = text[HEAD_CHARS : HEAD_CHARS + size]
    assert len(encoded) == size, "truncated"
    bits = 0
    for char in encoded:
        bits = bits << 6 | ALPHABET.index(char)
    raw = (bits >> size * 6 % 8).to_bytes(size * 6 // 8, "big")
    assert raw[:4] == _checksum(position, raw[4:]), "checksum"
    return raw[4:]


def _sum_of_varints(body: bytes) -> int:
    """Return how far the runs reach: the sum of all numbers but the first, which is a time."""
    numbers = [0]
    shift = 0
    for byte in body:
        numbers[-1] += (byte & 127) << shift
        shift = shift + 7 if byte & 128 else 0
        if not shift:
            numbers.append(0)
    return sum(numbers[1:])


def check(data: bytes) -> None:
    feed = Feed(data)
    kind = feed.number() % 3
    position = feed.number(feed.number() % 8)
    limit = position + feed.number(feed.number() % 8)
    if kind == 0:
        _check_text(feed.rest().decode("utf-8", "replace"), position, limit)
    elif kind == 1:
        _check_text(_wrap(position, feed.rest()), position, limit)
    else:
        _check_runs(feed, position)


def _check_text(text: str, position: int, limit: int) -> None:
    try:
        found = decode(text, position, limit)
    except UnreadableMapError as unreadable:
        reason = str(unreadable)
        found = None
    if found is None:
        assert reason in {"foreign", "truncated", "damaged", "checksum", "span"}
        return
    if not text:
        assert found == OffsetMap()
        return
    body = _unwrap(text, position)
    at = position
    for first, end in found.runs:
        assert at <= first < end <= limit, "ascending, not empty, within the limit"
        at = end
    assert at == position + _sum_of_varints(body), "nothing left out, nothing made up"
    again, covered = encode(position, found.runs, found.since_s)
    assert covered == sum(end - first for first, end in found.runs)
    if covered and len(again) < MAX_CHARS - 30:
        assert decode(again, position, limit) == found


def _check_runs(feed: Feed, position: int) -> None:
    """From the other side: what is settled comes back, as much of it as fits, the lowest first."""
    since_s, max_chars = feed.number(4), 5 + feed.number(2)
    runs: list[Run] = []
    at = position
    while feed:
        first = at + 1 + feed.number(feed.number() % 4)
        at = first + 1 + feed.number(feed.number() % 4)
        runs.append(Run(first, at))
    text, covered = encode(position, runs, since_s, max_chars)
    assert len(text) <= max_chars
    found = decode(text, position, at)
    assert found.runs == tuple(runs[: len(found.runs)])
    assert covered == sum(end - first for first, end in found.runs)
    if found.runs:
        assert found.since_s == since_s
        assert _unwrap(text, position)
    else:
        assert not text


SEEDS = [
    b"\x00\x01\x07\x01\x09" + encode(7, [Run(8, 9), Run(11, 15)], 1_790_000_000)[0].encode(),
    b"\x00\x02\x01\x00\x02\xff\xff" + encode(256, [Run(300, 9000)], 5)[0].encode() + b"\x7f behind",
    b"\x00\x00\x00",
    b"\x00\x01\x07\x01\x0910000",
    b"\x01\x01\x07\x01\x09\x01\x01\x01\x03\x02",
    b"\x01\x02\x01\x00\x07\xff\xff\xff\xff\xff\xff\xff\x05\x80\x01\xff\xff\x03",
    b"\x02\x01\x07\x00\x00\x00\x00\x05\x0f\x00\x01\x05\x02\x01\x00\x01\x03\x01\x09",
]
