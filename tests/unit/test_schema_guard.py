import json

import pytest
from fastavro import parse_schema

from consumer.adapters.avro_decoder import parse
from consumer.core.schema_guard import (
    MAX_DECODED_BYTES,
    MAX_FIELDS,
    MAX_JSON_DEPTH,
    MAX_LOOPS,
    MAX_NESTING,
    MAX_REFERENCES,
    SchemaRefusedError,
    SchemaText,
    check_json_depth,
    smallest_bytes,
    survey,
)
from tests.support.avro import builtin, one_field


def check(schema):
    named = {}
    return survey(parse_schema(schema, named), named).max_body_bytes


def nest(levels, inner="int"):
    schema = inner
    for level in range(levels):
        schema = {"type": "record", "name": f"R{level}", "fields": [{"name": "f", "type": schema}]}
    return schema


def arrays(levels, inner="int"):
    for _ in range(levels):
        inner = {"type": "array", "items": inner}
    return inner


EMPTY = {"type": "record", "name": "Empty", "fields": []}
RECURSIVE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (RECURSIVE, "contains itself"),
        (one_field({"type": "array", "items": RECURSIVE}), "contains itself"),
        (
            {"type": "record", "name": "A", "fields": [{"name": "b", "type": {**one_field("A"), "name": "B"}}]},
            "contains itself",
        ),
        (one_field({"type": "array", "items": "null"}), "no bytes"),
        (one_field({"type": "map", "values": "null"}), "no bytes"),
        (one_field({"type": "array", "items": EMPTY}), "no bytes"),
        (one_field({"type": "array", "items": nest(2, "null")}), "no bytes"),
        (one_field({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}), "no bytes"),
        (one_field({"type": "fixed", "name": "F", "size": -1}), "fixed of size"),
        (nest(MAX_NESTING + 1), "nested deeper"),
        (one_field(arrays(MAX_LOOPS + 1)), "within each other"),
        (
            {
                "type": "record",
                "name": "Wide",
                "fields": [{"name": f"f{n}", "type": "int"} for n in range(MAX_FIELDS + 1)],
            },
            "more than 2000 fields",
        ),
        (one_field({"type": "bytes", "logicalType": "decimal", "precision": 39}), "precision"),
        (one_field({"type": "bytes", "logicalType": "decimal"}), "precision"),
        (one_field([]), "0 branches"),
        (one_field([{"type": "fixed", "name": f"F{n}", "size": 1} for n in range(201)]), "201 branches"),
    ],
)
def test_what_can_hurt_is_refused_and_named(schema, words):
    with pytest.raises(SchemaRefusedError, match=words):
        check(schema)


def test_a_type_that_is_used_often_counts_often():
    # 2 ** 12 fields out of 13 definitions
    schema = {"type": "record", "name": "R0", "fields": [{"name": "f", "type": "int"}]}
    for level in range(1, 13):
        fields = [{"name": "a", "type": schema}, {"name": "b", "type": f"R{level - 1}"}]
        schema = {"type": "record", "name": f"R{level}", "fields": fields}
    with pytest.raises(SchemaRefusedError, match="more than 2000 fields"):
        check(schema)


@pytest.mark.parametrize("version", [1, 2])
def test_our_own_schemas_may_use_the_whole_default_record_size(version):
    assert check(builtin(version)) >= 1_048_576


def test_the_limits_themselves_are_allowed():
    assert check(nest(MAX_NESTING)) > 0
    assert check(one_field(arrays(MAX_LOOPS))) > 0


def test_items_that_weigh_much_for_their_bytes_shorten_the_record():
    # one byte on the wire becomes a tree of dicts
    light, heavy = one_field({"type": "array", "items": "long"}), one_field({"type": "array", "items": nest(14)})
    assert check(light) > 1_048_576
    assert check(heavy) < MAX_DECODED_BYTES / (14 * 64)


# -- recursive types, where a setting allows them

A_AND_B = {
    "type": "record",
    "name": "A",
    "fields": [
        {"name": "n", "type": "int"},
        {"name": "bs", "type": {"type": "array", "items": {
            "type": "record", "name": "B", "fields": [{"name": "a", "type": ["null", "A"]}]}}},
    ],
}  # fmt: skip


