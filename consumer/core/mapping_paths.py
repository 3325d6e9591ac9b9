"""Paths into a record: `device.ip`, `items[0].price`, `ids."com.vendor"`, `session_id?`.

A path is checked against the writer schema when the mapping is compiled, so that a typo is an error before the first
event and not a field that is silently empty. A trailing `?` says that a schema may lack it.
"""

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any, TypeAlias

Get: TypeAlias = Callable[[Any], Any]
Step: TypeAlias = str | int

_TOKEN = re.compile(r'\.?(?:"((?:[^"\\]|\\.)+)"|([^.\[\]"?\s]+))|\[(\d+)\]')


class PathError(Exception):
    """A path that cannot be; the message says why."""


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
        if match is None or (at == 0 and rest[0] in ".["):
            raise PathError(f'{text!r} is not a path: write it as device.ip, items[0].price or ids."a.b"')
        quoted, name, index = match.groups()
        steps.append(int(index) if index is not None else (quoted or name).replace('\\"', '"'))
        at = match.end()
    if not steps:
        raise PathError("an empty path")
    return tuple(steps), is_optional


def getter(text: str, schema: Any, names: dict[str, Any]) -> Get | None:
    """Compile a path against *schema*.

    Returns:
        A function that gives the value or None; or None if the path may be missing and is.

    Raises:
        PathError: the schema doesn't have it.
    """
    steps, is_optional = parse(text)
    try:
        _resolve(steps, schema, names, text)
    except PathError:
        if is_optional:
            return None
        raise
    return _getter(steps)


def type_at(text: str, schema: Any, names: dict[str, Any]) -> list[Any]:
    """Return the schemas that may stand at a path, unions opened."""
    return _resolve(parse(text)[0], schema, names, text)


def _getter(steps: tuple[Step, ...]) -> Get:
    if len(steps) == 1 and isinstance(steps[0], str):
        (only,) = steps
        return lambda datum: datum.get(only)
    if len(steps) == 2 and all(isinstance(step, str) for step in steps):
        first, second = steps

        def two(datum: Any) -> Any:
            inner = datum.get(first)
            return inner.get(second) if inner is not None else None

        return two

    def many(datum: Any) -> Any:
        for step in steps:
            if isinstance(step, int):
                if not isinstance(datum, list) or step >= len(datum):
                    return None
                datum = datum[step]
            elif isinstance(datum, dict):
                datum = datum.get(step)
            else:
                return None
        return datum

    return many


def open_union(schema: Any, names: dict[str, Any]) -> Iterator[Any]:
    """Yield what *schema* may be: references followed, unions opened, null left out."""
    if isinstance(schema, list):
        for branch in schema:
            yield from open_union(branch, names)
    elif isinstance(schema, str):
        if schema in names:
            yield names[schema]
        elif schema != "null":
            yield {"type": schema}
    elif isinstance(schema["type"], list | dict) or schema["type"] in names:
        yield from open_union(schema["type"], names)
    elif schema["type"] != "null":
        yield schema


def _resolve(steps: tuple[Step, ...], schema: Any, names: dict[str, Any], text: str) -> list[Any]:
    here = [*open_union(schema, names)]
    for step in steps:
        found: list[Any] = []
        known: set[str] = set()
        for option in here:
            kind = option["type"]
            if kind == "array" and isinstance(step, int):
                found += open_union(option["items"], names)
            elif kind == "map" and isinstance(step, str):
                found += open_union(option["values"], names)
            elif kind in {"record", "error"} and isinstance(step, str):
                known |= {field["name"] for field in option["fields"]}
                for field in option["fields"]:
                    if field["name"] == step:
                        found += [*open_union(field["type"], names)] or [{"type": "null"}]
        if not found:
            near = get_close_matches(str(step), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(sorted(known))}" if known else ""
            raise PathError(f"{text}: the schema has no {step!r} there{hint}")
        here = found
    return here


def named_types(schema: Any) -> dict[str, Any]:
    """Return every named type within *schema* by its full name."""
    names: dict[str, Any] = {}

    def walk(part: Any, namespace: str) -> None:
        if isinstance(part, list):
            for branch in part:
                walk(branch, namespace)
        elif isinstance(part, dict):
            kind = part.get("type")
            if kind in {"record", "error", "enum", "fixed"}:
                name = part["name"]
                full = name if "." in name else f"{part.get('namespace', namespace)}.{name}".strip(".")
                names[full] = names[name] = part
                inner = full.rpartition(".")[0]
                for field in part.get("fields", ()):
                    walk(field["type"], inner)
            elif isinstance(kind, list | dict):
                walk(kind, namespace)
            walk(part.get("items"), namespace)
            walk(part.get("values"), namespace)

    walk(schema, "")
    return names
