"""A mapping held against schemas: the built-in one, a company's unlike ours, and what is refused."""

import json
import tomllib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastavro import parse_schema

from consumer.adapters.mapping_file import load
from consumer.core.event import InAppEvent
from consumer.core.mapping import CompiledMapping, Filtered, MappingSpec, OtherType, compile_mapping
from consumer.core.outcome import Rejected
from consumer.core.payload import KochavaPayload, PayloadRules, build, serialise
from consumer.errors import MappingError
from consumer.ports import Decoded
from tests.support import busy_schema
from tests.support.avro import EVENT, EVENT_V2, builtin, encode, one_field, plain_decoder, record_of


def compiled(toml: str, schema: Any, **kwargs: Any) -> CompiledMapping:
    made = compile_mapping(MappingSpec.parse(tomllib.loads(toml)), schema, **kwargs)
    assert isinstance(made, CompiledMapping)
    return made


def mapped(toml: str, schema: Any, datum: Any) -> InAppEvent:
    event = compiled(toml, schema).map(datum)
    assert isinstance(event, InAppEvent), event
    return event


def problems(toml: str, schema: Any = None) -> list[str]:
    with pytest.raises(MappingError) as caught:
        compile_mapping(MappingSpec.parse(tomllib.loads(toml)), schema or one_field("string"))
    return list(caught.value.problems)


def one(rest: str, kind: Any, value: Any) -> InAppEvent | Filtered | Rejected:
    """Map a record whose only field is `f`."""
    return compiled(f'[[type]]\nrecords = "One"\napp = "f"\n{rest}', one_field(kind)).map({"f": value})


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [("long", 0, 0), ("long", 4, 4), ("double", 4.9, 4), ("string", "7.5", 7), ("long", -1, None),
     ("double", -0.5, None), ("long", 2**62, None)],
)  # fmt: skip
def test_a_duration_is_whole_seconds_from_zero_on(kind: str, value: Any, expected: int | None) -> None:
    """Found by the fuzzer: a negative one was sent, and so were fractions, where Kochava takes whole seconds."""
    event = one('name = "f"\natt_duration = "f"', kind, value)
    if expected is None:
        assert event == Rejected("bad_att_duration")
    else:
        assert isinstance(event, InAppEvent)
        assert (type(event.att_duration_s), event.att_duration_s) == (int, expected)


# -- the built-in mapping


@pytest.mark.parametrize(("version", "datum"), [(1, EVENT), (2, EVENT_V2)])
@pytest.mark.parametrize("parse", [parse_schema, lambda schema: schema], ids=["parsed", "plain"])
def test_the_builtin_mapping_fits_both_versions(version: int, datum: dict[str, Any], parse: Any) -> None:
    made = compile_mapping(load(None), parse(builtin(version)))
    assert isinstance(made, CompiledMapping)
    event = made.map(datum)
    assert isinstance(event, InAppEvent)
    device = datum["device"]
    assert event.event_id == datum["event_id"] == event.properties["event_id"]
    assert (event.app, event.platform, event.name) == ("shop", "android", "purchase")
    assert event.time_ms == 1793707200123
    assert (event.install_id, event.ip, event.user_agent) == (device["install_id"], device["ip"], device["user_agent"])
    assert (event.model, event.os_name, event.os_version) == ("Pixel 9", "Android", "16")
    assert (event.app_version, event.currency) == ("4.2.1", "EUR")
    assert (event.att_status, event.gdpr_applies, event.ad_user_data) == ("denied", True, True)
    assert event.ad_personalization is False
    assert event.properties == {**datum["properties"], "sum": 19.99, "event_id": datum["event_id"]}
    ids = {"advertising_id": device["advertising_id"]}
    assert event.ids == (ids if version == 1 else {**ids, "loyalty": "42"})
    assert event.att_duration_s == (None if version == 1 else 4)
    assert event.limit_tracking is None  # Kochava's type for it is unsettled


