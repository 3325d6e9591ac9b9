"""Sources of the mapping language: where a part of the event comes from. Each compiles to a plain function.

A source is a path, or a table: `{path = "a.b", as = "upper", default = "x"}`, `{first = [...]}`, `{join = [...]}`,
`{constant = 1}`, with `lookup`, `otherwise`, `at` and `when`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

from consumer.core.mapping_conditions import compile_condition
from consumer.core.mapping_paths import ANYTHING, Get, Path, PathError, compile_path, compile_steps, parse
from consumer.core.mapping_values import CONVERSIONS, BadValueError, text


@dataclass(slots=True)
class Scope:
    """What sources are compiled in: one schema (or none yet), the rest of the file, the problems found so far."""

    schema: Any
    names: Mapping[str, Any]
    lookups: Mapping[str, Mapping[str, Any]]
    parts: Mapping[str, Any]
    """The sources of the event's parts, for conditions on them."""
    problems: list[str] = field(default_factory=list)
    open_parts: list[str] = field(default_factory=list)

    def refuse_unknown(self, table: Mapping[str, Any], known: Collection[str], where: str) -> None:
        self.problems += [f"{where}.{key}: unknown; {nearest(key, known)}" for key in table if key not in known]

    def path(self, at: Any, where: str) -> Path | None:
        """Return a path, or None if the schema may lack it and does, or if it is a problem."""
        if not isinstance(at, str):
            self.problems.append(f"{where}: a path is a text, such as device.ip")
            return None
        try:
            if self.schema is None:
                parse(at)
                return ANYTHING
            return compile_path(at, self.schema, self.names)
        except PathError as error:
            self.problems.append(f"{where}: {error}")
            return None

    def part(self, name: Any, where: str) -> Get | None:
        """Return a function for a part of the event as this type of the mapping defines it."""
        if not isinstance(name, str) or name in self.open_parts or name not in self.parts:
            why = "depends on itself" if name in self.open_parts else "is no part of this type"
            self.problems.append(f"{where}: {name!r} {why}")
            return None
        self.open_parts.append(name)
        source = compile_source(self.parts[name], self, name)
        self.open_parts.pop()
        return None if source is None else source.get


def nearest(key: str, known: Collection[str]) -> str:
    near = get_close_matches(str(key), known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}"


class Source(NamedTuple):
    """A compiled source. `path` is set if it is nothing but a path, `last` is its last conversion."""

    get: Get
    path: Path | None = None
    last: str | None = None


_ORIGINS = ("path", "first", "join", "constant")
_KEYS = {*_ORIGINS, "as", "at", "default", "lookup", "otherwise", "separator", "when"}


def compile_source(source: Any, scope: Scope, where: str) -> Source | None:
    """Return what gives the value of *source* or None for a datum; None if it can never give one.

    Problems go to *scope*.
    """
    if isinstance(source, str):
        path = scope.path(source, where)
        return None if path is None else Source(path.get, path)
    if not isinstance(source, dict):
        scope.problems.append(f"{where}: write a path, or a table with one of {', '.join(_ORIGINS)}")
        return None
    scope.refuse_unknown(source, _KEYS, where)
    if sum(key in source for key in _ORIGINS) != 1:
        scope.problems.append(f"{where}: exactly one of {', '.join(_ORIGINS)}")
        return None
    for key, needed in (("otherwise", "lookup"), ("separator", "join"), ("at", "as")):
        if key in source and needed not in source:
            scope.problems.append(f"{where}.{key}: goes with {needed}")
    path, get = _compile_origin(source, scope, where)
    last = None
    # compiled even if there is nothing to convert: a mistake is a mistake for every schema
    if "as" in source:
        get, last = _converted(get, source["as"], scope, f"{where}.as")
    if "at" in source:
        get = _reached(get, source["at"], scope, f"{where}.at")
    if "lookup" in source:
        get = _looked_up(get, source, scope, where)
    if "default" in source:
        get = _defaulted(get, source["default"], scope, f"{where}.default")
    if "when" in source:
        get = _guarded(get, compile_condition(source["when"], scope, f"{where}.when"))
    if get is None:
        return None
    return Source(get, path if source.keys() == {"path"} else None, last)


