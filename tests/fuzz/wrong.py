"""Builds with a mistake in them, which the fuzzer must find: without that, its silence says nothing."""

import base64
import binascii
from collections.abc import Callable
from typing import Any, NamedTuple

from consumer.adapters import fast_connection
from consumer.core import avro_reader, headers, offset_map, outcome, payload, retry, wire_format


class Build(NamedTuple):
    """A mistake, and the target that must find it."""

    target: str
    plant: Callable[[], None]


def _map_without_checksum() -> None:
    """Believe whatever is well-formed."""
    original = offset_map._checksum

    def decode_unchecked(text: str, position: int, limit: int) -> Any:
        def from_the_text(at: int, body: Any) -> bytes:
            try:
                raw = base64.urlsafe_b64decode(text[5 : 5 + int(text[1:5])] + "===")
            except (binascii.Error, ValueError):
                return original(at, body)
            return raw[:4]

        offset_map._checksum = from_the_text
        try:
            return original_decode(text, position, limit)
        finally:
            offset_map._checksum = original

    original_decode = offset_map.decode
    offset_map.decode = decode_unchecked


def _map_without_limit() -> None:
    """Pass over records that don't exist yet."""
    original = offset_map._runs
    offset_map._runs = lambda lengths, position, _: original(lengths, position, 2**80)


def _reader_without_block_size() -> None:
    """Read a block and don't look where it ends."""
    avro_reader._Source._end_block = lambda *_: None


def _reader_of_endless_integers() -> None:
    """Go on while bytes say so, and let the number wrap."""

    def tail(buf: bytes, pos: int, number: int) -> tuple[int, int]:
        number, shift = number & 0x7F, 7
        while True:
            byte = buf[pos]
            pos, number, shift = pos + 1, number | (byte & 0x7F) << shift, shift + 7
            if byte < 128:
                return number & 2**64 - 1, pos

    avro_reader._varint_tail = avro_reader._SCOPE["varint_tail"] = tail


def _agent_not_encoded() -> None:
    """Leave a percent sign as it is."""
    payload.percent_encode = lambda text: payload.quote(text, safe="%", errors="replace")


def _headers_that_grow() -> None:
    """Keep our own headers of the last hop beside the new ones."""
    original = headers.write_hop

    def write(source: Any, hop: Any, **rest: Any) -> Any:
        return tuple(source) + original((), hop, **rest)

    headers.write_hop = write


def _negative_schema_id() -> None:
    """Take all 32 bits for an id."""
    wire_format._MAX_ID = 2**32 - 1


def _wait_without_a_floor() -> None:
    """Wait until a date that has passed."""
    retry.max = lambda one, _: one


def _any_true_is_success() -> None:
    """Count whatever is true as delivered."""
    original = outcome._classify_success

    def classify(status: int, body: bytes) -> Any:
        found = original(status, body)
        try:
            parsed = outcome.orjson.loads(body)
        except ValueError:
            return found
        return outcome.Delivered(status) if isinstance(parsed, dict) and parsed.get("success") else found

    outcome._classify_success = classify


def _second_answer_unseen() -> None:
    """Keep a connection that said more than its answer."""
    fast_connection.Connection.on_message_begin = lambda _: None


BUILDS = {
    "map_without_checksum": Build("offset_map", _map_without_checksum),
    "map_without_limit": Build("offset_map", _map_without_limit),
    "reader_without_block_size": Build("decode", _reader_without_block_size),
    "reader_of_endless_integers": Build("decode", _reader_of_endless_integers),
    "agent_not_encoded": Build("translate", _agent_not_encoded),
    "headers_that_grow": Build("hops", _headers_that_grow),
    "negative_schema_id": Build("frames", _negative_schema_id),
    "wait_without_a_floor": Build("retry_after", _wait_without_a_floor),
    "any_true_is_success": Build("answers", _any_true_is_success),
    "second_answer_unseen": Build("connection", _second_answer_unseen),
}
"""Planted in the worker before the target is imported, which takes names from these modules."""
