"""Properties of the mapping language: what goes into `event_data`, flattened, renamed, dropped, added one by one."""

from collections.abc import Callable, Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from consumer.core.mapping_paths import ANYTHING, Get, Path, PathError, compile_path, compile_steps
from consumer.core.mapping_sources import Scope, compile_source
from consumer.core.mapping_types import open_union, python_type
from consumer.core.mapping_values import BadValueError, number, text

MAX_NESTING = 16
"""How deep properties are flattened; Avro schemas are no deeper, JSON in a text can be."""

Fill = Callable[[Any, dict[str, object]], None]

_KEYS = {"from", "separator", "rename", "drop", "keep", "add"}
_FROM_KEYS = {"path", "as", "prefix", "key", "value"}
_SCALARS = frozenset({str, int, float, bool})


def compile_properties(table: Any, scope: Scope) -> Fill:
    """Return a function that puts the properties of a datum into a dict."""
    if not isinstance(table, dict):
        scope.problems.append(f"properties: a table with {', '.join(sorted(_KEYS))}")
        table = {}
    scope.refuse_unknown(table, _KEYS, "properties")
    put, is_plain = _compile_put(table, scope)
    roots = table.get("from", [])
    fills: list[Fill] = []
    for index, root in enumerate(roots if isinstance(roots, list) else [roots]):
        fill = _compile_root(root, put, is_plain, scope, f"properties.from[{index}]")
        if fill is not None:
            fills.append(fill)
    added = table.get("add", {})
    if not isinstance(added, dict):
        scope.problems.append('properties.add: a table, such as sum = "amount"')
        added = {}
    for name, source in added.items():
        compiled = compile_source(source, scope, f"properties.add.{name}")
        if compiled is not None:
            fills.append(_adder(name, compiled.get))
    if len(fills) == 1:
        return fills[0]

    def fill_all(datum: Any, target: dict[str, object]) -> None:
        for fill in fills:
            fill(datum, target)

    return fill_all


def _compile_put(table: Mapping[str, Any], scope: Scope) -> tuple[Callable[..., None], bool]:
    """Return what puts one value, however nested, under its key, and whether no rule applies to keys."""
    rename, separator = table.get("rename", {}), table.get("separator", ".")
    if not isinstance(rename, dict) or not all(isinstance(name, str) for name in rename.values()):
        scope.problems.append('properties.rename: a table of texts, such as old_key = "new_key"')
        rename = {}
    if not isinstance(separator, str):
        scope.problems.append("properties.separator: a text")
        separator = "."
    drops = _keys(table.get("drop", []), scope, "properties.drop")
    keeps = _keys(table["keep"], scope, "properties.keep") if "keep" in table else None

    def put(target: dict[str, object], key: str, value: Any, nesting: int = 0) -> None:
        if isinstance(value, dict | list):
            if nesting == MAX_NESTING:
                raise BadValueError
            for inner, each in value.items() if isinstance(value, dict) else enumerate(value):
                put(target, f"{key}{separator}{inner}", each, nesting + 1)
        elif value is not None and (keeps is None or keeps(key)) and not drops(key):
            target[rename.get(key, key)] = value if type(value) in _SCALARS else plain(value)

    return put, not (rename or table.get("drop") or keeps)