def test_the_builtin_mapping_without_consent() -> None:
    made = compile_mapping(load(None), builtin(1))
    assert isinstance(made, CompiledMapping)
    event = made.map({**EVENT, "consent": None})
    assert isinstance(event, InAppEvent)
    assert event.att_status is None
    assert event.gdpr_applies is None


def test_mapping_an_event_does_not_change_it() -> None:
    made = compile_mapping(load(None), builtin(2))
    assert isinstance(made, CompiledMapping)
    before = json.dumps(EVENT_V2, default=str)
    first, second = made.map(EVENT_V2), made.map(EVENT_V2)
    assert first == second
    assert isinstance(first, InAppEvent)
    first.properties["more"] = 1
    first.ids["more"] = "1"
    assert json.dumps(EVENT_V2, default=str) == before


def test_settings_say_where_the_event_id_is() -> None:
    made = compile_mapping(load(None), builtin(2), event_id="session_id")
    assert isinstance(made, CompiledMapping)
    event = made.map(EVENT_V2)
    assert isinstance(event, InAppEvent)
    assert event.properties["event_id"] == "s-1"
    with pytest.raises(MappingError, match=r"event_id.*session_id"):
        compile_mapping(load(None), builtin(1), event_id="session_id")


def test_a_type_that_no_entry_names() -> None:
    assert compile_mapping(load(None), one_field("string")) == OtherType("One")
    assert compile_mapping(load(None), {**builtin(1), "namespace": "elsewhere"}) == OtherType("elsewhere.InAppEvent")