def allow(schema):
    named = {}
    return survey(parse_schema(schema, named), named, allow_recursive=True)


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        (RECURSIVE, {"Node"}),
        (one_field({"type": "array", "items": RECURSIVE}), {"Node"}),
        (A_AND_B, {"A"}),
        ([one_field("int"), RECURSIVE], {"Node"}),
        (builtin(2), set()),
        ({**one_field("One")}, {"One"}),  # no value of it ever ends
    ],
)
def test_one_record_of_each_circle_is_named(schema, names):
    assert allow(schema).recursive == names


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_not_recursive_is_judged_alike(version):
    named = {}
    schema = parse_schema(builtin(version), named)
    assert survey(schema, named) == survey(schema, named, allow_recursive=True)


def test_a_type_that_repeats_in_itself_is_weighed_like_an_array():
    # a byte becomes a dict
    assert allow(RECURSIVE).max_body_bytes < MAX_DECODED_BYTES / 100
    assert allow(RECURSIVE).max_body_bytes > 100_000
    assert allow(A_AND_B).max_body_bytes < MAX_DECODED_BYTES / 50


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"type": "array", "items": "null"}, "no bytes"),
        ({"type": "map", "values": EMPTY}, "no bytes"),
        (nest(MAX_NESTING), "nested deeper"),
        (arrays(MAX_LOOPS + 1), "within each other"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 39}, "precision"),
        ([{"type": "fixed", "name": f"F{n}", "size": 1} for n in range(201)], "201 branches"),
    ],
)
def test_all_other_limits_hold_for_recursive_types_too(kind, words):
    with pytest.raises(SchemaRefusedError, match=words):
        allow({**RECURSIVE, "fields": [*RECURSIVE["fields"], {"name": "f", "type": kind}]})


def test_types_that_all_name_each_other_are_refused_soon():
    """Their paths grow as a factorial does."""
    names = [f"R{n}" for n in range(12)]
    references = [{"name": f"f{name}", "type": ["null", name]} for name in names]
    schema = [{"type": "record", "name": name, "fields": []} for name in names]
    _, named = parse(SchemaText(json.dumps(schema)))
    for name in names:
        named[name]["fields"] = references
    with pytest.raises(SchemaRefusedError, match="more than 2000 fields"):
        survey(named["R0"], named, allow_recursive=True)


def test_a_value_of_a_recursive_type_has_a_byte():
    named = {}
    schema = parse_schema(A_AND_B, named)
    assert smallest_bytes(schema, named, {"A"}) == 1
    assert smallest_bytes(named["B"], named, {"A"}) == 1 + 0
    assert smallest_bytes(schema, named, {"B"}) == 2


def test_smallest_bytes():
    named = {}
    schema = parse_schema(builtin(1), named)
    # five strings and times, three nulls, ten nulls of the device, consent, properties
    assert smallest_bytes(schema, named) == 5 + 3 + 10 + 1 + 1


def test_deep_json_is_refused_before_it_is_parsed():
    check_json_depth(builtin(2))
    deep = []
    for _ in range(MAX_JSON_DEPTH):
        deep = [deep]
    with pytest.raises(SchemaRefusedError, match="nested deeper"):
        check_json_depth(deep)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[" * 500 + "]" * 500, "nested deeper"),
        ('{"type": "record"}', "not an Avro schema"),
        ('{"type": ["string"]}', "not an Avro schema"),
        ("17", "not an Avro schema"),
        ("null", "not an Avro schema"),
        ('"nowhere.Defined"', "not an Avro schema"),
        ('{"type": "record", "name": "R", "fields": 3}', "not an Avro schema"),
        (" " * 1_048_577, "more than"),
    ],
)
def test_what_is_no_schema_is_refused(text, words):
    with pytest.raises(SchemaRefusedError, match=words):
        parse(SchemaText(text))


def test_references_are_parsed_first_and_bounded():
    child = {**one_field("int"), "name": "a.Child"}
    parsed, named = parse(SchemaText(json.dumps(one_field("a.Child")), (json.dumps(child),)))
    assert survey(parsed, named).max_body_bytes > 0
    assert smallest_bytes(parsed, named) == 1
    with pytest.raises(SchemaRefusedError, match="references"):
        parse(SchemaText('"int"', ('"int"',) * (MAX_REFERENCES + 1)))


def test_a_circle_through_references_is_refused():
    # the second definition of the name closes the circle behind the parser's back
    first = json.dumps({**one_field("int"), "name": "a.X"})
    second = json.dumps({**one_field("a.X"), "name": "a.Y"})
    third = json.dumps({**one_field("a.Y"), "name": "a.X"})
    parsed, named = parse(SchemaText(third, (first, second)))
    with pytest.raises(SchemaRefusedError, match="contains itself"):
        survey(parsed, named)
