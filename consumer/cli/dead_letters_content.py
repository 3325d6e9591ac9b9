"""What a dead letter holds, as JSON takes it: masked, or as it is."""

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from consumer.core.headers import OURS
from consumer.core.masking import MASK, PAYLOAD_NAMES, describe, mask, shown_of
from consumer.core.record import Record
from consumer.ports import Decoded
from consumer.translate import Prepared

if TYPE_CHECKING:
    from consumer.appraisal import Verdict
    from consumer.cli.dead_letters_desk import Desk
    from consumer.dead_letters import Seen


def event_of(desk: "Desk", seen: "Seen", *, reveal: bool) -> Any:
    """Return the decoded record, or None if it cannot be decoded."""
    if not isinstance(seen.decoded, Decoded):
        return None
    if reveal:
        return plain(seen.decoded.datum)
    appraiser = desk.appraiser
    assert appraiser is not None
    names, shown = appraiser.field_names(seen.decoded), shown_of(appraiser.event(seen.decoded))
    return plain(mask(seen.decoded.datum, names=names, shown=shown))


def payload_of(desk: "Desk", seen: "Seen", verdict: "Verdict | None", *, reveal: bool) -> Any:
    """Return the body that would be posted today, or None if nothing would be."""
    if not isinstance(verdict, Prepared) or not isinstance(seen.decoded, Decoded):
        return None
    body = orjson.loads(verdict.request.body)
    if reveal:
        return body
    appraiser = desk.appraiser
    assert appraiser is not None
    return mask(body, names=PAYLOAD_NAMES, shown=shown_of(appraiser.event(seen.decoded)))


def headers_of(record: Record, *, reveal: bool) -> Iterator[tuple[str, str]]:
    """Yield key and headers as text; ours as they are, since they hold nobody's data."""
    yield "key", _text(record.key, reveal=reveal)
    for number, (name, value) in enumerate(record.headers, 1):
        if name in OURS:
            yield name, _text(value, reveal=True)
        else:
            yield name if reveal else f"{MASK} header {number}", _text(value, reveal=reveal)


def _text(value: bytes | None, *, reveal: bool) -> str:
    if value is None:
        return "-"
    return value.decode("utf-8", "backslashreplace") if reveal else describe(value)


def plain(value: Any) -> Any:
    """Return *value* in types that JSON has: bytes become hexadecimal, what else is unknown its text."""
    return orjson.loads(orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS))


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return format(value, "f") if isinstance(value, Decimal) and value.is_finite() else str(value)