def _keys(names: Any, scope: Scope, where: str) -> Callable[[str], bool]:
    """Return whether a key is listed; a trailing * stands for any ending."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        scope.problems.append(f'{where}: a list of keys, such as ["debug", "internal_*"]')
        names = []
    exact = frozenset(name for name in names if not name.endswith("*"))
    prefixes = tuple(name[:-1] for name in names if name.endswith("*"))
    if not prefixes:
        return exact.__contains__
    return lambda key: key in exact or key.startswith(prefixes)


def _compile_root(root: Any, put: Callable[..., None], is_plain: bool, scope: Scope, where: str) -> Fill | None:
    if isinstance(root, str):
        root = {"path": root}
    if not isinstance(root, dict) or "path" not in root:
        scope.problems.append(f"{where}: a path, or a table with path and {', '.join(sorted(_FROM_KEYS - {'path'}))}")
        return None
    scope.refuse_unknown(root, _FROM_KEYS, where)
    prefix = root.get("prefix", "")
    if not isinstance(prefix, str) or root.get("as", "json") != "json" or ("key" in root) != ("value" in root):
        scope.problems.append(f'{where}: prefix is a text, as can be "json", key and value go together')
        return None
    path = scope.path(root["path"], where)
    if path is None:
        return None
    source = compile_source({key: root[key] for key in ("path", "as") if key in root}, scope, where)
    assert source is not None
    get = source.get
    if "key" in root:
        pairs = _compile_pairs(root, path, scope, where)
        return None if pairs is None else _pairs_filler(get, pairs, put, prefix)
    kinds = {option["type"] for option in path.options}
    if path is not ANYTHING and "as" not in root and not kinds <= {"map", "record"}:
        scope.problems.append(f"{where}: {root['path']} is neither a map nor a record; see key and value, or as")
        return None
    values = [python_type(value) for option in path.options for value in _values(option, scope)]
    if is_plain and not prefix and kinds == {"map"} and _SCALARS.issuperset(values):
        return _copier(get)  # nothing to decide for any key, as in the built-in mapping

    def fill(datum: Any, target: dict[str, object]) -> None:
        found = get(datum)
        if isinstance(found, dict):
            for key, value in found.items():
                put(target, f"{prefix}{key}", value)
        elif found is not None:
            raise BadValueError

    return fill


def _values(option: Mapping[str, Any], scope: Scope) -> list[Any]:
    return [*open_union(option["values"], scope.names)] if option["type"] == "map" else [{"type": "record"}]


def _copier(get: Get) -> Fill:
    def fill(datum: Any, target: dict[str, object]) -> None:
        found = get(datum)
        if found is not None:
            target.update(found)

    return fill


def _compile_pairs(root: Mapping[str, Any], path: Path, scope: Scope, where: str) -> tuple[Get, list[Get]] | None:
    """Return the key and the possible values of one item of an array of pairs."""
    values = root["value"] if isinstance(root["value"], list) else [root["value"]]
    gets: list[Get] = []
    arrays = [option for option in path.options if option["type"] == "array"]
    if path is not ANYTHING and "as" not in root and not arrays:
        scope.problems.append(f"{where}: {root['path']} is no array of pairs")
        return None
    for name in (root["key"], *values):
        try:
            if path is ANYTHING or "as" in root or not isinstance(name, str):
                gets.append(compile_steps(name))
                continue
            found = compile_path(name, [array["items"] for array in arrays], scope.names)
            if found is not None:
                gets.append(found.get)
        except PathError as error:
            scope.problems.append(f"{where}: {error}")
    return (gets[0], gets[1:]) if gets else None


def _pairs_filler(get: Get, pairs: tuple[Get, list[Get]], put: Callable[..., None], prefix: str) -> Fill:
    key_of, values_of = pairs

    def fill(datum: Any, target: dict[str, object]) -> None:
        found = get(datum)
        for item in found if isinstance(found, list) else ():
            key = key_of(item)
            value = next((value for value_of in values_of if (value := value_of(item)) is not None), None)
            if key is not None and value is not None:
                put(target, f"{prefix}{text(key)}", value)

    return fill


def _adder(name: str, get: Get) -> Fill:
    def add(datum: Any, target: dict[str, object]) -> None:
        value = get(datum)
        if value is not None:
            target[name] = value if type(value) in _SCALARS else plain(value)

    return add


def plain(value: Any) -> object:
    """Return a value of an Avro logical type as JSON has it: exact numbers, ISO times.

    Bytes, lists and records stay: they have no place in `event_data`, so the payload leaves them out and counts it.
    """
    if type(value) is Decimal:
        return number(value)
    return text(value) if isinstance(value, date | time | UUID) else value
