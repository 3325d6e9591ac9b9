"""Any value and headers name a schema or are a `BadFrame`; a place lies within the value; what was understood, written
again, is what stood there; and Confluent's own reader of frames finds the same schema.
"""  # fmt: skip

import io
import struct
from uuid import UUID

from confluent_kafka.schema_registry.common.serde import SchemaId
from confluent_kafka.serialization import SerializationError

from consumer.core.wire_format import (
    SCHEMA_HEADER,
    BadFrame,
    Body,
    ByFingerprint,
    ByGuid,
    ById,
    Configured,
    locate_confluent,
    locate_plain,
    locate_single_object,
)
from tests.fuzz.feed import Feed

MAX_BYTES = 120
WORDS = [b"\xc3\x01", b"\x00\x00\x00\x00\x01", b"\x00\x7f\xff\xff\xff", b"\x01", b"\x11"]
REASONS = {"too_short", "bad_magic", "bad_schema_id", "bad_schema_header"}


def check(data: bytes) -> None:
    feed = Feed(data)
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(feed.number() % 4):
        kind = feed.number() % 3
        headers.append((SCHEMA_HEADER if kind else "other", None if kind == 1 else feed.block()))
    value = feed.rest()

    located = locate_confluent(value, tuple(headers))
    named = next((content for name, content in headers if name == SCHEMA_HEADER and content is not None), None)
    _check_confluent(located, value if named is None else named, in_header=named is not None)

    single = locate_single_object(value, tuple(headers))
    if isinstance(single, Body):
        assert isinstance(single.reference, ByFingerprint)
        assert b"\xc3\x01" + single.reference.fingerprint == value[:10]
        assert single.start == 10 <= len(value)
    else:
        assert single.reason in REASONS
        assert len(value) < 10 or value[:2] != b"\xc3\x01"
    assert locate_plain(value, tuple(headers)) == Body(Configured(), 0)


def _check_confluent(located: Body | BadFrame, frame: bytes, *, in_header: bool) -> None:
    """Compare with what Confluent's client reads of *frame*, less what it is too mild with."""
    theirs = SchemaId("AVRO")
    stream = io.BytesIO(frame)
    try:
        theirs.from_bytes(stream)
    except (SerializationError, ValueError, IndexError, struct.error):
        understood = False
    else:
        understood = theirs.guid is not None or 0 < (theirs.id or 0) < 2**31
        if in_header:
            understood &= stream.tell() == len(frame)
        else:
            understood &= theirs.guid is None  # a guid stands in a header only
    assert isinstance(located, Body) == understood
    if isinstance(located, BadFrame):
        assert located.reason in REASONS
        return
    assert located.start == (0 if in_header else 5)
    match located.reference:
        case ById(number):
            assert number == theirs.id
            assert frame[:5] == b"\0" + number.to_bytes(4, "big")
        case ByGuid(guid):
            assert UUID(guid) == theirs.guid
            assert frame == b"\1" + UUID(guid).bytes
        case other:
            raise AssertionError(other)


SEEDS = [
    b"\x00\x00\x00\x00\x00\x07body",
    b"\x00\xc3\x0112345678body",
    b"\x01\x02\x05\x00\x00\x00\x00\x09body",
    b"\x02\x01\x02\x11\x01" + b"g" * 16 + b"\x00\x00\x00\x00\x07body",
    b"\x03\x00\x01x\x02\x01\x07\x02\x05\x00\x00\x00\x00\x02\xc3\x01",
]
