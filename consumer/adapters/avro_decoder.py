"""Avro records to values: which schema, is it safe, its reader, the body. The guards themselves are in `core`."""

import asyncio
import itertools
import json
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from math import inf
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

from fastavro import parse_schema

from consumer.core.avro_reader import Malformed, Reader, compile_reader, read_body, read_index
from consumer.core.record import Record
from consumer.core.schema_guard import (
    MAX_REFERENCES,
    MAX_SCHEMA_BYTES,
    NoSchema,
    Parsed,
    SchemaRefusedError,
    SchemaText,
    check_json_depth,
    resolve,
    survey,
)
from consumer.core.wire_format import LOCATE, BadFrame, SchemaReference, WireFormat
from consumer.errors import SettingsError
from consumer.ports import Apart, Clock, Decoded, SchemaNeeded, Undecodable


class SchemaSource(Protocol):
    """Where writer schemas come from that we don't have."""

    async def fetch(self, reference: SchemaReference) -> SchemaText | NoSchema:
        """Return the schema behind *reference*, or that there is none for good. Waits out every outage."""


class ProcessApart(Protocol):
    """Where records are decoded that could kill whoever decodes them."""

    async def decode(self, schema: bytes, body: bytes) -> dict[str, object] | Malformed:
        """Decode *body* with *schema*, a pickle of `compile_reader`'s arguments. May be cancelled."""

    async def close(self) -> None:
        """End it."""


class _Loaded(NamedTuple):
    """One record type that can be decoded."""

    handle: int
    parsed: dict[str, object]
    reader: Reader
    max_bytes: int


class _Recursive(NamedTuple):
    """One record type that contains itself: decoded in a process apart."""

    handle: int
    parsed: dict[str, object]
    schema: bytes
    """For `ProcessApart.decode`."""
    max_bytes: int


class _Union(NamedTuple):
    """A schema that is a union of record types, as several event types on one topic have; each has its own handle."""

    branches: tuple[_Loaded | _Recursive | None, ...]


class _Absent(NamedTuple):
    """No schema to decode with, or so we believe until a moment (monotonic seconds)."""

    reason: str
    until: float


_Entry: TypeAlias = _Loaded | _Recursive | _Union | _Absent
_Work: TypeAlias = tuple[_Recursive, bytes]