def test_a_file_that_is_not_there_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="cannot be read"):
        load(tmp_path / "none.toml")
    for content in (b"[[type", b"a = '\xff'"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(MappingError, match=r"bad\.toml: not TOML"):
            load(tmp_path / "bad.toml")


# -- any company's schema


def busy(**changes: Any) -> InAppEvent | Filtered | Rejected:
    decoder = plain_decoder(busy_schema.SCHEMA)
    decoded = decoder.decode(record_of(encode(busy_schema.SCHEMA, busy_schema.datum(**changes))))
    assert isinstance(decoded, Decoded)
    return compiled(busy_schema.MAPPING, decoder.parsed_schema(decoded.schema)).map(decoded.datum)


def test_a_schema_unlike_ours_needs_no_code() -> None:
    event = busy()
    assert isinstance(event, InAppEvent)
    assert event.event_id == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert (event.app, event.platform, event.name, event.time_ms) == ("busy", "ios", "Purchase", 1719830400123)
    assert event.install_id == "busy:00000000-0000-0000-0000-000000000007"
    assert (event.ip, event.user_agent, event.currency) == ("203.0.113.7", "Busy/3", "jpy")
    assert (event.att_status, event.gdpr_applies, event.ad_user_data) == ("authorized", True, True)
    assert event.ids == {"vendor_id": "599F9C00", "android_id": "ff01"}
    payload = build(event, "guid", PayloadRules())
    assert isinstance(payload, KochavaPayload)
    made = serialise(payload)
    assert not isinstance(made, Rejected)
    # 26 digits, exact
    assert b'"sum":12345678901234567.123456789,' in made[0]
    assert orjson.loads(made[0])["data"]["event_data"] == {
        "sum": 12345678901234567.123456789,
        "currency": "jpy",
        "gift": True,
        "day": "2024-07-01",
        "event_id": event.event_id,
    }


def test_other_branches_of_its_unions() -> None:
    event = busy(body={"name": "finish"}, who={**busy_schema.datum()["who"], "addresses": [["192.0.2.1"]]})
    assert isinstance(event, InAppEvent)
    assert (event.name, event.ip, event.currency) == ("Tutorial Complete", "192.0.2.1", None)
    assert set(event.properties) == {"day", "event_id"}
    # a text where the device could be: no platform, not an error
    event = busy(who="anonymous", body={"name": "other step"})
    assert isinstance(event, InAppEvent)
    assert (event.platform, event.name, event.ids) == (None, "other step", {})
    assert busy(body=None, who=None) == busy(body=None, who=None)


def test_its_filter_and_its_status_words() -> None:
    consent = busy_schema.datum()["consent"]
    assert busy(body={"name": "internal.tick"}) == Filtered("internal_step")
    assert isinstance(busy(body={"name": "internal.tick"}, consent={**consent, "force": 1}), InAppEvent)
    assert busy(consent={**consent, "ads": "MAYBE"}) == Rejected("bad_ad_user_data")
    assert busy(consent={**consent, "gdpr": 7}) == Rejected("bad_gdpr_applies")
    event = busy(consent={**consent, "tracking": "whatever"})
    assert isinstance(event, InAppEvent)
    assert event.att_status is None


def test_types_that_another_schema_defines() -> None:
    """With references, and for branches of a union, the record alone doesn't hold all its types."""
    money = {"type": "record", "name": "x.Money", "fields": [{"name": "code", "type": "string"}]}
    sale = {"type": "record", "name": "x.Sale", "fields": [{"name": "money", "type": "x.Money"}]}
    named: dict[str, Any] = {}
    parse_schema(money, named)
    schema = {**sale, "__named_schemas": named}
    event = mapped(
        '[[type]]\nrecords = "x.Sale"\napp = "money.code"\nname = "money.code"', schema, {"money": {"code": "a"}}
    )
    assert event.app == "a"


# -- values that don't fit


@pytest.mark.parametrize(
    ("rest", "kind", "value", "reason"),
    [
        ('name = "f"\ntime = "f"', "string", "yesterday", "bad_time"),
        ('name = "f"\ntime = "f"', "long", -1, "bad_time"),
        ('name = "f"\ntime = "f"', "long", 1719830400123456, "bad_time"),
        ('name = "f"\ntime = {path = "f", as = "from_s"}', "long", 1719830400123, "bad_time"),
        ('name = "f"\ngdpr_applies = "f"', "string", "perhaps", "bad_gdpr_applies"),
        ('name = "f"\natt_duration = "f"', "string", "long", "bad_att_duration"),
        ('name = {path = "f", as = "utf8"}', ["bytes", "string"], "text", "bad_app"),
        ('name = "f"\n[type.properties]\nfrom = [{path = "f", as = "json"}]', "string", "{", "bad_properties"),
        ('name = "f"\n[type.properties]\nfrom = [{path = "f", as = "json"}]', "string", "[1]", "bad_properties"),
        ('name = "f"\n[type.ids]\n"*" = {path = "f", as = "json"}', "string", "[1]", "bad_ids"),
        ('name = "f"\n[type.properties.add]\nn = {path = "f", as = "number"}', "string", "1e99", "bad_properties"),
    ],
)
def test_a_value_of_an_unexpected_type(rest: str, kind: Any, value: Any, reason: str) -> None:
    if reason == "bad_app":  # the app itself is bytes, which are no text
        value = b"\xff"
    assert one(rest, kind, value) == Rejected(reason)


def test_json_nested_without_end() -> None:
    rest = 'name = {constant = "n"}\n[type.properties]\nfrom = [{path = "f", as = "json"}]'
    deep = '{"a":' * 500 + "1" + "}" * 500
    assert one(rest, "string", deep) == Rejected("bad_properties")
    event = one(rest, "string", '{"a": [{"b": 1}, null, "x"]}')
    assert isinstance(event, InAppEvent)
    assert event.properties == {"a.0.b": 1, "a.2": "x"}


def test_a_record_that_is_not_what_the_schema_says() -> None:
    made = compile_mapping(load(None), builtin(2))
    assert isinstance(made, CompiledMapping)
    for datum in (
        {},
        None,
        7,
        {**EVENT_V2, "device": "x"},
        {**EVENT_V2, "occurred_at": [1]},
        {**EVENT_V2, "device": None},
    ):
        assert isinstance(made.map(datum), Rejected)
    event = made.map({**EVENT_V2, "event_name": 7})
    assert isinstance(event, InAppEvent)
    assert event.name == "7"


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        ({"type": "long", "logicalType": "timestamp-millis"}, datetime(2024, 7, 1, 10, 40, tzinfo=UTC), 1719830400000),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, datetime(2024, 7, 1, 10, 40), 1719830400000),  # noqa: DTZ001
        ({"type": "long", "logicalType": "timestamp-nanos"}, 1719830400_000_000_000, 1719830400000),
        ("string", "2024-07-01T10:40:00", 1719830400000),
        ("string", "2024-07-01T12:40:00+02:00", 1719830400000),
        ("string", " 1719830400000 ", 1719830400000),
        ("double", 1719830400000.4, 1719830400000),
        ("long", 0, 0),
    ],
)
def test_moments(kind: Any, value: Any, wanted: int) -> None:
    event = one('name = {constant = "n"}\ntime = "f"'.replace('app = "f"', ""), kind, value)
    assert isinstance(event, InAppEvent)
    assert event.time_ms == wanted


