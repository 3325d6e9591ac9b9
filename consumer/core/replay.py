"""A bounded replay: which events are sent again, and how a restart knows where each partition ends.

The plan is made once and stands in the commits of the replay's own group: each partition's commit carries a mark, the
end that was planned and a digest of everything else that was asked for. So plan and progress live and expire together,
in a place that every process of the replay reads anyway, and a commit can never be continued under another plan.
"""

import hashlib
import re
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from consumer.core.mapping import MappingSpec
from consumer.core.offset_map import map_chars

DIGEST_CHARS = 16
_MARK = re.compile(rf"R([0-9a-f]{{{DIGEST_CHARS}}})\.(\d{{1,19}})\.([0-9a-f]{{8}})", re.ASCII)
NOT_SELECTED = "not_selected"
"""Why an event is left out that `--app`, `--event` or `--where` does not choose; a metric label."""


class Mark(NamedTuple):
    """What stands beside each commit of a replay. `end` is the offset at which its partition is done."""

    digest: str
    end: int


class Unplanned(NamedTuple):
    """There is no mark in a commit's metadata, or none that can be believed."""


class Span(NamedTuple):
    """Record timestamps of a replay: from `from_ms` to before `to_ms`, epoch milliseconds."""

    from_ms: int
    to_ms: int

    def has(self, timestamp_ms: int) -> bool:
        return self.from_ms <= timestamp_ms < self.to_ms

    def __str__(self) -> str:
        moments = (datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds") for ms in self)
        return " to ".join(moment.replace("+00:00", "Z") for moment in moments)


class Selection(NamedTuple):
    """What of the span is sent. Empty means all; `where` is a condition of the mapping language."""

    apps: tuple[str, ...] = ()
    """App ids, or `app id/platform`."""
    events: tuple[str, ...] = ()
    where: Mapping[str, Any] | None = None

    @property
    def condition(self) -> dict[str, Any] | None:
        """All of it as one condition of the mapping language; None if everything is selected."""
        wanted: list[Mapping[str, Any]] = []
        if self.apps:
            wanted.append({"any": [_of_app(app) for app in self.apps]})
        if self.events:
            wanted.append({"part": "name", "in": [*self.events]})
        if self.where is not None:
            wanted.append(self.where)
        return {"all": wanted} if wanted else None


def _of_app(app: str) -> dict[str, Any]:
    name, slash, platform = app.rpartition("/")
    if not slash:
        return {"part": "app", "equals": app}
    # platforms are compared in lower case, as those of the settings are
    any_case = f"(?i:{re.escape(platform)})"
    return {"all": [{"part": "app", "equals": name}, {"part": "platform", "matches": f"^{any_case}$"}]}


def narrowed(spec: MappingSpec, selection: Selection) -> MappingSpec:
    """Return *spec* with a filter more on each of its types: for what isn't selected."""
    condition = selection.condition
    if condition is None:
        return spec
    left_out = {"when": {"not": condition}, "reason": NOT_SELECTED}
    types = {}
    for name, entry in spec.types.items():
        filters = entry.get("filter", [])
        own = filters if isinstance(filters, list) else [filters]
        types[name] = {**entry, "filter": [*own, left_out]}
    return MappingSpec(types, spec.lookups)


def digest_of(facts: Mapping[str, Any]) -> str:
    """Return what a plan is recognised by: the same for the same *facts*, whatever their order."""
    text = orjson.dumps(facts, default=_as_list, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:DIGEST_CHARS]


def _as_list(value: object) -> object:
    """Write what JSON doesn't know: named tuples, dates of a mapping file."""
    return [*value] if isinstance(value, tuple) else str(value)


def write_mark(mark: Mark) -> str:
    """Return *mark* as text, to stand behind the map of a commit; at most 46 characters."""
    said = f"{mark.digest}.{mark.end}"
    return f"R{said}.{zlib.crc32(said.encode()):08x}"


def split(metadata: str) -> tuple[str, Mark | Unplanned]:
    """Take a commit's metadata apart: the map's text, and the mark behind it. Anything may stand there."""
    chars = map_chars(metadata)
    found = _MARK.match(metadata, chars)
    if found is None:
        return metadata[:chars], Unplanned()
    digest, end, checksum = found.groups()
    if f"{zlib.crc32(f'{digest}.{end}'.encode()):08x}" != checksum:
        return metadata[:chars], Unplanned()
    return metadata[:chars], Mark(digest, int(end))
