"""Mapping as data: a company's record types to the parts of an in-app event. The language is in docs/mapping.md.

A mapping is parsed once, compiled once for each writer schema, and then only called. Nothing in a mapping is executed:
its texts are compared, looked up and used as keys.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from consumer.core.mapping_code import Filtered, PartCode, Translate, compile_function
from consumer.core.mapping_conditions import Holds, compile_condition
from consumer.core.mapping_paths import Get
from consumer.core.mapping_properties import compile_properties
from consumer.core.mapping_sources import Scope, Source, compile_source, nearest
from consumer.core.mapping_types import full_name, named_types
from consumer.core.mapping_values import MAX_TIME_MS, TO_MOMENT, BadValueError, boolean, epoch_ms, number, text
from consumer.errors import MappingError

__all__ = ["CompiledMapping", "Filtered", "MappingSpec", "OtherType", "compile_mapping"]


class OtherType(NamedTuple):
    """The mapping has nothing for this record type."""

    name: str


def _moment_s(value: Any) -> int:
    return epoch_ms(value) // 1000


def _whole_seconds(value: Any) -> int:
    seconds = number(value)
    if not 0 <= seconds < MAX_TIME_MS // 1000:
        raise BadValueError
    return int(seconds)


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
    "att_time": ("att_time_s", _moment_s),
    "att_duration": ("att_duration_s", _whole_seconds),
    "gdpr_applies": ("gdpr_applies", boolean),
    "tc_string": ("tc_string", text),
    "ad_user_data": ("ad_user_data", boolean),
    "ad_personalization": ("ad_personalization", boolean),
    "limit_tracking": ("limit_tracking", boolean),
}
"""What a type of the mapping may say, the attribute of `InAppEvent` that it fills, and the type it must have there."""

_TYPE_KEYS = {*PARTS, "records", "ids", "properties", "filter"}
_CONTAINERS = frozenset({"record", "array", "map"})
_BYTES = frozenset({"bytes", "fixed"})


@dataclass(frozen=True, slots=True)
class MappingSpec:
    """A mapping file, well-formed but not yet held against a schema."""

    types: Mapping[str, Mapping[str, Any]]
    """By the full name of the record type."""
    lookups: Mapping[str, Mapping[str, Any]]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> "MappingSpec":
        """Check everything of a mapping file that can be checked without a schema.

        Raises:
            MappingError: with every problem.
        """
        keys = {"type", "lookup"}
        problems = [f"{key}: unknown; {nearest(key, keys)}" for key in data if key not in keys]
        lookups = _parse_lookups(data.get("lookup", {}), problems)
        types: dict[str, Mapping[str, Any]] = {}
        entries = data.get("type", [])
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
            problems.append("[[type]]: at least one is needed, with records, app, platform, name, ...")
            entries = []
        for entry in entries:
            records = entry.get("records", [])
            records = [records] if isinstance(records, str) else records
            if not isinstance(records, list) or not records or not all(isinstance(name, str) for name in records):
                problems.append("[[type]].records: the full names of the record types that it is for")
                records = []
            label = f"[[type]] {', '.join(records)}"
            problems += [
                f"{label}: {name} is mapped twice" for name in records if name in types or records.count(name) > 1
            ]
            problems += [f"{label}: {problem}" for problem in _problems_without_schema(entry, lookups)]
            types |= dict.fromkeys(records, entry)
        if problems:
            raise MappingError(problems)
        return cls(types, lookups)


def _parse_lookups(tables: Any, problems: list[str]) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        problems.append('[lookup.NAME]: tables, such as level_up = "Level Complete"')
        return {}
    problems += [
        f"[lookup.{name}].{key}: a text, a number or a boolean"
        for name, table in tables.items()
        for key, value in table.items()
        if not isinstance(value, str | int | float)
    ]
    return tables


def _problems_without_schema(entry: Mapping[str, Any], lookups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    missing = [f"{key}: required" for key in ("app", "name") if key not in entry]
    unknown = [f"{key}: unknown; {nearest(key, _TYPE_KEYS)}" for key in entry if key not in _TYPE_KEYS]
    scope = Scope(None, {}, lookups, _parts_of(entry))
    _compile_entry(entry, scope)
    return missing + unknown + scope.problems


def _parts_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {part: source for part, source in entry.items() if part in PARTS}


@dataclass(frozen=True, slots=True)
class CompiledMapping:
    """A mapping held against one writer schema."""

    map: Translate
    """Translate one decoded record. Never raises for data; the reason of a `Rejected` names the part that was bad."""


def compile_mapping(
    spec: MappingSpec, schema: Mapping[str, Any], *, event_id: str | None = None
) -> CompiledMapping | OtherType:
    """Hold *spec* against a writer schema.

    Args:
        spec: the mapping.
        schema: as JSON has it, or as fastavro parsed it.
        event_id: a path that replaces what the mapping says of the event id.

    Raises:
        MappingError: with every path that the schema doesn't have, and everything else that doesn't fit.
    """
    name = full_name(schema)
    entry = spec.types.get(name)
    if entry is None:
        return OtherType(name)
    if event_id is not None:
        entry = {**entry, "event_id": event_id}
    scope = Scope(schema, named_types(schema), spec.lookups, _parts_of(entry))
    translate = _compile_entry(entry, scope)
    if scope.problems:
        raise MappingError([f"mapping of {name}: {problem}" for problem in scope.problems])
    return CompiledMapping(translate)


def _compile_entry(entry: Mapping[str, Any], scope: Scope) -> Translate:
    """Compile one type of the mapping; problems go to *scope*."""
    ids, id_maps = _compile_ids(entry.get("ids", {}), scope)
    return compile_function(
        filters=_compile_filters(entry.get("filter", []), scope),
        parts=[part for name in PARTS if name in scope.parts and (part := _compile_part(name, scope)) is not None],
        ids=ids,
        id_maps=id_maps,
        fill_properties=compile_properties(entry.get("properties", {}), scope),
    )


def _compile_part(name: str, scope: Scope) -> PartCode | None:
    attribute, convert = PARTS[name]
    scope.open_parts.append(name)
    source = compile_source(scope.parts[name], scope, name)
    scope.open_parts.pop()
    if source is None:
        return None
    _check_type(source, convert, scope, name)
    if convert in {epoch_ms, _moment_s} and source.last is not None and source.last not in TO_MOMENT:
        scope.problems.append(f"{name}.as: {source.last} gives no moment; one of {', '.join(sorted(TO_MOMENT))}")
    return PartCode(name, attribute, source, convert)


def _check_type(source: Source, convert: Callable[[Any], Any], scope: Scope, where: str) -> None:
    """Refuse a path whose values could never be used, instead of each of them later."""
    if source.path is None or not source.path.options:
        return
    kinds = source.path.kinds
    if kinds <= _CONTAINERS:
        scope.problems.append(f"{where}: this is of type {', '.join(sorted(kinds))}; go on into it")
    elif convert is text and kinds <= _BYTES:
        scope.problems.append(f"{where}: this is bytes; say how it is text: as = utf8, hex, base64 or uuid")


def _compile_filters(filters: Any, scope: Scope) -> list[tuple[Holds, str]]:
    compiled: list[tuple[Holds, str]] = []
    for index, entry in enumerate(filters if isinstance(filters, list) else [filters]):
        where = f"filter[{index}]"
        reason = entry.get("reason") if isinstance(entry, dict) else None
        if not isinstance(reason, str) or not _is_word(reason) or set(entry) != {"when", "reason"}:
            scope.problems.append(f'{where}: write when = {{...}} and reason = "a_word"')
            continue
        compiled.append((compile_condition(entry["when"], scope, f"{where}.when"), reason))
    return compiled


def _is_word(reason: str) -> bool:
    """Reasons become metric labels: few, short, stable."""
    return 0 < len(reason) <= 40 and reason.isascii() and reason.replace("_", "").isalnum() and reason == reason.lower()


def _compile_ids(table: Any, scope: Scope) -> tuple[list[tuple[str, Source]], list[Get]]:
    """`"*"` takes all entries of a map; every other key is one id."""
    ids: list[tuple[str, Source]] = []
    id_maps: list[Get] = []
    if not isinstance(table, dict):
        scope.problems.append('ids: a table, such as advertising_id = "device.advertising_id"')
        return ids, id_maps
    for name, source in table.items():
        compiled = compile_source(source, scope, f"ids.{name}")
        if compiled is None:
            continue
        if name != "*":
            _check_type(compiled, text, scope, f"ids.{name}")
            ids.append((name, compiled))
        elif compiled.path is not None and not compiled.path.kinds <= {"map", "record"}:
            scope.problems.append(f"ids.*: this is of type {', '.join(sorted(compiled.path.kinds))}, not a map")
        else:
            id_maps.append(compiled.get)
    return ids, id_maps