def test_milliseconds_before_the_point_are_kept() -> None:
    at = datetime(2024, 7, 1, 10, 40, tzinfo=UTC) + timedelta(microseconds=999_999)
    event = one('name = {constant = "n"}\ntime = "f"', {"type": "long", "logicalType": "timestamp-micros"}, at)
    assert isinstance(event, InAppEvent)
    assert event.time_ms == 1719830400999


def test_conditions_do_not_take_true_for_one() -> None:
    rest = 'name = {constant = "n"}\nmodel = {constant = "m", when = {path = "f", equals = 1}}'
    for kind, value, model in (("boolean", True, None), ("long", 1, "m"), ("double", 1.0, "m"), ("string", "1", None)):
        event = one(rest, kind, value)
        assert isinstance(event, InAppEvent)
        assert event.model == model


# -- files that are refused


def test_every_problem_at_once_with_the_nearest_name() -> None:
    found = problems(
        """
        [[type]]
        records = "One"
        ap = "f"
        name = { path = "f", ass = "upper" }
        time = { path = "f", as = "epoch_s" }
        model = { path = "f", as = "uper" }
        platform = { path = "f", lookup = "platform", otherwise = "ignore" }
        os_name = { first = [] }
        os_version = { path = "f", constant = 1 }
        ip = { path = "f", separator = "-" }
        currency = 7
        filter = [{ when = { path = "f" }, reason = "x" }, { when = { path = "f", matches = "(" }, reason = "x" },
                  { when = { path = "f", equal = "a" }, reason = "Not A Word" }]
        [type.properties]
        form = ["f"]
        drop = "f"
        rename = ["f"]
        [type.ids]
        udid = { path = "f", when = { part = "udid", exists = true } }
        [lookup.platforms]
        a = ["b"]
        [types]
        """
    )
    for words in (
        "types: unknown; did you mean type?",
        "[lookup.platforms].a: a text",
        "[[type]] One: app: required",
        "ap: unknown; did you mean app?",
        "name.ass: unknown; did you mean as?",
        "time.as: epoch_s gives no moment",
        "model.as: unknown conversion 'uper'; did you mean upper?",
        "platform.lookup: there is no [lookup.platform]; did you mean platforms?",
        "platform.otherwise: keep, drop or reject",
        "os_name.first: a list",
        "os_version: exactly one of",
        "ip.separator: goes with join",
        "currency: write a path",
        "filter[0].when: one path or part",
        "filter[1].when.matches: not a regular expression",
        "filter[2]: write when",
        "properties.form: unknown; did you mean from?",
        "properties.drop: a list",
        "properties.rename: a table",
        "ids.udid.when.part: 'udid' is no part",
    ):
        assert any(words in problem for problem in found), (words, found)


