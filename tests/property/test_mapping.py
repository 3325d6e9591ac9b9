"""Whatever a producer writes within its schema, and whatever a decoder hands over: a value, never an exception."""

import re
import string
import tomllib
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import given, strategies as st

from consumer.adapters.mapping_file import load
from consumer.core.event import InAppEvent
from consumer.core.mapping import CompiledMapping, Filtered, MappingSpec, compile_mapping
from consumer.core.mapping_paths import PathError, parse
from consumer.core.mapping_values import CONVERSIONS, BadValueError, number
from consumer.core.outcome import Rejected
from consumer.core.payload import PayloadRules, build, serialise
from consumer.errors import MappingError
from tests.support import busy_schema
from tests.support.avro import builtin

LOGICAL: dict[str, st.SearchStrategy[Any]] = {
    "timestamp-millis": st.datetimes(timezones=st.just(UTC)),
    "timestamp-nanos": st.integers(-(2**63), 2**63 - 1),
    "date": st.dates(),
    "uuid": st.uuids(),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**14), max_value=10**14),
}
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "string": st.one_of(st.text(max_size=6), st.sampled_from(["Y", "203.0.113.7", "2024-07-01", "1", "authorized"])),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "bytes": st.binary(max_size=8),
}


def values(schema: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return what a reader can make of *schema*."""
    if isinstance(schema, list):
        return st.one_of([values(branch, named) for branch in schema])
    if isinstance(schema, str):
        return SCALARS[schema] if schema in SCALARS else values(named[schema], named)
    if "name" in schema:
        named[schema["name"]] = schema
    kind = schema["type"]
    if schema.get("logicalType") in LOGICAL:
        return LOGICAL[schema["logicalType"]]
    match kind:
        case "record":
            return st.fixed_dictionaries({f["name"]: values(f["type"], named) for f in schema["fields"]})
        case "array":
            return st.lists(values(schema["items"], named), max_size=3)
        case "map":
            keys = st.one_of(st.text(max_size=4), st.sampled_from(["idfa", "campaign", "tracking", "ads", "event_id"]))
            return st.dictionaries(keys, values(schema["values"], named), max_size=4)
        case "enum":
            return st.sampled_from(schema["symbols"])
        case "fixed":
            return st.binary(min_size=schema["size"], max_size=schema["size"])
    return values(kind, named)


def compiled(spec: MappingSpec, schema: Any) -> CompiledMapping:
    made = compile_mapping(spec, schema)
    assert isinstance(made, CompiledMapping)
    return made


BUILTIN = {version: compiled(load(None), builtin(version)) for version in (1, 2)}
BUSY = compiled(MappingSpec.parse(tomllib.loads(busy_schema.MAPPING)), busy_schema.SCHEMA)
RULES = PayloadRules()


def go_on(result: InAppEvent | Filtered | Rejected) -> None:
    """Take an event to the bytes that are sent."""
    if isinstance(result, InAppEvent):
        payload = build(result, "guid", RULES)
        if not isinstance(payload, Rejected):
            assert isinstance(serialise(payload), tuple)
    elif isinstance(result, Rejected):
        assert re.fullmatch(r"bad_[a-z_]+", result.reason)
    else:
        assert result == Filtered("internal_step")


@given(values(builtin(1), {}))
def test_any_record_of_version_1(datum: Any) -> None:
    result = BUILTIN[1].map(datum)
    assert isinstance(result, InAppEvent) or result == Rejected("bad_time") or result == Rejected("bad_att_time")
    go_on(result)


@given(values(builtin(2), {}))
def test_any_record_of_version_2(datum: Any) -> None:
    result = BUILTIN[2].map(datum)
    before_1970 = datum["occurred_at"] < datetime(1970, 1, 1, tzinfo=UTC)
    assert (result == Rejected("bad_time")) == before_1970
    go_on(result)


@given(values(busy_schema.SCHEMA, {}))
def test_any_record_of_a_company(datum: Any) -> None:
    go_on(BUSY.map(datum))


odd = st.recursive(
    st.one_of(*SCALARS.values(), *LOGICAL.values(), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)
FIELDS = {field["name"]: odd for field in builtin(2)["fields"]}
DEVICE = {field["name"]: odd for field in builtin(2)["fields"][8]["type"]["fields"]}


@given(st.one_of(odd, st.fixed_dictionaries({**FIELDS, "device": st.fixed_dictionaries(DEVICE)})))
def test_what_no_reader_should_hand_over(datum: Any) -> None:
    go_on(BUILTIN[2].map(datum))
    go_on(BUSY.map(datum))


@given(odd, st.sampled_from(sorted(CONVERSIONS)))
def test_a_conversion_gives_a_value_or_says_bad(value: Any, name: str) -> None:
    if value is None:  # never converted
        return
    with suppress(BadValueError):
        CONVERSIONS[name](value)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**30), max_value=10**30))
def test_a_number_stays_the_same(value: Decimal) -> None:
    found = number(value)
    assert Decimal(repr(found) if isinstance(found, float) else found) == value


@given(st.text(alphabet=string.ascii_lowercase + '.[]<>="?\\ 0-', max_size=12))
def test_any_text_is_a_path_or_a_problem(text: str) -> None:
    try:
        steps, _ = parse(text)
    except PathError:
        return
    assert steps


WORDS = """
    type lookup records app name time ids properties filter when reason path first join constant as at default otherwise
    separator part equals in exists matches not all any from rename drop keep add prefix key value * upper
"""
words = st.sampled_from(WORDS.split())
toml = st.recursive(
    st.one_of(words, st.integers(), st.booleans(), st.floats(), st.text(max_size=3), st.just(date(2024, 1, 1))),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=5)),
    max_leaves=12,
)


@given(
    st.dictionaries(words, toml, max_size=6),
    st.dictionaries(words, st.dictionaries(words, toml, max_size=2), max_size=2),
)
def test_any_toml_is_a_mapping_or_all_its_problems(entry: Any, lookups: Any) -> None:
    problems: tuple[str, ...] = ()
    entry = {"records": ["events.inapp.InAppEvent"], "app": "app_id", "name": "event_name", **entry}
    try:
        spec = MappingSpec.parse({"type": [entry], "lookup": lookups})
        made = compile_mapping(spec, builtin(2))
    except MappingError as error:
        made = None
        problems = error.problems
    assert (made is None) == bool(problems)
    if isinstance(made, CompiledMapping):
        result = made.map({"app_id": UUID(int=0)})
        assert isinstance(result, InAppEvent | Filtered | Rejected)
