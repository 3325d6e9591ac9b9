"""Conditions of the mapping language: `{path = "platform", equals = "ios"}`, and `all`, `any`, `not` of such.

A condition never fails: where the value is not there, or of a type that doesn't compare, it does not hold.
"""

import re
from collections.abc import Callable, Collection
from decimal import Decimal
from math import isfinite
from typing import Any, Protocol, TypeAlias

from consumer.core.mapping_paths import Get, Path
from consumer.core.mapping_values import CONVERSIONS, BadValueError

Holds: TypeAlias = Callable[[Any], bool]

_COMPARISONS = ("equals", "in", "exists", "matches", "prefix", "above", "below")
_KEYS = {"path", "part", "as", "not", "all", "any", *_COMPARISONS}


class _Scope(Protocol):
    """What conditions need of `mapping_sources.Scope`."""

    problems: list[str]

    def refuse_unknown(self, table: dict[str, Any], known: Collection[str], where: str) -> None: ...
    def path(self, at: Any, where: str) -> Path | None: ...
    def part(self, name: Any, where: str) -> Get | None: ...


def compile_condition(condition: Any, scope: _Scope, where: str) -> Holds:
    """Return a function from a datum to whether *condition* holds. All parts of one table must hold."""
    if not isinstance(condition, dict) or not condition:
        scope.problems.append(f'{where}: a condition is a table, such as {{path = "platform", equals = "ios"}}')
        return _never
    scope.refuse_unknown(condition, _KEYS, where)
    tests: list[Holds] = []
    for name in ("all", "any"):
        if name in condition:
            parts = condition[name] if isinstance(condition[name], list) else []
            if not parts:
                scope.problems.append(f"{where}.{name}: a list of conditions")
            inner = [compile_condition(part, scope, f"{where}.{name}[{index}]") for index, part in enumerate(parts)]
            tests.append(_every(inner) if name == "all" else _some(inner))
    if "not" in condition:
        tests.append(_no(compile_condition(condition["not"], scope, f"{where}.not")))
    comparisons = [name for name in _COMPARISONS if name in condition]
    subjects = [name for name in ("path", "part") if name in condition]
    if len(subjects) > 1 or bool(comparisons) != bool(subjects) or ("as" in condition and not subjects):
        scope.problems.append(f"{where}: one path or part, and what to compare it with: {', '.join(_COMPARISONS)}")
    elif subjects:
        get = _subject(condition, scope, where)
        tests += [_comparison(name, condition[name], get, scope, f"{where}.{name}") for name in comparisons]
    return tests[0] if len(tests) == 1 else _every(tests)


def _never(_: Any) -> bool:
    return False


def _no(holds: Holds) -> Holds:
    return lambda datum: not holds(datum)


def _every(tests: list[Holds]) -> Holds:
    return lambda datum: all(test(datum) for test in tests)


def _some(tests: list[Holds]) -> Holds:
    return lambda datum: any(test(datum) for test in tests)


def _subject(condition: dict[str, Any], scope: _Scope, where: str) -> Get:
    """Return the value that is compared; a path that the schema may lack is a value that is not there."""
    if "path" in condition:
        path = scope.path(condition["path"], f"{where}.path")
        get = None if path is None else path.get
    else:
        get = scope.part(condition["part"], f"{where}.part")
    conversion = condition.get("as")
    convert = CONVERSIONS.get(conversion) if isinstance(conversion, str) else None
    if conversion is not None and convert is None:
        scope.problems.append(f"{where}.as: unknown conversion {conversion!r}; there are: {', '.join(CONVERSIONS)}")
    inner = get

    def subject(datum: Any) -> Any:
        try:
            value = None if inner is None else inner(datum)
            return value if convert is None or value is None else convert(value)
        except BadValueError:
            return None

    return subject


def _comparison(name: str, operand: Any, get: Get, scope: _Scope, where: str) -> Holds:
    match name:
        case "equals" if not isinstance(operand, list | dict):
            return lambda datum: _same(get(datum), operand)
        case "in" if isinstance(operand, list) and operand:
            return lambda datum: any(_same(value, each) for value in (get(datum),) for each in operand)
        case "exists" if isinstance(operand, bool):
            return lambda datum: (get(datum) is not None) == operand
        case "prefix" if isinstance(operand, str):
            return lambda datum: isinstance(value := get(datum), str) and value.startswith(operand)
        case "matches" if isinstance(operand, str):
            try:
                pattern = re.compile(operand)
            except re.error as error:
                scope.problems.append(f"{where}: not a regular expression: {error}")
                return _never
            return lambda datum: isinstance(value := get(datum), str) and pattern.search(value) is not None
        case "above" | "below" if type(operand) in {int, float} and isfinite(operand):
            is_above = name == "above"
            return lambda datum: _lies(get(datum), operand, is_above=is_above)
    scope.problems.append(f"{where}: not a value that it can compare with")
    return _never


def _same(value: Any, operand: Any) -> bool:
    """Python takes True for 1; a mapping doesn't."""
    return bool(value == operand) and (type(value) is bool) == (type(operand) is bool)


def _lies(value: Any, operand: float, *, is_above: bool) -> bool:
    if type(value) not in {int, float, Decimal}:
        return False
    return bool(value > operand if is_above else value < operand)
