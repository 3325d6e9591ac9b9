"""What happened in one run, as plain facts. The oracle judges them; nothing here knows what is right."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

from tests.chaos.commit_log import Commit

Place: TypeAlias = tuple[str, int, int]
"""Topic, partition, offset."""


class Produced(NamedTuple):
    """A record of the source topic. `id` is empty where its bytes are no event."""

    place: Place
    id: str


class Post(NamedTuple):
    """A request as the sandbox saw it; `status` is what it answered, or how it didn't."""

    at_ms: int
    id: str
    status: str
    accepted: bool
    answered_ms: int | None
    """Nobody can have had the answer before; `None` if there was none."""

    @classmethod
    def of(cls, line: dict[str, Any]) -> Self:
        """Read a line of the sandbox's log."""
        return cls(line["time_ms"], line["id"] or "", str(line["status"]), line["accepted"], line["answered_ms"])


class Sent(NamedTuple):
    """A try, as the member that made it wrote it down. `place` is where it had the record from."""

    at_ms: int
    who: str
    place: Place


class Written(NamedTuple):
    """A request that was given to a connection; `given_up_ms` is when its time was over and no answer was there."""

    at_ms: int
    who: str
    place: Place
    given_up_ms: int | None


class Late(NamedTuple):
    """A time in which a proxy of ours could not serve, though nobody had told it so: the machine had too much to do."""

    at_ms: int
    until_ms: int


class Moved(NamedTuple):
    """A record on a topic of ours, and the record of the source topic that it stands for."""

    at_ms: int
    place: Place
    origin: Place
    attempts: int


class Fault(NamedTuple):
    """What was done to the system from `at_ms` to `until_ms`; `who` is a member or a server.

    `excuse` says which duplicates it explains: see `faults.Excuse`.
    """

    at_ms: int
    until_ms: int
    kind: str
    who: str
    excuse: str = ""


class Exit(NamedTuple):
    """A member that was told to end, and how it ended. `code` is negative for a signal."""

    at_ms: int
    who: str
    code: int
    seconds: float
    deadline_s: float


class Owned(NamedTuple):
    """From `at_ms` on a member owned a partition, or no longer did."""

    at_ms: int
    who: str
    topic: str
    partition: int
    is_owned: bool


class Said(NamedTuple):
    """What a member logged that matters: a drain that took too long, a commit that was refused."""

    at_ms: int
    who: str
    event: str


class Spell(NamedTuple):
    """A time in which a member held itself for the owner of a partition."""

    who: str
    at_ms: int
    until_ms: int


FOR_EVER_MS = 1 << 62


@dataclass
class History:
    """All facts of one run."""

    source: str
    dead_letter: str
    request_timeout_ms: int
    commit_interval_ms: int
    produced: list[Produced] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    owned: list[Owned] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    """Events of transactions that were aborted: nobody may ever send them."""
    peak_rss_mib: dict[str, float] = field(default_factory=dict)
    """The most memory that each member held, as far as it lived to be asked."""
    is_classic: bool = False
    """The group's protocol: under the classic one no commit passes a request to join that waits for other members."""
    has_commit_log: bool = True
    """All commits are here."""
    is_settled: bool = True
    """It came to rest in time."""

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "History":
        """Read what `write` wrote."""
        facts = json.loads(path.read_text())
        rows = {"produced": Produced, "posts": Post, "moved": Moved, "commits": Commit, "faults": Fault, "exits": Exit,
                "owned": Owned, "sent": Sent, "written": Written, "said": Said, "late": Late}  # fmt: skip
        for name, row in rows.items():
            facts[name] = [row(*map(_hashable, each)) for each in facts[name]]
        return cls(**facts)

    def spells(self) -> dict[tuple[str, int], list[Spell]]:
        """Return who held itself for the owner of each topic and partition, and when: until it left, ended or died."""
        ends = {fault.who: fault.at_ms for fault in self.faults if fault.excuse == "crash"}
        ends |= {one.who: one.at_ms + round(one.seconds * 1000) for one in self.exits}
        found: dict[tuple[str, int], list[Spell]] = defaultdict(list)
        begun: dict[tuple[str, str, int], int] = {}
        for one in sorted(self.owned):
            key = (one.who, one.topic, one.partition)
            if one.is_owned:
                begun[key] = one.at_ms
            elif key in begun:
                found[one.topic, one.partition].append(Spell(one.who, begun.pop(key), one.at_ms))
        for (who, topic, partition), at_ms in begun.items():
            found[topic, partition].append(Spell(who, at_ms, ends.get(who, FOR_EVER_MS)))
        return found

    def timeline(self) -> Iterable[str]:
        """Say what happened, in order, one line each; commits and posts in runs, or nobody could read it."""
        lines: list[tuple[int, str]] = [(one.at_ms, f"FAULT  {one.kind} {one.who}, for {one.until_ms - one.at_ms} ms")
                                        for one in self.faults]  # fmt: skip
        lines += [(one.at_ms, f"EXIT   {one.who} {one.code} after {one.seconds:.1f} s") for one in self.exits]
        lines += [(one.at_ms, f"COMMIT {one.topic}[{one.partition}] {one.offset} {one.metadata[:24]}")
                  for one in self.commits]  # fmt: skip
        lines += [(one.at_ms, f"{'OWNS' if one.is_owned else 'LEAVES':6} {one.who} {one.topic}[{one.partition}]")
                  for one in self.owned]  # fmt: skip
        lines += [(one.at_ms, f"SAYS   {one.who} {one.event}") for one in self.said]
        times: dict[str, int] = {}
        for post in self.posts:
            times[post.id] = times.get(post.id, 0) + post.accepted
            if not post.accepted or times[post.id] > 1:
                again = " AGAIN" if post.accepted else ""
                lines.append((post.at_ms, f"POST   {post.id} {post.status}{again}"))
        lines += [(one.at_ms, f"MOVED  {one.origin} -> {one.place} attempts {one.attempts}") for one in self.moved]
        first = min((at_ms for at_ms, _ in lines), default=0)
        return (f"{(at_ms - first) / 1000:8.3f}  {text}" for at_ms, text in sorted(lines))


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
