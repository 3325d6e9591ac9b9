"""Conversions of the mapping language: from what Avro or a producer made of a value to what its place asks for.

Each is a total function: the value, or `BadValueError`. Nothing is guessed from a single value: bytes are no text until
the mapping says which, and a number is milliseconds until the mapping says otherwise.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_FLOOR, Decimal
from math import isfinite
from typing import Any
from uuid import UUID

import orjson

MAX_DIGITS = 64
"""Longest number that is written out; Avro decimals have 38 digits at most here."""
MAX_TIME_MS = 253_402_300_800_000
"""The year 10000. Beyond it a unit was mistaken, such as microseconds for milliseconds."""
MAX_JSON_BYTES = 1 << 20

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_WHOLE = 1 << 53
"""Below it, each whole number is a double."""
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_TRUE = frozenset({"true", "yes", "y", "1", "on"})
_FALSE = frozenset({"false", "no", "n", "0", "off"})


class BadValueError(Exception):
    """A value that its place cannot take. Holds no data."""


def text(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is UUID:
        return str(value)
    if kind is float and isfinite(value):
        return repr(value)
    if kind is Decimal:
        return _written(value)
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    raise BadValueError


def _written(value: Decimal) -> str:
    if not value.is_finite() or abs(value.adjusted()) > MAX_DIGITS:
        raise BadValueError
    return format(value, "f")


def number(value: Any) -> int | float | Decimal:
    """Return the same number in the type that JSON prints exactly.

    An int where it is one of 64 bits; a float where its shortest text is the very number; else the Decimal itself,
    whose digits `payload.serialise` writes as they are. So no amount of money gains or loses a digit.
    """
    kind = type(value)
    if kind is int:
        return value if -(1 << 63) <= value < 1 << 63 else Decimal(value)
    if kind is float:
        if not isfinite(value):
            raise BadValueError
        return int(value) if value.is_integer() and -_WHOLE < value < _WHOLE else float(value)
    if kind is str:
        stripped = value.strip()
        if not _NUMBER.fullmatch(stripped):
            raise BadValueError
        value = Decimal(stripped)
    elif kind is not Decimal:
        raise BadValueError
    if not value.is_finite() or abs(value.adjusted()) > MAX_DIGITS:
        raise BadValueError
    near = float(value)
    if -_WHOLE < near < _WHOLE and Decimal(repr(near)) == value:
        return int(near) if near.is_integer() else near
    if value == value.to_integral_value():
        whole = int(value)
        return whole if -(1 << 63) <= whole < 1 << 63 else Decimal(whole)
    return Decimal(value)


def boolean(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    word = text(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise BadValueError


def epoch_ms(value: Any) -> int:
    """Return epoch milliseconds of a moment, a date, an ISO 8601 text (UTC if it names no zone) or milliseconds."""
    return _epoch_ms(value, 1, 1)


def _epoch_ms(value: Any, times: int, per: int) -> int:
    """Return epoch milliseconds; a bare number times *times* over *per* is milliseconds."""
    kind = type(value)
    if kind is datetime:
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        found = (moment - _EPOCH) // _MILLISECOND
    elif kind is int:
        found = value * times // per
    elif kind is float and isfinite(value):
        found = round(value * times / per)
    elif kind is Decimal and value.is_finite() and abs(value.adjusted()) <= MAX_DIGITS:
        found = int((value * times / per).to_integral_value(ROUND_FLOOR))
    elif kind is date:
        found = (datetime(value.year, value.month, value.day, tzinfo=UTC) - _EPOCH) // _MILLISECOND
    elif kind is str:
        stripped = value.strip()
        if _NUMBER.fullmatch(stripped):
            return _epoch_ms(Decimal(stripped), times, per)
        try:
            return _epoch_ms(datetime.fromisoformat(stripped), 1, 1)
        except ValueError:
            raise BadValueError from None
    else:
        raise BadValueError
    if not 0 <= found < MAX_TIME_MS:
        raise BadValueError
    return int(found)


def from_s(value: Any) -> int:
    return _epoch_ms(value, 1000, 1)


def from_us(value: Any) -> int:
    return _epoch_ms(value, 1, 1000)


def from_ns(value: Any) -> int:
    return _epoch_ms(value, 1, 1_000_000)


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise BadValueError
    return value


def _utf8(value: Any) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError:
        raise BadValueError from None


def _uuid(value: Any) -> str:
    try:
        return str(UUID(bytes=value) if type(value) is bytes else UUID(text(value).strip()))
    except ValueError:
        raise BadValueError from None


def _json(value: Any) -> Any:
    if type(value) not in {str, bytes} or len(value) > MAX_JSON_BYTES:
        raise BadValueError
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        raise BadValueError from None


CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "text": text,
    "trim": lambda value: text(value).strip(),
    "upper": lambda value: text(value).upper(),
    "lower": lambda value: text(value).lower(),
    "number": number,
    "boolean": boolean,
    "not": lambda value: not boolean(value),
    "from_s": from_s,
    "from_ms": epoch_ms,
    "from_us": from_us,
    "from_ns": from_ns,
    "epoch_ms": epoch_ms,
    "epoch_s": lambda value: epoch_ms(value) // 1000,
    "utf8": _utf8,
    "hex": lambda value: _bytes(value).hex(),
    "base64": lambda value: b64encode(_bytes(value)).decode(),
    "uuid": _uuid,
    "json": _json,
}
"""Moments are epoch milliseconds between conversions, so `["from_s", "epoch_s"]` gives seconds again."""
TO_MOMENT = frozenset({"from_s", "from_ms", "from_us", "from_ns", "epoch_ms"})
