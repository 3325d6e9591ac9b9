"""How the stand-in Kochava misbehaves: rules that say for which requests, and what happens instead of a good answer.

The first rule that matches decides. Chance is drawn from the event's id and try, not from a sequence, so the same
events have the same luck in every run, in whatever order they arrive.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b
from math import exp, log
from random import Random
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from consumer.errors import SettingsError

LATENCY_MAX_MS = 600_000
BODY_MAX_CHARS = 1_000_000
RULES_MAX = 1_000

_Milliseconds = Annotated[float, Field(ge=0, le=LATENCY_MAX_MS)]
_Count = Annotated[int, Field(ge=1)]
_FRAMING = {"connection", "content-length", "transfer-encoding"}


class Latency(BaseModel):
    """How long an answer takes: always the same, evenly spread, or with a long tail."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: Literal["fixed", "uniform", "lognormal"] = "fixed"
    low_ms: _Milliseconds = 0.0
    """The latency, the lower bound, or the median."""
    spread: _Milliseconds = 0.0
    """The upper bound in milliseconds, or sigma: how long the tail is (0.5 is usual)."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: object) -> object:
        """Read `20`, `uniform:5:50` and `lognormal:20:0.5`."""
        if isinstance(given, (int, float)) and not isinstance(given, bool):
            return {"low_ms": given}
        if not isinstance(given, str):
            return given
        match given.split(":"):
            case [number] if number.replace(".", "", 1).isdecimal():
                return {"low_ms": number}
            case ["uniform" | "lognormal" as shape, low, spread]:
                return {"shape": shape, "low_ms": low, "spread": spread}
        raise ValueError(
            "a latency is milliseconds, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA, such as lognormal:20:0.5"
        )

    @model_validator(mode="after")
    def _is_ordered(self) -> "Latency":
        if self.shape == "uniform" and self.spread < self.low_ms:
            raise ValueError("the upper bound of uniform is below its lower bound")
        if self.shape == "lognormal" and self.low_ms <= 0:
            raise ValueError("the median of lognormal is above 0")
        return self

    @model_serializer
    def _to_text(self) -> str:
        return f"{self.low_ms:g}" if self.shape == "fixed" else f"{self.shape}:{self.low_ms:g}:{self.spread:g}"

    def draw_s(self, random: Random) -> float:
        """Return the latency of one answer."""
        match self.shape:
            case "fixed":
                return self.low_ms / 1000
            case "uniform":
                return random.uniform(self.low_ms, self.spread) / 1000
            case "lognormal":
                return min(exp(random.gauss(log(self.low_ms), min(self.spread, 10.0))), LATENCY_MAX_MS) / 1000


NO_LATENCY = Latency()


def _dump(body: object) -> object:
    return body if body is None or isinstance(body, str) else json.dumps(body, separators=(",", ":"))


class Match(BaseModel):
    """For which requests. Everything that is given must hold; `{}` is every request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    app: str | None = None
    """The App GUID."""
    event: str | None = None
    """The event name."""
    id: str | None = None
    id_prefix: str | None = None
    first_tries: _Count | None = None
    """Only the first so many tries of each event id: with 1, it succeeds on the second."""
    limit: _Count | None = None
    """No more than so many requests."""
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of those that match otherwise."""


class Do(BaseModel):
    """What happens instead."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Literal["answer", "refuse", "html", "redirect", "reset_before", "reset_after", "hang"] = "answer"
    """`reset_before` and `reset_after`: the connection is reset before or after the event was accepted."""
    latency_ms: Latency | None = None
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    headers: dict[str, str] = {}
    body: Annotated[str | None, BeforeValidator(_dump), Field(max_length=BODY_MAX_CHARS)] = None
    """Text, or any JSON value."""
    early_hints: bool = False
    """An interim answer, 103, comes first."""
    drip_ms: _Milliseconds = 0.0
    """The answer comes one byte per so many milliseconds."""
    close: Literal["no", "announced", "silent"] = "no"
    """The connection closes behind the answer, with or without `Connection: close`."""
    accepted: bool | None = None
    """Whether the event counts all the same; else a good answer and `reset_after` accept, nothing else does."""

    @model_validator(mode="after")
    def _can_be_said(self) -> "Do":
        for name, value in self.headers.items():
            if name.lower() in _FRAMING:
                raise ValueError(f"the header {name} is the sandbox's own; see close")
            if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError("a header name is letters, digits and hyphens")
            if not value.isascii() or not value.isprintable():
                raise ValueError(f"the value of the header {name} isn't printable ASCII")
        if self.action in {"reset_before", "reset_after", "hang"} and (self.status or self.body is not None):
            raise ValueError(f"{self.action} has no answer, so it takes no status and no body")
        return self


class Rule(BaseModel):
    """One misbehaviour."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    match: Match = Match()
    do: Do = Do()


_RULES = TypeAdapter(Annotated[list[Rule], Field(max_length=RULES_MAX)])


def read_rules(given: bytes | Sequence[Any]) -> tuple[Rule, ...]:
    """Return the rules of a JSON list, or of values that look like one.

    Raises:
        SettingsError: with every problem.
    """
    try:
        return tuple(_RULES.validate_json(given) if isinstance(given, bytes) else _RULES.validate_python(list(given)))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise SettingsError([_spell("rules", problem["loc"], problem["msg"]) for problem in problems]) from None


def read_latency(text: str | float) -> Latency:
    """Return the latency that *text* describes.

    Raises:
        SettingsError: with every problem.
    """
    try:
        return Latency.model_validate(text)
    except ValidationError as error:
        raise SettingsError(
            [f"latency: {problem['msg'].removeprefix('Value error, ')}" for problem in error.errors()]
        ) from None


def _spell(what: str, location: tuple[int | str, ...], message: str) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return f"{what}{place}: {message.removeprefix('Value error, ')}"


class Behaviour:
    """Rules at work: which of them decides, how often each has."""

    def __init__(self, rules: Sequence[Rule] = (), latency: Latency = NO_LATENCY, seed: int = 0) -> None:
        self.rules = tuple(rules)
        self.fired = [0] * len(self.rules)
        self._latency = latency
        self._seed = seed
        self._random = Random(seed)  # noqa: S311 - reproducible, not secret
        self.is_plain = not self.rules and latency == NO_LATENCY

    def dump(self) -> list[dict[str, object]]:
        """Return the rules as `read_rules` takes them."""
        return [rule.model_dump(mode="json", exclude_defaults=True) for rule in self.rules]

    def choose(self, app: str | None, event: str | None, event_id: str | None, tries: int) -> Do | None:
        """Return what the first matching rule wants. *tries* is how often the id has come before."""
        for index, rule in enumerate(self.rules):
            match = rule.match
            if (
                (match.app is None or match.app == app)
                and (match.event is None or match.event == event)
                and (match.id is None or match.id == event_id)
                and (match.id_prefix is None or (event_id is not None and event_id.startswith(match.id_prefix)))
                and (match.first_tries is None or tries < match.first_tries)
                and (match.limit is None or self.fired[index] < match.limit)
                and (match.share is None or self._luck(index, event_id, tries) < match.share)
            ):
                self.fired[index] += 1
                return rule.do
        return None

    def latency_s(self, do: Do | None) -> float:
        """Return how long this answer takes: the rule's own latency, else everybody's."""
        latency = self._latency if do is None or do.latency_ms is None else do.latency_ms
        return latency.draw_s(self._random)

    def _luck(self, index: int, event_id: str | None, tries: int) -> float:
        if event_id is None:
            return self._random.random()
        drawn = blake2b(f"{self._seed}/{index}/{tries}/{event_id}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn) / 2**64
