"""Which writer schema a record names, and where its Avro body begins.

Three encodings are in use: the Confluent one (an id before the body, or an id or guid in a record header), the single
object encoding of the Avro specification (a fingerprint before the body), and nothing at all. All bytes are checked
here, before anybody looks a schema up.
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeAlias
from uuid import UUID

from consumer.core.record import Headers

SCHEMA_HEADER = "__value_schema_id"
"""Where confluent-kafka and the Java client (since 2025) put the schema of the value."""
_MAX_ID = 2**31 - 1

WireFormat: TypeAlias = Literal["confluent", "single_object", "plain"]


class ById(NamedTuple):
    """A schema by its number in a registry."""

    id: int

    def __str__(self) -> str:
        return f"id {self.id}"


class ByGuid(NamedTuple):
    """A schema by its guid, which is the same in every registry."""

    guid: str

    def __str__(self) -> str:
        return f"guid {self.guid}"


class ByFingerprint(NamedTuple):
    """A schema by the CRC-64-AVRO fingerprint of its canonical form, little endian as on the wire."""

    fingerprint: bytes

    def __str__(self) -> str:
        return f"fingerprint {self.fingerprint.hex()}"


class Configured(NamedTuple):
    """The one schema that settings name."""

    def __str__(self) -> str:
        return "the configured schema"


SchemaReference: TypeAlias = ById | ByGuid | ByFingerprint | Configured


class Body(NamedTuple):
    """The body starts at `start` and was written with the schema behind `reference`."""

    reference: SchemaReference
    start: int


class BadFrame(NamedTuple):
    """The bytes before the body are not what they should be."""

    reason: str


_PLAIN = Body(Configured(), 0)


def locate_confluent(value: bytes, headers: Headers) -> Body | BadFrame:
    """Read a magic byte and a schema id, or the schema header, which wins: then the value is all body."""
    for name, content in headers:
        if name == SCHEMA_HEADER and content is not None:
            return _locate_by_header(content)
    if len(value) < 5:
        return BadFrame("too_short")
    if value[0] != 0:
        return BadFrame("bad_magic")
    number = int.from_bytes(value[1:5], "big")
    return Body(ById(number), 5) if 0 < number <= _MAX_ID else BadFrame("bad_schema_id")


def _locate_by_header(content: bytes) -> Body | BadFrame:
    if len(content) == 17 and content[0] == 1:
        return Body(ByGuid(str(UUID(bytes=content[1:]))), 0)
    if len(content) == 5 and content[0] == 0:
        number = int.from_bytes(content[1:], "big")
        return Body(ById(number), 0) if 0 < number <= _MAX_ID else BadFrame("bad_schema_id")
    return BadFrame("bad_schema_header")


def locate_single_object(value: bytes, headers: Headers) -> Body | BadFrame:  # noqa: ARG001  one signature for all three
    """Read the two-byte marker and the fingerprint."""
    if len(value) < 10:
        return BadFrame("too_short")
    if value[:2] != b"\xc3\x01":
        return BadFrame("bad_magic")
    return Body(ByFingerprint(value[2:10]), 10)


def locate_plain(value: bytes, headers: Headers) -> Body | BadFrame:  # noqa: ARG001  one signature for all three
    """Nothing precedes the body."""
    return _PLAIN


LOCATE: Mapping[WireFormat, Callable[[bytes, Headers], Body | BadFrame]] = {
    "confluent": locate_confluent,
    "single_object": locate_single_object,
    "plain": locate_plain,
}
