"""Values of the mapping language: sources, conversions, lookups, conditions. Each compiles to a plain function.

A source is a path, or a table: `{path = "a.b", as = "upper", default = "x"}`, `{first = [...]}`, `{constant = 1}`, with
`lookup`, `otherwise` and `when`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from difflib import get_close_matches
from math import isfinite
from typing import Any
from uuid import UUID

from consumer.core.mapping_paths import Get, PathError, getter


class BadValueError(Exception):
    """A value that its place cannot take. Holds no data."""


# -- conversions


def text(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is int or isinstance(value, UUID | Decimal):
        return str(value)
    if kind is float and isfinite(value):
        return repr(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    raise BadValueError


def number(value: Any) -> int | float:
    """Return an integer where it is one, else the nearest double: it prints as the same decimal up to 15 digits."""
    if isinstance(value, bool) or value is None:
        raise BadValueError
    if isinstance(value, int):
        return value
    try:
        decimal = Decimal(value if not isinstance(value, float) else repr(value))
    except (ArithmeticError, TypeError, ValueError):
        raise BadValueError from None
    if not decimal.is_finite() or abs(decimal.adjusted()) > 300:
        raise BadValueError
    return int(decimal) if decimal == decimal.to_integral_value() else float(decimal)


_TRUE = frozenset({"true", "yes", "y", "1", "on"})
_FALSE = frozenset({"false", "no", "n", "0", "off"})


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = text(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise BadValueError


def epoch_ms(value: Any, per_ms: float = 1.0) -> int:
    """Return epoch milliseconds of a moment, a date, an ISO 8601 text, or a number of *per_ms* units."""
    kind = type(value)
    if kind is datetime:
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return int((moment - _EPOCH) // _MILLISECOND)
    if kind is int:
        return int(value // per_ms) if per_ms >= 1 else int(value * round(1 / per_ms))
    if kind is float and isfinite(value):
        return int(value / per_ms)
    if isinstance(value, date):
        return (datetime(value.year, value.month, value.day, tzinfo=UTC) - _EPOCH) // _MILLISECOND
    if kind is str:
        stripped = value.strip()
        if stripped.isascii() and stripped.isdigit() and len(stripped) < 20:
            return epoch_ms(int(stripped), per_ms)
        try:
            return epoch_ms(datetime.fromisoformat(stripped))
        except ValueError:
            raise BadValueError from None
    raise BadValueError


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC) - _EPOCH

CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "text": text,
    "trim": lambda value: text(value).strip(),
    "upper": lambda value: text(value).upper(),
    "lower": lambda value: text(value).lower(),
    "number": number,
    "boolean": boolean,
    "not": lambda value: not boolean(value),
    "epoch_ms": epoch_ms,
    "epoch_ms_from_s": lambda value: epoch_ms(value, 0.001),
    "epoch_ms_from_us": lambda value: epoch_ms(value, 1000),
    "epoch_ms_from_ns": lambda value: epoch_ms(value, 1_000_000),
    "epoch_s": lambda value: epoch_ms(value) // 1000,
    "epoch_s_from_s": lambda value: epoch_ms(value, 0.001) // 1000,
}


# -- compiling


@dataclass(slots=True)
class Scope:
    """What sources are compiled in: one schema, the lookups of the file, and the problems found so far."""

    schema: Any
    names: dict[str, Any]
    lookups: Mapping[str, Mapping[str, Any]]
    problems: list[str] = field(default_factory=list)

    def refuse_unknown(self, table: Mapping[str, Any], known: set[str], where: str) -> None:
        for key in table:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}"
                self.problems.append(f"{where}.{key}: unknown; {hint}")

    def path(self, at: Any, where: str) -> Get | None:
        if not isinstance(at, str):
            self.problems.append(f"{where}: a path is a text, such as device.ip")
            return None
        try:
            return getter(at, self.schema, self.names)
        except PathError as error:
            self.problems.append(f"{where}: {error}")
            return None


_SOURCE_KEYS = {"path", "first", "constant", "as", "default", "lookup", "otherwise", "when"}


def compile_source(source: Any, scope: Scope, where: str) -> Get | None:
    """Return a function from a datum to the value of *source* or None; None if it can never give one.

    Problems go to *scope*.
    """
    if isinstance(source, str):
        return scope.path(source, where)
    if not isinstance(source, dict):
        scope.problems.append(f"{where}: write a path, or a table with path, first or constant")
        return None
    scope.refuse_unknown(source, _SOURCE_KEYS, where)
    if sum(key in source for key in ("path", "first", "constant")) != 1:
        scope.problems.append(f"{where}: exactly one of path, first and constant")
        return None
    get = _compile_origin(source, scope, where)
    if get is not None and "as" in source:
        get = _converted(get, source["as"], scope, where)
    if get is not None and "lookup" in source:
        get = _looked_up(get, source, scope, where)
    if "default" in source:
        default, inner = source["default"], get
        get = (lambda _: default) if inner is None else (lambda datum: default if (v := inner(datum)) is None else v)
    if get is not None and "when" in source:
        holds, then = compile_condition(source["when"], scope, f"{where}.when"), get
        get = lambda datum: then(datum) if holds(datum) else None  # noqa: E731
    return get


def _compile_origin(source: Mapping[str, Any], scope: Scope, where: str) -> Get | None:
    if "path" in source:
        return scope.path(source["path"], where)
    if "constant" in source:
        constant = source["constant"]
        return lambda _: constant
    choices = source["first"]
    if not isinstance(choices, list) or not choices:
        scope.problems.append(f"{where}.first: a list of sources")
        return None
    compiled = (compile_source(choice, scope, f"{where}.first[{index}]") for index, choice in enumerate(choices))
    gets = [get for get in compiled if get is not None]

    def first(datum: Any) -> Any:
        for get in gets:
            value = get(datum)
            if value is not None and value != "":
                return value
        return None

    return first if gets else None


def _converted(get: Get, names: Any, scope: Scope, where: str) -> Get:
    for name in names if isinstance(names, list) else [names]:
        if name not in CONVERSIONS:
            near = get_close_matches(str(name), CONVERSIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(CONVERSIONS))}"
            scope.problems.append(f"{where}.as: unknown conversion {name!r}; {hint}")
            continue
        get = _then(get, CONVERSIONS[name])
    return get


def _then(get: Get, convert: Callable[[Any], Any]) -> Get:
    return lambda datum: None if (value := get(datum)) is None else convert(value)


def _looked_up(get: Get, source: Mapping[str, Any], scope: Scope, where: str) -> Get:
    name, otherwise = source["lookup"], source.get("otherwise", "keep")
    table = scope.lookups.get(name)
    if table is None:
        scope.problems.append(f"{where}.lookup: there is no [lookup.{name}]")
        return get
    if otherwise not in {"keep", "drop", "reject"}:
        scope.problems.append(f"{where}.otherwise: keep, drop or reject")

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


# -- conditions

_CONDITION_KEYS = {"path", "equals", "in", "exists", "matches", "prefix", "above", "below", "not", "all", "any"}


def compile_condition(condition: Any, scope: Scope, where: str) -> Callable[[Any], bool]:
    """Return a function from a datum to whether *condition* holds. All parts of one table must hold."""
    if not isinstance(condition, dict) or not condition:
        scope.problems.append(f'{where}: a condition is a table, such as {{path = "platform", equals = "ios"}}')
        return lambda _: False
    scope.refuse_unknown(condition, _CONDITION_KEYS, where)
    tests: list[Callable[[Any], bool]] = []
    for name in ("all", "any"):
        if name in condition:
            parts = condition[name] if isinstance(condition[name], list) else []
            if not parts:
                scope.problems.append(f"{where}.{name}: a list of conditions")
            inner = [compile_condition(part, scope, f"{where}.{name}[{index}]") for index, part in enumerate(parts)]
            tests.append(_every(inner) if name == "all" else _some(inner))
    if "not" in condition:
        negated = compile_condition(condition["not"], scope, f"{where}.not")
        tests.append(lambda datum: not negated(datum))
    comparisons = set(condition) & {"equals", "in", "exists", "matches", "prefix", "above", "below"}
    if "path" in condition:
        get = scope.path(condition["path"], where)
        if not comparisons:
            scope.problems.append(f"{where}: compare with equals, in, exists, matches, prefix, above or below")
        tests += [_comparison(name, condition[name], get, scope, where) for name in sorted(comparisons)]
    elif comparisons:
        scope.problems.append(f"{where}: {', '.join(sorted(comparisons))} needs a path")
    return tests[0] if len(tests) == 1 else _every(tests)


def _every(tests: list[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    return lambda datum: all(test(datum) for test in tests)


def _some(tests: list[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    return lambda datum: any(test(datum) for test in tests)


def _comparison(name: str, operand: Any, get: Get | None, scope: Scope, where: str) -> Callable[[Any], bool]:
    if get is None:  # the schema lacks it: as a value that is not there
        get = lambda _: None  # noqa: E731
    here: Get = get
    match name:
        case "equals":
            return lambda datum: bool(here(datum) == operand)
        case "in" if isinstance(operand, list):
            return lambda datum: here(datum) in operand
        case "exists" if isinstance(operand, bool):
            return lambda datum: (here(datum) is not None) == operand
        case "prefix" if isinstance(operand, str):
            return lambda datum: isinstance(value := here(datum), str) and value.startswith(operand)
        case "matches" if isinstance(operand, str):
            try:
                pattern = re.compile(operand)
            except re.error as error:
                scope.problems.append(f"{where}.matches: not a regular expression: {error}")
                return lambda _: False
            return lambda datum: isinstance(value := here(datum), str) and pattern.search(value) is not None
        case "above" | "below" if isinstance(operand, int | float):
            return lambda datum: _compares(here(datum), operand, is_above=name == "above")
    scope.problems.append(f"{where}.{name}: not a value that it can compare with")
    return lambda _: False


def _compares(value: Any, operand: float, *, is_above: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return False
    return value > operand if is_above else value < operand
