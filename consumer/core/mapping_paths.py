"""Paths into a record: `device.ip`, `items[0].price`, `ids."com.vendor"`, `body<Purchase>.sku`, `session_id?`.

A path is checked against the writer schema when the mapping is compiled, so that a typo is an error before the first
event and not a field that is silently empty. A trailing `?` says that a schema may lack it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeAlias

from consumer.core.mapping_types import BranchError, branch_test, kind_of, open_union

Get: TypeAlias = Callable[[Any], Any]


class Branch(NamedTuple):
    """`<Name>`: only if this branch of a union is there."""

    name: str


class Entry(NamedTuple):
    """`[name="x"]`: the first record of an array whose field has this text."""

    field: str
    text: str


Step: TypeAlias = str | int | Branch | Entry

_TEXT = r'"((?:[^"\\]|\\.)+)"'
_TOKEN = re.compile(
    rf'\.?(?:{_TEXT}|([^.\[\]<>="?\s\\]+))|\[(-?[0-9]{{1,6}})\]|<([\w.]+)>|\[(\w+)={_TEXT}\]'  # 6 groups
)

_NANOS = frozenset({"timestamp-nanos", "local-timestamp-nanos"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PathError(Exception):
    """A path that cannot be; the message says why."""


@dataclass(frozen=True, slots=True)
class Path:
    """A path held against a schema."""

    get: Get
    """Returns the value or None; never raises, whatever the datum."""
    options: tuple[Any, ...]
    """What may stand there: schemas, references followed, unions opened, null left out."""
    fields: tuple[tuple[str, bool], ...] | None
    """The way in plain steps, if each is a field of one record type: its name, and whether it may be null."""

    @property
    def kinds(self) -> frozenset[str]:
        """The types that may stand there; a logical type goes by its own name."""
        return frozenset(kind_of(option) for option in self.options)


ANYTHING = Path(lambda _: None, (), None)
"""Stands for a path as long as there is no schema to hold it against."""


def parse(text: str) -> tuple[tuple[Step, ...], bool]:
    """Return the steps of a path, and whether a schema may lack it.

    Raises:
        PathError: it isn't a path.
    """
    is_optional = text.endswith("?")
    rest = text.removesuffix("?")
    steps: list[Step] = []
    at = 0
    while at < len(rest):
        match = _TOKEN.match(rest, at)
        if match is None or (at == 0 and rest[0] in ".[<") or (at > 0 and match[0][0] not in ".[<"):
            raise PathError(f'{text!r} is not a path: write it as device.ip, items[0].price or ids."a.b"')
        quoted, name, index, branch, field, wanted = match.groups()
        if index is not None:
            steps.append(int(index))
        elif branch is not None:
            steps.append(Branch(branch))
        elif field is not None:
            steps.append(Entry(field, _unescaped(wanted)))
        else:
            steps.append(name or _unescaped(quoted))
        at = match.end()
    if not steps:
        raise PathError("an empty path")
    return tuple(steps), is_optional


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def compile_path(text: str, schema: Any, names: Mapping[str, Any]) -> Path | None:
    """Hold a path against *schema*.

    Returns:
        The path, or None if it may be missing and is.

    Raises:
        PathError: the schema doesn't have it.
    """
    steps, is_optional = parse(text)
    try:
        return _resolve(steps, schema, names, text)
    except PathError:
        if is_optional:
            return None
        raise


def _resolve(steps: tuple[Step, ...], schema: Any, names: Mapping[str, Any], text: str) -> Path:
    here = [*open_union(schema, names)]
    moves: list[Get] = []
    fields: list[tuple[str, bool]] | None = []
    for step in steps:
        found: list[Any] = []
        known: set[str] = set()
        may_be_null = False
        if isinstance(step, Branch):
            move, found, known = _branch(step, here, names, text)
        else:
            move = _move(step)
            for option in here:
                kind = option["type"]
                if kind == "array" and not isinstance(step, str):
                    items = [*open_union(option["items"], names)]
                    found += items if isinstance(step, int) else _entries(step, items)
                    known |= set() if isinstance(step, int) else _field_names(items)
                elif kind == "map" and isinstance(step, str):
                    found += open_union(option["values"], names)
                elif kind in {"record", "error"} and isinstance(step, str):
                    known |= _field_names([option])
                    for field in option["fields"]:
                        if field["name"] == step:
                            found += [*open_union(field["type"], names)] or [{"type": "null"}]
                            may_be_null = _may_be_null(field["type"], names)
        if not found:
            raise PathError(_missing(text, step, here, known))
        is_field = fields is not None and len(here) == 1 and here[0]["type"] == "record" and isinstance(step, str)
        fields = [*fields, (str(step), may_be_null)] if is_field and fields is not None else None
        moves.append(move)
        here = found
    if any(kind_of(option) in _NANOS for option in here):
        return Path(_moment_of_nanos(_chain(moves)), tuple(here), None)
    return Path(_chain(moves), tuple(here), tuple(fields) if fields else None)


def _moment_of_nanos(get: Get) -> Get:
    """Decoding leaves these as numbers; every other timestamp is a moment. One out of range stays what it is."""

    def moment(datum: Any) -> Any:
        value = get(datum)
        try:
            return _EPOCH + timedelta(microseconds=value // 1000) if type(value) is int else value
        except OverflowError:
            return value

    return moment


def _missing(text: str, step: Step, here: list[Any], known: set[str]) -> str:
    wanted = step.name if isinstance(step, Branch) else step.field if isinstance(step, Entry) else step
    near = get_close_matches(str(wanted), known, n=1)
    if near:
        return f"{text}: the schema has no {wanted!r} there; did you mean {near[0]}?"
    if known:
        return f"{text}: the schema has no {wanted!r} there; there are: {', '.join(sorted(known))}"
    kinds = ", ".join(sorted({kind_of(option) for option in here}))
    return f"{text}: the schema has no {wanted!r} there, what comes before is of type {kinds}"


def _field_names(options: list[Any]) -> set[str]:
    return {field["name"] for option in options if option["type"] == "record" for field in option["fields"]}


def _may_be_null(schema: Any, names: Mapping[str, Any]) -> bool:
    if isinstance(schema, list):
        return any(_may_be_null(branch, names) for branch in schema)
    if isinstance(schema, dict):
        return schema["type"] == "null" or (isinstance(schema["type"], list) and _may_be_null(schema["type"], names))
    return bool(schema == "null")


def _entries(step: Entry, items: list[Any]) -> list[Any]:
    return [item for item in items if step.field in _field_names([item])]


def _branch(step: Branch, here: list[Any], names: Mapping[str, Any], text: str) -> tuple[Get, list[Any], set[str]]:
    known = {str(option.get("name", kind_of(option))) for option in here}
    chosen = [option for option in here if step.name in _names_of(option, names)]
    if len(chosen) != 1:
        return _nothing, [], known
    try:
        is_there = branch_test(chosen[0], here)
    except BranchError as error:
        raise PathError(f"{text}: {error}") from None
    return (lambda value: value if is_there(value) else None), chosen, known


def compile_steps(text: Any) -> Get:
    """Compile a path into a value that no schema describes: fields and indexes only.

    Raises:
        PathError: it isn't one.
    """
    if not isinstance(text, str):
        raise PathError("a path is a text, such as user.id")
    steps, _ = parse(text)
    if any(isinstance(step, Branch) for step in steps):
        raise PathError(f"{text!r}: no schema here that has branches")
    return _chain([_move(step) for step in steps if not isinstance(step, Branch)])


def _names_of(option: Mapping[str, Any], names: Mapping[str, Any]) -> set[str]:
    """Full, short, or the type word of what has no name."""
    name = str(option.get("name", kind_of(option)))
    return {name, name.rpartition(".")[2], *(full for full, named in names.items() if named is option)}


# -- walking a datum


def _nothing(_: Any) -> None:
    return None


def _move(step: str | int | Entry) -> Get:
    if isinstance(step, str):
        return lambda value: value.get(step) if type(value) is dict else None
    if isinstance(step, int):
        return lambda value: value[step] if type(value) is list and -len(value) <= step < len(value) else None

    def entry(value: Any) -> Any:
        if type(value) is list:
            for each in value:
                if type(each) is dict and each.get(step.field) == step.text:
                    return each
        return None

    return entry


def _chain(moves: list[Get]) -> Get:
    if len(moves) == 1:
        return moves[0]

    def walk(value: Any) -> Any:
        for move in moves:
            value = move(value)
            if value is None:
                return None
        return value

    return walk
