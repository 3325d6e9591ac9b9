"""The project's own schemas: each version reads what the other wrote, and loads from the folder they live in."""

import io
import json

import pytest
from fastavro import parse_schema, schemaless_reader

from consumer.adapters.schema_directory import SchemaDirectory, builtin_schemas
from consumer.core.wire_format import ByFingerprint, ById
from consumer.errors import SettingsError
from tests.support.avro import EVENT, EVENT_V2, NEW_IN_V2, builtin, encode


def read(value, writer, reader):
    return schemaless_reader(io.BytesIO(value), parse_schema(writer), parse_schema(reader))


def test_version_2_reads_version_1_with_defaults():
    expected = {
        **EVENT,
        "device": {**EVENT["device"], **NEW_IN_V2["device"]},
        "consent": {**EVENT["consent"], **NEW_IN_V2["consent"]},
        "session_id": None,
    }
    assert read(encode(builtin(1), EVENT), builtin(1), builtin(2)) == expected


def test_version_1_reads_version_2_and_leaves_out_what_is_new():
    assert read(encode(builtin(2), EVENT_V2), builtin(2), builtin(1)) == EVENT


def records_of(schema, found=None):
    """All record types in *schema* by name."""
    found = {} if found is None else found
    if isinstance(schema, list):
        for branch in schema:
            records_of(branch, found)
    elif isinstance(schema, dict):
        if schema["type"] == "record":
            found[schema["name"]] = {each["name"]: each for each in schema["fields"]}
        for each in schema.get("fields", []):
            records_of(each["type"], found)
        for key in ("items", "values"):
            if key in schema:
                records_of(schema[key], found)
    return found


def test_a_version_only_adds_fields_and_each_has_a_default():
    old, new = records_of(builtin(1)), records_of(builtin(2))
    assert old.keys() == new.keys()
    added = 0
    for name, fields in new.items():
        assert old[name].keys() <= fields.keys()
        for field in fields.keys() - old[name].keys():
            assert "default" in fields[field]
            added += 1
    assert added == 4


@pytest.mark.parametrize("version", [1, 2])
def test_every_type_and_field_says_what_it_means(version):
    for fields in records_of(builtin(version)).values():
        for field in fields.values():
            assert field["doc"].endswith(".")


def test_the_built_in_folder_has_ids_and_fingerprints_for_both():
    directory = SchemaDirectory(builtin_schemas())
    assert set(directory.by_id) == {ById(1), ById(2)}
    # as Avro's own tools compute them, in the byte order of the wire
    assert ByFingerprint(bytes.fromhex("348439773ca338be")) in directory.by_fingerprint
    assert ByFingerprint(bytes.fromhex("ca969ef0df02efd9")) in directory.by_fingerprint
    assert len(directory.references) == 4


def test_everything_wrong_with_a_folder_is_said_at_once(tmp_path):
    (tmp_path / "a.avsc").write_text("{")
    (tmp_path / "b.avsc").write_text('{"type": "record", "name": "R"')
    (tmp_path / "c.avsc").write_bytes(b"\xff")
    (tmp_path / "d.avsc").write_text(json.dumps({**builtin(1), "confluent.id": 0}))
    (tmp_path / "e.avsc").write_text(json.dumps({**builtin(1), "confluent.id": 5}))
    (tmp_path / "f.avsc").write_text(json.dumps({**builtin(2), "confluent.id": 5}))
    (tmp_path / "g.avsc").write_text('{"type": "surprise"}')
    with pytest.raises(SettingsError) as caught:
        SchemaDirectory(tmp_path)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [f"schema {x}.avsc" for x in "abcdfg"]


def test_a_folder_without_schemas_is_a_mistake(tmp_path):
    with pytest.raises(SettingsError, match=r"no \.avsc file"):
        SchemaDirectory(tmp_path)
    with pytest.raises(SettingsError, match="no such folder"):
        SchemaDirectory(tmp_path / "nowhere")