def _compile_origin(source: Mapping[str, Any], scope: Scope, where: str) -> tuple[Path | None, Get | None]:
    if "path" in source:
        path = scope.path(source["path"], f"{where}.path")
        return path, None if path is None else path.get
    if "constant" in source:
        constant = _constant(source["constant"], scope, f"{where}.constant")
        return None, lambda _: constant
    kind = "first" if "first" in source else "join"
    choices = source[kind]
    if not isinstance(choices, list) or not choices:
        scope.problems.append(f"{where}.{kind}: a list of sources")
        return None, None
    compiled = [compile_source(choice, scope, f"{where}.{kind}[{index}]") for index, choice in enumerate(choices)]
    gets = [each.get for each in compiled if each is not None]
    if kind == "first":
        return None, _first(gets) if gets else None
    separator = source.get("separator", "")
    if not isinstance(separator, str):
        scope.problems.append(f"{where}.separator: a text")
        return None, None
    return None, _joined(gets, separator) if len(gets) == len(compiled) else None


def _constant(value: Any, scope: Scope, where: str) -> Any:
    if isinstance(value, bool | str | float) or (isinstance(value, int) and -(1 << 63) <= value < 1 << 63):
        return value
    scope.problems.append(f"{where}: a text, a boolean or a number of 64 bits")
    return None


def _first(gets: list[Get]) -> Get:
    def first(datum: Any) -> Any:
        for get in gets:
            value = get(datum)
            if value is not None and value != "":
                return value
        return None

    return first


def _joined(gets: list[Get], separator: str) -> Get:
    def join(datum: Any) -> str | None:
        parts = [get(datum) for get in gets]
        return None if None in parts else separator.join(text(part) for part in parts)

    return join


def _converted(get: Get | None, names: Any, scope: Scope, where: str) -> tuple[Get | None, str | None]:
    last = None
    for name in names if isinstance(names, list) else [names]:
        if not isinstance(name, str) or name not in CONVERSIONS:
            scope.problems.append(f"{where}: unknown conversion {name!r}; {nearest(name, CONVERSIONS)}")
            continue
        get, last = (None if get is None else _then(get, CONVERSIONS[name])), name
    return get, last


def _then(get: Get, convert: Callable[[Any], Any]) -> Get:
    return lambda datum: None if (value := get(datum)) is None else convert(value)


def _reached(get: Get | None, at: Any, scope: Scope, where: str) -> Get | None:
    """Go on inside a value that no schema describes, such as JSON."""
    try:
        inner = compile_steps(at)
    except PathError as error:
        scope.problems.append(f"{where}: {error}")
        return None
    return None if get is None else lambda datum: inner(get(datum))


def _looked_up(get: Get | None, source: Mapping[str, Any], scope: Scope, where: str) -> Get | None:
    name, otherwise = source["lookup"], source.get("otherwise", "keep")
    table = scope.lookups.get(name) if isinstance(name, str) else None
    if table is None:
        scope.problems.append(f"{where}.lookup: there is no [lookup.{name}]; {nearest(name, scope.lookups)}")
    if otherwise not in {"keep", "drop", "reject"}:
        scope.problems.append(f"{where}.otherwise: keep, drop or reject")
    if table is None or get is None:
        return None

    def look_up(datum: Any) -> Any:
        value = get(datum)
        if value is None:
            return None
        key = value if type(value) is str else text(value)
        if key in table:
            return table[key]
        if otherwise == "reject":
            raise BadValueError
        return value if otherwise == "keep" else None

    return look_up


def _defaulted(get: Get | None, default: Any, scope: Scope, where: str) -> Get:
    """An empty text counts as nothing, as it does for `first`."""
    default = _constant(default, scope, where)
    if get is None:
        return lambda _: default
    return lambda datum: default if (value := get(datum)) is None or value == "" else value


def _guarded(get: Get | None, holds: Callable[[Any], bool]) -> Get | None:
    return None if get is None else lambda datum: get(datum) if holds(datum) else None