class AvroDecoder:
    """`ports.Decoder`. Owned by the event loop."""

    def __init__(
        self,
        wire: WireFormat,
        *,
        clock: Clock,
        known: Mapping[SchemaReference, SchemaText] | None = None,
        source: SchemaSource | None = None,
        apart: ProcessApart | None = None,
        max_record_bytes: int = 1_048_576,
        max_schemas: int = 1_000,
        unknown_ttl_s: float = 300.0,
    ) -> None:
        """Build a decoder that has the *known* schemas for good and asks *source*, if any, for all others.

        Args:
            wire: how records name their schema. With `plain`, *known* must have `Configured()`.
            clock: for the age of "no such schema".
            known: schemas that need no source.
            source: for the rest; without one, what isn't known is unknown.
            apart: for schemas with types that contain themselves; without one, they are refused.
            max_record_bytes: larger values are refused unread.
            max_schemas: how many fetched ones are kept; the one that was not used for longest goes first.
            unknown_ttl_s: how long "no such schema" is believed before it is asked for again.

        Raises:
            SettingsError: a known schema cannot be decoded with.
        """
        self._locate = LOCATE[wire]
        self._clock = clock
        self._source = source
        self._apart = apart
        self._max_record_bytes = max_record_bytes
        self._max_schemas = max_schemas
        self._unknown_ttl_s = unknown_ttl_s
        self._handles = itertools.count(1)
        self._by_handle: dict[int, _Loaded | _Recursive] = {}
        self._known: dict[SchemaReference, _Entry] = self._load_known(known or {})
        self._fetched: OrderedDict[SchemaReference, _Entry] = OrderedDict()
        self._fetches: dict[SchemaReference, asyncio.Task[None]] = {}

    def decode(self, record: Record) -> Decoded | Undecodable | SchemaNeeded | Apart:
        value = record.value or b""
        if len(value) > self._max_record_bytes:
            return Undecodable("too_large")
        body = self._locate(value, record.headers)
        if isinstance(body, BadFrame):
            return Undecodable(body.reason)
        reference, start = body
        entry = self._known.get(reference) or self._look_up(reference)
        if isinstance(entry, _Union):
            at = read_index(value, start)
            if isinstance(at, Malformed):
                return Undecodable(at.reason)
            index, start = at
            if index >= len(entry.branches):
                return Undecodable("bad_index")
            entry = entry.branches[index] or _NOT_A_RECORD
        if isinstance(entry, _Loaded):
            if len(value) - start > entry.max_bytes:
                return Undecodable("too_large")
            datum = read_body(entry.reader, value, start)
            return Undecodable(datum.reason) if type(datum) is Malformed else Decoded(entry.handle, datum)
        if isinstance(entry, _Recursive):
            if len(value) - start > entry.max_bytes:
                return Undecodable("too_large")
            return Apart(entry.handle, (entry, value[start:]))
        return SchemaNeeded(reference) if entry is None else Undecodable(entry.reason)

    async def decode_apart(self, work: object) -> Decoded | Undecodable:
        entry, body = cast("_Work", work)
        assert self._apart is not None
        datum = await self._apart.decode(entry.schema, body)
        return Undecodable(datum.reason) if isinstance(datum, Malformed) else Decoded(entry.handle, datum)

    async def fetch(self, reference: object) -> None:
        """See `ports.Decoder.fetch`. A fetch whose callers are all cancelled goes on until `close`."""
        wanted = cast("SchemaReference", reference)
        task = self._fetches.get(wanted)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch(wanted))
            self._fetches[wanted] = task
            task.add_done_callback(lambda _: self._fetches.pop(wanted, None))
        await asyncio.shield(task)

    def parsed_schema(self, schema: int) -> dict[str, object]:
        return self._by_handle[schema].parsed

    async def close(self) -> None:
        """Stop all fetches, and the process apart."""
        if self._apart is not None:
            await self._apart.close()
        tasks = list(self._fetches.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look_up(self, reference: SchemaReference) -> _Entry | None:
        entry = self._fetched.get(reference)
        if entry is None:
            return _UNKNOWN if self._source is None else None
        if isinstance(entry, _Absent) and entry.until <= self._clock.monotonic():
            return None
        self._fetched.move_to_end(reference)
        return entry

    async def _fetch(self, reference: SchemaReference) -> None:
        if self._source is None:
            return
        answer = await self._source.fetch(reference)
        entry: _Entry
        try:
            if isinstance(answer, NoSchema):
                entry = _Absent(answer.reason, self._clock.monotonic() + self._unknown_ttl_s)
            else:
                entry = self._load(answer)
        except SchemaRefusedError:
            entry = _Absent("schema_refused", inf)
        self._forget(self._fetched.pop(reference, None))
        self._fetched[reference] = entry
        while len(self._fetched) > self._max_schemas:
            self._forget(self._fetched.popitem(last=False)[1])

    def _forget(self, entry: _Entry | None) -> None:
        for loaded in entry.branches if isinstance(entry, _Union) else (entry,):
            if isinstance(loaded, _Loaded | _Recursive):
                del self._by_handle[loaded.handle]

    def _load_known(self, known: Mapping[SchemaReference, SchemaText]) -> dict[SchemaReference, _Entry]:
        entries: dict[SchemaReference, _Entry] = {}
        by_text: dict[SchemaText, _Entry] = {}
        problems = []
        for reference, text in known.items():
            try:
                entries[reference] = by_text[text] = by_text.get(text) or self._load(text)
            except SchemaRefusedError as refused:
                problems.append(f"schema {reference}: {refused}")
        if problems:
            raise SettingsError(problems)
        return entries

    def _load(self, text: SchemaText) -> _Loaded | _Recursive | _Union:
        """Parse, judge and compile *text*. Milliseconds, once for each schema.

        Raises:
            SchemaRefusedError: it isn't a schema, or not a safe one.
        """
        schema, named = parse(text)
        max_bytes = survey(schema, named, allow_recursive=self._apart is not None).max_body_bytes
        kind, definition = resolve(schema, named)
        if isinstance(definition, list):
            branches = [
                self._add(branch, named, max_bytes) if resolve(branch, named)[0] == "record" else None
                for branch in definition
            ]
            return _Union(tuple(branches))
        if kind != "record":
            raise SchemaRefusedError(f"events are records, this schema is of type {kind}")
        return self._add(definition, named, max_bytes)

    def _add(self, schema: Parsed, named: dict[str, Parsed], max_bytes: int) -> _Loaded | _Recursive:
        _, definition = resolve(schema, named)
        parsed = {**cast("dict[str, object]", definition), "__fastavro_parsed": True, "__named_schemas": named}
        handle = next(self._handles)
        loaded: _Loaded | _Recursive
        if recursive := survey(schema, named, allow_recursive=True).recursive:
            loaded = _Recursive(handle, parsed, pickle.dumps((schema, named, recursive)), max_bytes)
        else:
            loaded = _Loaded(handle, parsed, compile_reader(schema, named), max_bytes)
        self._by_handle[loaded.handle] = loaded
        return loaded


_UNKNOWN = _Absent("schema_unknown", inf)
_NOT_A_RECORD = _Absent("not_a_record", inf)


def parse(text: SchemaText) -> tuple[Parsed, dict[str, Parsed]]:
    """Parse *text* after its references.

    Returns:
        The parsed schema and all named types.

    Raises:
        SchemaRefusedError: not JSON, not Avro, too large, nested too deeply, too many references.
    """
    if len(text.references) > MAX_REFERENCES:
        raise SchemaRefusedError(f"more than {MAX_REFERENCES} references")
    named: dict[str, Parsed] = {}
    parsed: Parsed = "null"
    for each in (*text.references, text.text):
        if len(each) > MAX_SCHEMA_BYTES:
            raise SchemaRefusedError(f"a schema of more than {MAX_SCHEMA_BYTES} bytes")
        try:
            document = json.loads(each)
        except (ValueError, RecursionError):
            raise SchemaRefusedError("not JSON") from None
        check_json_depth(document)
        try:
            parsed = parse_schema(document, cast("Any", named))
        except Exception as error:  # noqa: BLE001  KeyError, TypeError and others: all say that it isn't a schema
            raise SchemaRefusedError(f"not an Avro schema: {type(error).__name__}: {error}") from None
    return parsed, named