def test_paths_that_the_schema_does_not_have() -> None:
    toml = """
        [[type]]
        records = "events.inapp.InAppEvent"
        app = "app_id"
        name = { first = ["event_nam", "app_id.x", "properties.y.z"] }
        ip = "device.ipp"
        model = "device"
        os_name = "device[0]"
        os_version = "device<Consent>"
        filter = { when = { not = { path = "consent.att", exists = true } }, reason = "x" }
        [type.ids]
        "*" = "device.model"
        udid = { path = "devise.udid" }
        [type.properties]
        from = ["event_id", "propertys"]
        add = { sum = "amont", key = { path = "device.nothing?" } }
        """
    found = problems(toml, builtin(1))
    for words in (
        "mapping of events.inapp.InAppEvent: name.first[0]: event_nam: the schema has no 'event_nam' there; did you",
        "name.first[1]: app_id.x: the schema has no 'x' there, what comes before is of type string",
        "name.first[2]: properties.y.z: the schema has no 'z'",
        "ip: device.ipp: the schema has no 'ipp' there; did you mean ip?",
        "model: this is of type record; go on into it",
        "os_name: device[0]: the schema has no 0 there",
        "os_version: device<Consent>: the schema has no 'Consent' there",
        "filter[0].when.not.path: consent.att: the schema has no 'att' there; there are: ad_personalization, ",
        "ids.*: this is of type string, not a map",
        "ids.udid.path: devise.udid: the schema has no 'devise' there; did you mean device?",
        "properties.from[0]: event_id is neither a map nor a record",
        "properties.from[1]: propertys: the schema has no 'propertys' there; did you mean properties?",
        "properties.add.sum: amont: the schema has no 'amont' there; did you mean amount?",
    ):
        assert any(words in problem for problem in found), (words, found)
    assert len(found) == 13


@pytest.mark.parametrize(
    "path", ["", "?", ".a", "a..b", "a.", "[0]", "a[x]", 'a."b', "a b", "a[0]b", "a<", 'a"b"', "a?b"]
)
def test_what_is_not_a_path(path: str) -> None:
    with pytest.raises(MappingError, match="path"):
        MappingSpec.parse({"type": [{"records": "One", "app": path, "name": "f"}]})


def test_bytes_are_no_text_until_the_mapping_says_which() -> None:
    toml = '[[type]]\nrecords = "One"\napp = "f"\nname = {path = "f", as = "hex"}\n[type.ids]\nudid = "f"'
    found = problems(toml, one_field("bytes"))
    assert [problem.split(":")[1].strip() for problem in found] == ["ids.udid", "app"]


def test_branches_that_a_value_does_not_tell_apart() -> None:
    def record(name: str) -> dict[str, Any]:
        return {"type": "record", "name": name, "fields": [{"name": "x", "type": "int"}]}

    toml = '[[type]]\nrecords = "One"\napp = "f<{}>.x"\nname = "f.x"'
    found = problems(toml.format("A"), one_field([record("A"), record("B")]))
    assert "doesn't tell A from another branch" in found[0]
    found = problems('[[type]]\nrecords = "One"\napp = "f<int>"\nname = "f"', one_field(["int", "long"]))
    assert "doesn't tell int from another branch" in found[0]


