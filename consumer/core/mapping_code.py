"""The function that a mapping becomes: Python made once for each writer schema.

Most parts of an event are fields of the record or of a record within it, and their types are known from the schema: a
dict access and a type check, written out, take a fifth of the time of a loop over closures. Whatever else the language
can say stays a closure that the function calls. Texts of a mapping or a schema get into the source as string literals
(`repr`) only, everything else by a name in the namespace.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

from consumer.core.event import InAppEvent
from consumer.core.mapping_conditions import Holds
from consumer.core.mapping_paths import Get
from consumer.core.mapping_properties import Fill
from consumer.core.mapping_sources import Source
from consumer.core.mapping_values import BadValueError, boolean, text
from consumer.core.outcome import Rejected

BAD_DATA = (BadValueError, LookupError, AttributeError, TypeError, ValueError, ArithmeticError)
"""What a value of an unexpected type can lead to; the schema's types exclude nearly all of it."""
_ATTRIBUTES = tuple(field.name for field in fields(InAppEvent))


class Filtered(NamedTuple):
    """A filter of the mapping leaves this record out."""

    reason: str


Translate = Callable[[Any], InAppEvent | Filtered | Rejected]


class PartCode(NamedTuple):
    """One part of the event: the attribute that it fills, where it comes from, the type that it must have."""

    part: str
    attribute: str
    source: Source
    convert: Callable[[Any], Any]


def compile_function(
    *,
    filters: list[tuple[Holds, str]],
    parts: list[PartCode],
    ids: list[tuple[str, Source]],
    id_maps: list[Get],
    fill_properties: Fill,
) -> Translate:
    """Write and compile the function for one schema."""
    code = _Code()
    for holds, reason in filters:
        code.line(f"if {code.bind(holds)}(d): return {code.bind(Filtered(reason))}")
    values: dict[str, str] = {}
    for part, attribute, source, convert in parts:
        code.line(f"part = {part!r}")
        values[attribute] = code.value(source, convert)
    code.line("part = 'ids'")
    code.line("ids = {}")
    for get in id_maps:
        name = code.bind(get)
        code.line(f"m = {name}(d)")
        code.line("if m is not None:")
        code.line("    for k, v in m.items():")
        code.line("        if v is not None: ids[k] = text(v)")
    for name, source in ids:
        variable = code.value(source, text)
        code.line(f"if {variable} is not None: ids[{name!r}] = {variable}")
    code.line("part = 'properties'")
    code.line("properties = {}")
    code.line(f"{code.bind(fill_properties)}(d, properties)")
    if "event_id" in values:  # a key of ours, so that everything downstream can be accounted for
        code.line(f"if {values['event_id']} is not None: properties['event_id'] = {values['event_id']}")
    values |= {"ids": "ids", "properties": "properties"}
    code.line(f"return InAppEvent({', '.join(values.get(name, 'None') for name in _ATTRIBUTES)})")
    return code.compile()


class _Code:
    """The lines of the function, and the objects that they name."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._namespace: dict[str, Any] = {
            "BAD_DATA": BAD_DATA, "InAppEvent": InAppEvent, "Rejected": Rejected, "boolean": boolean, "text": text,
        }  # fmt: skip
        self._records: dict[tuple[str, ...], tuple[str, bool]] = {(): ("d", False)}
        self._count = 0

    def line(self, text: str) -> None:
        self._lines.append(f"        {text}")

    def bind(self, value: object) -> str:
        name = self._new("c")
        self._namespace[name] = value
        return name

    def value(self, source: Source, convert: Callable[[Any], Any]) -> str:
        """Write the lines that put a converted value, or None, into a variable, and return its name."""
        name = self._new("v")
        if source.path is not None and source.path.fields is not None:
            self.line(f"{name} = {self._field(source.path.fields)}")
        else:
            self.line(f"{name} = {self.bind(source.get)}(d)")
        if convert is text:
            self.line(f"if type({name}) is not str and {name} is not None: {name} = text({name})")
        elif convert is boolean:
            self.line(f"if {name} is not None and {name} is not True and {name} is not False: {name} = boolean({name})")
        else:
            self.line(f"if {name} is not None: {name} = {self.bind(convert)}({name})")
        return name

    def compile(self) -> Translate:
        source = "\n".join([
            "def translate(d):",
            "    part = 'filter'",
            "    try:",
            *self._lines,
            "    except BAD_DATA:",
            "        return Rejected('bad_' + part)",
        ])  # fmt: skip
        exec(compile(source, "<mapping>", "exec"), self._namespace)  # noqa: S102 - our own lines; see the module
        translate: Translate = self._namespace["translate"]
        return translate

    def _field(self, way: tuple[tuple[str, bool], ...]) -> str:
        """Return the expression for a field; the records on the way are read once and kept in variables."""
        *outer, (last, _) = way
        record, may_be_null = self._record(tuple(outer))
        access = f"{record}[{last!r}]"
        return f"None if {record} is None else {access}" if may_be_null else access

    def _record(self, way: tuple[tuple[str, bool], ...]) -> tuple[str, bool]:
        key = tuple(name for name, _ in way)
        if key not in self._records:
            _, outer_may_be_null = self._record(way[:-1])
            expression = self._field(way)
            name = self._new("r")
            self.line(f"{name} = {expression}")
            self._records[key] = (name, way[-1][1] or outer_may_be_null)
        return self._records[key]

    def _new(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"
