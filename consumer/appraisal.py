"""What today's configuration makes of a record that was given up: its event, and whether it would be sent now.

Decoding and mapping are those of the process. Two things differ: nobody waits for a registry for ever, and an app that
is switched off counts as a reason, since its events would only be held.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

from consumer.adapters.clock import SystemClock
from consumer.core.event import InAppEvent
from consumer.core.mapping_types import named_types
from consumer.core.record import Record
from consumer.errors import MappingError
from consumer.parts import app_key, make_decoder, make_registry, make_translator
from consumer.ports import Apart, Decoded, SchemaNeeded, Undecodable
from consumer.settings import Settings
from consumer.translate import Filtered, Held, Prepared, Refused

SCHEMAS_WAIT_S = 10.0
"""For all schemas of one command together; a registry that is well answers within milliseconds."""

Verdict: TypeAlias = Prepared | Filtered | Refused | Held
_Decoding: TypeAlias = Decoded | Undecodable | SchemaNeeded | Apart
_UNAVAILABLE = Undecodable("schema_unavailable")


class Appraiser:
    """Decodes and maps outside of the process. Not for use within an event loop: it has its own."""

    def __init__(self, settings: Settings, on_misfit: Callable[[MappingError], None]) -> None:
        clock = SystemClock()
        self._runner = asyncio.Runner()
        self._registry = make_registry(settings, clock)
        self._decoder = make_decoder(settings, clock, self._registry)
        self._translator = make_translator(settings, self._decoder, on_misfit)
        self._off = {app_key(key) for key, app in settings.kochava.apps.items() if not app.enabled}
        self._asked: set[object] = set()
        self._wait_s = SCHEMAS_WAIT_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._runner:
            self._runner.run(self._close())

    async def _close(self) -> None:
        await self._decoder.close()
        if self._registry is not None:
            await self._registry.close()

    def decode(self, records: Sequence[Record]) -> list[Decoded | Undecodable]:
        """Decode *records*; one whose schema cannot be had in time is undecodable, `schema_unavailable`."""
        found = [self._decoder.decode(record) for record in records]
        missing = {step.reference for step in found if isinstance(step, SchemaNeeded)} - self._asked
        if missing:
            self._asked |= missing
            self._runner.run(self._fetch(missing))
            found = [
                self._decoder.decode(record) if isinstance(step, SchemaNeeded) else step
                for record, step in zip(records, found, strict=True)
            ]
        if any(isinstance(step, Apart) for step in found):
            return self._runner.run(self._finish_all(found))
        return [step if isinstance(step, Decoded | Undecodable) else _UNAVAILABLE for step in found]

    async def _fetch(self, references: set[object]) -> None:
        """Ask for all of them at once; those that are late go on meanwhile, but nobody waits for them again."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        tasks = [loop.create_task(self._decoder.fetch(each)) for each in references]
        _, late = await asyncio.wait(tasks, timeout=max(0.1, self._wait_s))
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self._wait_s -= loop.time() - begun

    async def _finish_all(self, steps: Sequence[_Decoding]) -> list[Decoded | Undecodable]:
        return await asyncio.gather(*map(self._finish, steps))

    async def _finish(self, step: _Decoding) -> Decoded | Undecodable:
        match step:
            case SchemaNeeded():
                return _UNAVAILABLE
            case Apart():
                return await self._decoder.decode_apart(step.work)
        return step

    def event(self, decoded: Decoded | Undecodable) -> InAppEvent | None:
        """Return the event, if it can be decoded and mapped."""
        event = self._translator.event(decoded) if isinstance(decoded, Decoded) else None
        return event if isinstance(event, InAppEvent) else None

    def judge(self, decoded: Decoded | Undecodable) -> Verdict:
        """Say what `run` would do with it now."""
        step = self._translator.go_on(decoded)
        assert isinstance(step, Verdict)
        if isinstance(step, Prepared) and step.app in self._off:
            return Held(step.app, "app_switched_off")
        return step

    def field_names(self, decoded: Decoded) -> frozenset[str]:
        """Return every name of a field in the writer schema: what no producer of data chooses."""
        schema: Mapping[str, Any] = self._decoder.parsed_schema(decoded.schema)
        types = [schema, *named_types(schema).values()]
        return frozenset(field["name"] for each in types for field in each.get("fields", ()))


def why_not(verdict: Verdict) -> str | None:
    """Return in a few stable words why it would not be sent now, or None if it would."""
    match verdict:
        case Prepared():
            return None
        case Filtered():
            return f"filtered: {verdict.reason}"
        case Refused():
            return f"{verdict.stage}: {verdict.reason}"
        case Held():
            return f"held: {verdict.reason}"