def test_a_part_that_depends_on_itself() -> None:
    toml = '[[type]]\nrecords = "One"\napp = "f"\nname = {path = "f", when = {part = "model", exists = true}}'
    found = problems(toml + '\nmodel = {path = "f", when = {part = "name", exists = true}}')
    assert any("depends on itself" in problem for problem in found)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": []},
        {"type": "x"},
        {"type": [7]},
        {"type": [{"records": 7, "app": "a", "name": "b"}]},
        {"type": [{"records": ["A", 7], "app": "a", "name": "b"}]},
        {"type": [{"records": ["A", "A"], "app": "a", "name": "b", "ids": 7, "properties": 7, "filter": 7}]},
        {"type": [{"records": "A", "app": {"first": [7, {}]}, "name": {"path": 7}}], "lookup": 7},
        {"type": [{"records": "A", "app": {"path": "a", "lookup": []}, "name": {"path": "a", "as": [[]]}}]},
        {"type": [{"records": "A", "app": {"constant": {}}, "name": {"constant": 2**70}}]},
        {"type": [{"records": "A", "app": "a", "name": {"path": "a", "as": "json", "at": "b<c>"}}]},
        {"type": [{"records": "A", "app": "a", "name": {"join": ["a"], "separator": 7}}]},
        {"type": [{"records": "A", "app": "a", "name": {"path": "a", "default": []}}]},
        {"type": [{"records": "A", "app": "a", "name": {"path": "a", "when": {"any": 7, "not": 7}}}]},
        {"type": [{"records": "A", "app": "a", "name": {"path": "a", "when": {"path": "a", "above": float("nan")}}}]},
        {"type": [{"records": "A", "app": "a", "name": {"path": "a", "when": {"part": [], "equals": []}}}]},
        {"type": [{"records": "A", "app": "a", "name": "a", "properties": {"from": [7, {"path": "a", "key": "b"}]}}]},
        {"type": [{"records": "A", "app": "a", "name": "a", "properties": {"add": 7, "keep": 7, "separator": 7}}]},
        {
            "type": [
                {"records": "A", "app": "a", "name": "a", "ids": {"x": 7}, "filter": [7, {"when": 7, "reason": "x"}]}
            ]
        },
    ],
)
def test_a_file_of_the_wrong_shape(data: dict[str, Any]) -> None:
    with pytest.raises(MappingError):
        MappingSpec.parse(data)


def test_texts_of_a_mapping_are_never_code() -> None:
    odd = "'\"\\n__import__('os').abort()#"
    data = {
        "type": [
            {
                "records": "One",
                "app": {"constant": odd},
                "name": "f",
                "ids": {odd: "f"},
                "properties": {"add": {odd: {"constant": odd}}},
            }
        ]
    }
    made = compile_mapping(MappingSpec.parse(data), one_field("string"))
    assert isinstance(made, CompiledMapping)
    event = made.map({"f": "x"})
    assert isinstance(event, InAppEvent)
    assert (event.app, event.ids, event.properties) == (odd, {odd: "x"}, {odd: odd})


@pytest.mark.parametrize(
    ("conversion", "kind", "value", "wanted"),
    [
        ('"from_s"', "long", 1719830400, "1719830400000"),
        ('"from_s"', "string", "1719830400.5", "1719830400500"),
        ('"from_ms"', "long", 1719830400123, "1719830400123"),
        ('"from_us"', "long", 1719830400123456, "1719830400123"),
        ('"from_ns"', "long", 1719830400123456789, "1719830400123"),
        ('["from_us", "epoch_s"]', "long", 1719830400999999, "1719830400"),
        ('"epoch_s"', "string", "2024-07-01", "1719792000"),
        ('"epoch_s"', {"type": "int", "logicalType": "date"}, date(2024, 7, 1), "1719792000"),
        ('"not"', "string", " Yes ", "false"),
        ('"boolean"', "long", 0, "false"),
        ('"base64"', "bytes", b"\xfb\xff", "+/8="),
        ('"utf8"', "bytes", "ö".encode(), "ö"),
        ('"uuid"', "string", "{00112233445566778899AABBCCDDEEFF}", "00112233-4455-6677-8899-aabbccddeeff"),
        ('["json", "text"]', "string", "1.50", "1.5"),
        ('["trim", "upper"]', "string", " a ", "A"),
        ('"text"', "double", 0.1, "0.1"),
    ],
)
def test_conversions(conversion: str, kind: Any, value: Any, wanted: str) -> None:
    toml = f'[[type]]\nrecords = "One"\napp = {{constant = "a"}}\nname = {{path = "f", as = {conversion}}}'
    assert mapped(toml, one_field(kind), {"f": value}).name == wanted


