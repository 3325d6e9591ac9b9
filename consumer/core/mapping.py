"""Mapping as data: a company's record types to the parts of an in-app event. The language is in docs/mapping.md.

A mapping is parsed once, compiled once for each writer schema, and then only called. Nothing in a mapping is executed:
its texts are compared, looked up and used as keys.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

from consumer.core.event import InAppEvent
from consumer.core.mapping_paths import Get, PathError, named_types, type_at
from consumer.core.mapping_values import (
    BadValueError,
    Scope,
    boolean,
    compile_condition,
    compile_source,
    epoch_ms,
    number,
    text,
)
from consumer.core.outcome import Rejected
from consumer.errors import MappingError


class Filtered(NamedTuple):
    """A filter of the mapping leaves this record out."""

    reason: str


class OtherType(NamedTuple):
    """The mapping has nothing for this record type."""

    name: str


PARTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "event_id": ("event_id", text),
    "app": ("app", text),
    "platform": ("platform", text),
    "name": ("name", text),
    "time": ("time_ms", epoch_ms),
    "install_id": ("install_id", text),
    "ip": ("ip", text),
    "user_agent": ("user_agent", text),
    "model": ("model", text),
    "os_name": ("os_name", text),
    "os_version": ("os_version", text),
    "app_version": ("app_version", text),
    "currency": ("currency", text),
    "att_status": ("att_status", text),
    "att_time": ("att_time_s", lambda value: epoch_ms(value) // 1000),
    "att_duration": ("att_duration_s", number),
    "gdpr_applies": ("gdpr_applies", boolean),
    "tc_string": ("tc_string", text),
    "ad_user_data": ("ad_user_data", boolean),
    "ad_personalization": ("ad_personalization", boolean),
    "limit_tracking": ("limit_tracking", boolean),
}
"""What a type of the mapping may say, the attribute of `InAppEvent` that it fills, and the type it must have there."""

_TYPE_KEYS = {*PARTS, "records", "ids", "properties", "filter"}
_PROPERTY_KEYS = {"from", "separator", "rename", "drop", "keep", "add"}


@dataclass(frozen=True, slots=True)
class MappingSpec:
    """A mapping file, well-formed but not yet held against a schema."""

    types: Mapping[str, Mapping[str, Any]]
    """By the full name of the record type."""
    lookups: Mapping[str, Mapping[str, Any]]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> "MappingSpec":
        """Check the shape of a mapping file.

        Raises:
            MappingError: with every problem.
        """
        problems = [_unknown(key, {"type", "lookup"}, "") for key in data if key not in {"type", "lookup"}]
        types: dict[str, Mapping[str, Any]] = {}
        entries = data.get("type", [])
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
            problems.append("[[type]]: at least one is needed, with records, app, platform, name, ...")
            entries = []
        for entry in entries:
            records = entry.get("records", [])
            records = [records] if isinstance(records, str) else records
            if not records:
                problems.append("[[type]].records: the full names of the record types that it is for")
            label = f"[[type]] {', '.join(map(str, records))}"
            problems += [_unknown(key, _TYPE_KEYS, f"{label}.") for key in entry if key not in _TYPE_KEYS]
            problems += [f"{label}.{key}: required" for key in ("app", "name") if key not in entry]
            for name in records:
                if name in types:
                    problems.append(f"{label}: {name} is mapped twice")
                types[name] = entry
        lookups = data.get("lookup", {})
        if not isinstance(lookups, dict) or not all(isinstance(table, dict) for table in lookups.values()):
            problems.append('[lookup.NAME]: tables of texts, such as level_up = "Level Complete"')
            lookups = {}
        if problems:
            raise MappingError(problems)
        return cls(types, lookups)


@dataclass(frozen=True, slots=True)
class CompiledMapping:
    """A mapping held against one writer schema."""

    _filters: tuple[tuple[Callable[[Any], bool], str], ...]
    _parts: tuple[tuple[str, str, Get, Callable[[Any], Any]], ...]
    _ids: tuple[tuple[str, Get], ...]
    _id_maps: tuple[Get, ...]
    _properties: Callable[[Any, dict[str, object]], None]

    def map(self, datum: Mapping[str, Any]) -> InAppEvent | Filtered | Rejected:
        """Translate one decoded record. Never raises for data; a reason names the part that was bad."""
        part = "filter"
        try:
            for holds, reason in self._filters:
                if holds(datum):
                    return Filtered(reason)
            event = InAppEvent()
            for part, attribute, get, convert in self._parts:  # noqa: B007 - named by the reason below
                value = get(datum)
                if value is not None:
                    if convert is not text or type(value) is not str:
                        value = convert(value)
                    setattr(event, attribute, value)
            part = "ids"
            ids = event.ids
            for get in self._id_maps:
                for name, value in (get(datum) or {}).items():
                    if value is not None:
                        ids[name] = text(value)
            for name, get in self._ids:
                value = get(datum)
                if value is not None:
                    ids[name] = value if type(value) is str else text(value)
            part = "properties"
            self._properties(datum, event.properties)
            if event.event_id is not None:  # a key of ours, so that everything downstream can be accounted for
                event.properties["event_id"] = event.event_id
        except (BadValueError, AttributeError, TypeError, ValueError, OverflowError):
            return Rejected(f"bad_{part}")
        return event


def compile_mapping(
    spec: MappingSpec, schema: Mapping[str, Any], *, event_id: str | None = None
) -> CompiledMapping | OtherType:
    """Hold *spec* against a writer schema.

    Args:
        spec: the mapping.
        schema: as fastavro parsed it.
        event_id: a path that replaces what the mapping says of the event id.

    Raises:
        MappingError: with every path that the schema doesn't have, and everything else that doesn't fit.
    """
    name = str(schema.get("name", schema.get("type")))
    entry = spec.types.get(name)
    if entry is None:
        return OtherType(name)
    scope = Scope(schema, named_types(schema), spec.lookups)
    sources = {**entry, **({"event_id": event_id} if event_id else {})}
    parts = []
    for part, (attribute, convert) in PARTS.items():
        if part in sources:
            get = compile_source(sources[part], scope, part)
            if get is not None:
                parts.append((part, attribute, get, convert))
    ids, id_maps = _compile_ids(entry.get("ids", {}), scope)
    compiled = CompiledMapping(
        _filters=tuple(_compile_filters(entry.get("filter", []), scope)),
        _parts=tuple(parts),
        _ids=ids,
        _id_maps=id_maps,
        _properties=_compile_properties(entry.get("properties", {}), scope),
    )
    if scope.problems:
        raise MappingError([f"mapping of {name}: {problem}" for problem in scope.problems])
    return compiled


def _compile_filters(filters: Any, scope: Scope) -> list[tuple[Callable[[Any], bool], str]]:
    compiled = []
    for index, entry in enumerate(filters if isinstance(filters, list) else [filters]):
        where = f"filter[{index}]"
        if not isinstance(entry, dict) or set(entry) != {"when", "reason"} or not isinstance(entry["reason"], str):
            scope.problems.append(f'{where}: write when = {{...}} and reason = "a_word"')
            continue
        compiled.append((compile_condition(entry["when"], scope, f"{where}.when"), entry["reason"]))
    return compiled


def _compile_ids(table: Any, scope: Scope) -> tuple[tuple[tuple[str, Get], ...], tuple[Get, ...]]:
    """`"*"` takes all entries of a map; every other key is one id."""
    ids, id_maps = [], []
    for name, source in (table if isinstance(table, dict) else {}).items():
        get = compile_source(source, scope, f"ids.{name}")
        if get is None:
            continue
        if name == "*":
            id_maps.append(get)
        else:
            ids.append((name, get))
    return tuple(ids), tuple(id_maps)


def _compile_properties(table: Any, scope: Scope) -> Callable[[Any, dict[str, object]], None]:
    if not isinstance(table, dict):
        scope.problems.append("properties: a table with from, rename, drop, keep, add, separator")
        table = {}
    scope.refuse_unknown(table, _PROPERTY_KEYS, "properties")
    roots = table.get("from", [])
    gets = []
    for root in [roots] if isinstance(roots, str) else roots:
        get = scope.path(root, "properties.from")
        if get is not None:
            _check_container(root, scope)
            gets.append(get)
    separator = str(table.get("separator", "."))
    rename: dict[str, str] = table.get("rename", {})
    drop = frozenset(table.get("drop", ()))
    keep = frozenset(table["keep"]) if "keep" in table else None
    added = []
    for name, source in table.get("add", {}).items():
        get = compile_source(source, scope, f"properties.add.{name}")
        if get is not None:
            added.append((name, get))

    def put(target: dict[str, object], key: str, value: Any) -> None:
        kind = type(value)
        if kind is str or kind is int or kind is bool or kind is float:
            if (keep is None or key in keep) and key not in drop:
                target[rename.get(key, key)] = value
        elif kind is dict:
            for inner, part in value.items():
                put(target, f"{key}{separator}{inner}", part)
        elif kind is list:
            for index, part in enumerate(value):
                put(target, f"{key}{separator}{index}", part)
        elif value is not None and (keep is None or key in keep) and key not in drop:
            target[rename.get(key, key)] = plain(value)

    def fill(datum: Any, target: dict[str, object]) -> None:
        for get in gets:
            for key, value in (get(datum) or {}).items():
                put(target, key, value)
        for name, get in added:
            value = get(datum)
            if value is not None:
                kind = type(value)
                target[name] = value if kind is str or kind is int or kind is float or kind is bool else plain(value)

    return fill


def plain(value: Any) -> object:
    """Return a value of an Avro logical type as JSON has it: exact numbers, ISO times."""
    try:
        return number(value) if not hasattr(value, "isoformat") else value.isoformat()
    except BadValueError:
        return text(value)


def _check_container(root: str, scope: Scope) -> None:
    try:
        kinds = {option["type"] for option in type_at(root, scope.schema, scope.names)}
    except PathError:
        return
    if not kinds <= {"map", "record", "error"}:
        scope.problems.append(f"properties.from: {root} is neither a map nor a record")


def _unknown(key: str, known: set[str], prefix: str) -> str:
    near = get_close_matches(key, known, n=1)
    return f"{prefix}{key}: unknown; " + (
        f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}"
    )
