"""A record's bytes to a request: decode, map, choose the app, apply Kochava's rules, serialise.

No I/O and no waiting: what needs a schema says so. `kochava-consumer map` shows the same steps for one record.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from consumer.core.apps import choose_app
from consumer.core.event import InAppEvent
from consumer.core.mapping import CompiledMapping, Filtered as MappedOut, MappingSpec, OtherType, compile_mapping
from consumer.core.outcome import Rejected
from consumer.core.payload import STANDARD_EVENT_NAMES, PayloadRules, StrictAuth, build, serialise
from consumer.core.record import Record
from consumer.errors import MappingError
from consumer.ports import Apart, Decoded, Decoder, Request, SchemaNeeded, Undecodable


@dataclass(frozen=True, slots=True)
class App:
    """One configured app. `auth` is set for accounts with strict authentication."""

    guid: str
    enabled: bool = True
    auth: StrictAuth | None = None


class Prepared(NamedTuple):
    """Ready to be sent."""

    app: str
    event: str
    time_ms: int | None
    request: Request
    warnings: tuple[str, ...]
    event_id: str | None = None


class Filtered(NamedTuple):
    """Not ours to send, by a rule."""

    reason: str


class Refused(NamedTuple):
    """Can never be sent as it is. `stage` is decode or map."""

    stage: str
    reason: str
    app: str = ""


class Held(NamedTuple):
    """To be sent when settings say where."""

    app: str
    reason: str


Step: TypeAlias = Prepared | Filtered | Refused | Held | SchemaNeeded | Apart
UnknownApp: TypeAlias = Literal["dead_letter", "filter", "hold"]


class Translator:
    """Translates records; compiles the mapping once per writer schema."""

    def __init__(
        self,
        *,
        decoder: Decoder,
        mapping: MappingSpec,
        event_id: str | None,
        other_types: Literal["ignore", "dead_letter"],
        apps: Mapping[str, App],
        unknown_app: UnknownApp,
        rules: PayloadRules,
        on_misfit: Callable[[MappingError], None],
    ) -> None:
        self._decoder = decoder
        self._mapping = mapping
        self._event_id = event_id
        self._other_types = other_types
        self._apps = apps
        self._unknown_app = unknown_app
        self._rules = rules
        self._on_misfit = on_misfit
        self._compiled: dict[int, CompiledMapping | OtherType | Refused] = {}

    def translate(self, record: Record) -> Step:
        """Bring *record* as far as it gets."""
        if record.value is None:
            return Filtered("tombstone")
        decoded = self._decoder.decode(record)
        if isinstance(decoded, Decoded):
            return self._map(decoded)
        if isinstance(decoded, Undecodable):
            return Refused("decode", decoded.reason)
        if isinstance(decoded, Apart) and decoded.schema not in self._compiled:
            self._compile(decoded.schema)  # now: the decoder may have forgotten the schema when it answers
        return decoded

    def go_on(self, decoded: Decoded | Undecodable) -> Step:
        """Bring a record further that was decoded apart."""
        return self._map(decoded) if isinstance(decoded, Decoded) else Refused("decode", decoded.reason)

    def _map(self, decoded: Decoded) -> Step:
        event = self.event(decoded)
        return self._prepare(event) if isinstance(event, InAppEvent) else event

    def event(self, decoded: Decoded) -> InAppEvent | Filtered | Refused:
        """Map what was decoded, and judge nothing of it yet."""
        mapping = self._compiled.get(decoded.schema) or self._compile(decoded.schema)
        if isinstance(mapping, Refused):
            return mapping
        if isinstance(mapping, OtherType):
            return Filtered("other_type") if self._other_types == "ignore" else Refused("map", "other_type")
        event = mapping.map(decoded.datum)
        if isinstance(event, InAppEvent):
            return event
        return Filtered(event.reason) if isinstance(event, MappedOut) else Refused("map", event.reason)

    def _prepare(self, event: InAppEvent) -> Step:
        chosen = choose_app(self._apps, event.app, event.platform)
        if chosen is None:
            match self._unknown_app:
                case "dead_letter":
                    return Refused("map", "unknown_app")
                case "filter":
                    return Filtered("unknown_app")
                case "hold":
                    return Held("unknown", "unknown_app")
        key, app = chosen
        payload = build(event, app.guid, self._rules)
        if isinstance(payload, Rejected):
            return Refused("map", payload.reason, key)
        made = serialise(payload, app.auth)
        if isinstance(made, Rejected):
            return Refused("map", made.reason, key)
        label = event.name if event.name in STANDARD_EVENT_NAMES else "custom"
        return Prepared(key, label or "custom", event.time_ms, Request(*made), payload.warnings, event.event_id)

    def _compile(self, schema: int) -> CompiledMapping | OtherType | Refused:
        try:
            made: CompiledMapping | OtherType | Refused = compile_mapping(
                self._mapping, self._decoder.parsed_schema(schema), event_id=self._event_id
            )
        except MappingError as error:
            # the schema came with the data: stopping would let one producer stop everybody; the flood guard bounds it
            self._on_misfit(error)
            made = Refused("map", "mapping_does_not_fit_schema")
        self._compiled[schema] = made
        return made