def test_an_empty_text_is_nothing_to_default_and_first() -> None:
    event = one('name = {path = "f", default = "d"}\nmodel = {first = ["f", {constant = "c"}]}', "string", "")
    assert isinstance(event, InAppEvent)
    assert (event.name, event.model) == ("d", "c")


def test_indexes_beyond_an_array() -> None:
    for index in (2, -3, 99, -99):
        toml = f'[[type]]\nrecords = "One"\napp = {{constant = "a"}}\nname = "f[{index}]"\nmodel = "f[-1]"'
        event = mapped(toml, one_field({"type": "array", "items": "string"}), {"f": ["x", "y"]})
        assert (event.name, event.model) == (None, "y")


def test_a_map_of_anything_becomes_properties() -> None:
    kinds = ["null", "string", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]
    lists = {"type": "array", "items": "long"}
    rest = 'name = {constant = "n"}\n[type.properties]\nfrom = "f"'
    toml = f'[[type]]\nrecords = "One"\napp = {{constant = "a"}}\n{rest}'
    datum = {"f": {"s": "x", "d": Decimal("1.50"), "n": None, "l": [1, 2]}}
    event = mapped(toml, one_field({"type": "map", "values": [*kinds, lists]}), datum)
    assert event.properties == {"s": "x", "d": 1.5, "l.0": 1, "l.1": 2}


# -- a writer schema with types that contain themselves (schemas.allow_recursive)

SCREEN = {
    "type": "record",
    "name": "Screen",
    "fields": [
        {"name": "name", "type": "string"},
        {"name": "before", "type": ["null", "Screen"]},
        {"name": "parts", "type": {"type": "array", "items": "Screen"}},
    ],
}
VISIT = {"name": "c", "parts": [{"name": "p", "before": None, "parts": []}],
         "before": {"name": "b", "parts": [], "before": {"name": "a", "parts": [], "before": None}}}  # fmt: skip


@pytest.mark.parametrize("parse", [parse_schema, lambda schema: schema], ids=["parsed", "plain"])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("f.name", "c"),
        ("f.before.before.name", "a"),
        ("f.before.before.before.name", None),
        ("f.parts[0].name", "p"),
        ('f.parts[name="p"].name', "p"),
        ("f.before<Screen>.name", "b"),
    ],
)
def test_paths_go_into_a_recursive_type_as_deep_as_they_say(parse: Any, path: str, expected: str | None) -> None:
    made = compiled(f'[[type]]\nrecords = "One"\napp = "f.name"\nname = \'{path}\'', parse(one_field(SCREEN)))
    event = made.map({"f": VISIT})
    assert isinstance(event, InAppEvent)
    assert event.name == expected


def test_a_path_that_a_recursive_type_lacks_is_an_error() -> None:
    toml = '[[type]]\nrecords = "One"\napp = "f.name"\nname = "f.before.before.nam"'
    assert any("nam" in problem for problem in problems(toml, one_field(SCREEN)))
    toml = '[[type]]\nrecords = "One"\napp = "f.name"\nname = "f.before"'
    assert any("record" in problem for problem in problems(toml, one_field(SCREEN)))


def test_properties_of_a_recursive_type_are_bounded() -> None:
    toml = '[[type]]\nrecords = "One"\napp = "f.name"\nname = "f.name"\nproperties = {from = ["f"]}'
    made = compiled(toml, one_field(SCREEN))
    event = made.map({"f": VISIT})
    assert isinstance(event, InAppEvent)
    assert event.properties == {"name": "c", "before.name": "b", "before.before.name": "a", "parts.0.name": "p"}
    deep = None
    for _ in range(250):
        deep = {"name": "x", "before": deep, "parts": []}
    assert made.map({"f": deep}) == Rejected("bad_properties")
