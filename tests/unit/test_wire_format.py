from uuid import UUID

import pytest

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

GUID = UUID("89791762-2336-186f-9674-299b90a8e2e5")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\0\0\0\0\x07body", Body(ById(7), 5)),
        (b"\0\0\0\0\x07", Body(ById(7), 5)),
        (b"\0\x7f\xff\xff\xffx", Body(ById(2**31 - 1), 5)),
        (b"\0\x80\0\0\0x", BadFrame("bad_schema_id")),
        (b"\0\xff\xff\xff\xffx", BadFrame("bad_schema_id")),
        (b"\0\0\0\0\0x", BadFrame("bad_schema_id")),
        (b"\x01\0\0\0\x07x", BadFrame("bad_magic")),
        (b'{"a":1}', BadFrame("bad_magic")),
        (b"\0\0\0\x07", BadFrame("too_short")),
        (b"", BadFrame("too_short")),
    ],
)
def test_an_id_before_the_body(value, expected):
    assert locate_confluent(value, ()) == expected


def test_a_header_wins_whatever_the_first_byte_of_the_value():
    headers = (("other", b"x"), (SCHEMA_HEADER, b"\x01" + GUID.bytes))
    for value in (b"", b"\0\0\0\0\x07body", b"\xc3\x01"):
        assert locate_confluent(value, headers) == Body(ByGuid(str(GUID)), 0)
    assert locate_confluent(b"x", ((SCHEMA_HEADER, b"\0\0\0\0\x09"),)) == Body(ById(9), 0)


@pytest.mark.parametrize("content", [b"", b"\x01", b"\x01" + b"g" * 15, b"\x01" + b"g" * 17, b"\x02" + b"g" * 16, b"7"])
def test_a_header_that_is_no_schema_is_not_looked_past(content):
    assert locate_confluent(b"\0\0\0\0\x07body", ((SCHEMA_HEADER, content),)) == BadFrame("bad_schema_header")


def test_a_header_names_an_id_in_range():
    assert locate_confluent(b"", ((SCHEMA_HEADER, b"\0\0\0\0\0"),)) == BadFrame("bad_schema_id")


def test_a_null_header_is_no_header():
    assert locate_confluent(b"\0\0\0\0\x07body", ((SCHEMA_HEADER, None),)) == Body(ById(7), 5)


def test_single_object_encoding():
    assert locate_single_object(b"\xc3\x01" + b"12345678" + b"body", ()) == Body(ByFingerprint(b"12345678"), 10)
    assert locate_single_object(b"\xc3\x02" + b"12345678", ()) == BadFrame("bad_magic")
    assert locate_single_object(b"\xc3\x01" + b"1234567", ()) == BadFrame("too_short")


def test_plain_is_all_body():
    assert locate_plain(b"\0\0\0\0\x07", ()) == Body(Configured(), 0)


def test_references_of_different_kinds_are_different_and_name_themselves():
    references = [ById(1), ByGuid("1"), ByFingerprint(b"1"), Configured()]
    assert len(set(references)) == 4
    assert [str(each) for each in references] == ["id 1", "guid 1", "fingerprint 31", "the configured schema"]
