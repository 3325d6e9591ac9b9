"""The history by what is asked of it, and what every judge needs."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

from consumer.core.offset_map import UnreadableMapError, decode
from tests.chaos.commit_log import Commit
from tests.chaos.history import Fault, History, Moved, Place, Post, Sent, Spell, Written

SLACK_MS = 1500
"""What machines that are busy add to an interval: a commit that is due waits for its thread, its broker, its disk."""
AWAY = {"away", "fatal"}
"""Excuses of faults that may cost a member its partitions, or keep its commits from the broker."""
TOLD_MS = 50
"""How long an answer may be under way on loopback, when nothing is wrong with the wire."""


@dataclass
class Verdict:
    """What is wrong, and how often each explanation of a duplicate was needed."""

    violations: list[str] = field(default_factory=list)
    explained: Counter[str] = field(default_factory=Counter)
    per_crash: list[int] = field(default_factory=list)
    lost: int = 0
    undelivered: int = 0
    """Neither delivered nor given up when the run was ended without having come to rest (C5)."""


class Facts:
    """The history by what is asked of it."""

    def __init__(self, history: History) -> None:
        self.ids = {one.place: one.id for one in history.produced}
        self.places = {event_id: place for place, event_id in self.ids.items()}
        self.accepted: dict[str, list[Post]] = defaultdict(list)
        for post in sorted(history.posts):
            if post.accepted:
                self.accepted[post.id].append(post)
        self.moves: dict[Place, list[Moved]] = defaultdict(list)
        self.origins: dict[Place, Place] = {place: place for place in self.ids}
        for move in sorted(history.moved):
            self.moves[move.origin].append(move)
            self.origins[move.place] = move.origin
        self.commits: dict[tuple[str, int], list[Commit]] = defaultdict(list)
        for commit in history.commits:
            self.commits[commit.topic, commit.partition].append(commit)
        self.spells = history.spells()
        self.changes = [one.at_ms for one in (*history.owned, *history.exits)]
        self.changes += [fault.at_ms for fault in history.faults if fault.excuse == "crash"]
        """When the group may have begun or ended a rebalance."""
        self._timeout_ms = history.request_timeout_ms
        self._late = history.late
        self._posts: dict[str, list[Post]] = defaultdict(list)
        for post in sorted(history.posts):
            self._posts[post.id].append(post)
        self._written: dict[Place, list[Written]] = defaultdict(list)
        for written in sorted(history.written, key=lambda one: one.at_ms):
            self._written[self.origins.get(written.place, written.place)].append(written)
        self.sent: dict[Place, list[Sent]] = defaultdict(list)
        for one in sorted(history.sent):
            self.sent[self.origins.get(one.place, one.place)].append(one)

    def is_accounted(self, place: Place, at_ms: int) -> bool:
        """Say whether the record at *place* needed no more work at *at_ms*: accepted, or gone on to a topic of ours."""
        origin = self.origins.get(place)
        if origin is None:
            return True  # no record of ours: a gap, a marker, a tombstone
        posts = self.accepted.get(self.ids.get(origin, ""), ())
        if any(post.answered_ms is not None and post.answered_ms <= at_ms for post in posts):
            return True
        return any(move.place != place and move.at_ms <= at_ms for move in self._moves_after(origin, place))

    def may_have_had(self, who: str, place: Place, since_ms: int, until_ms: int) -> bool:
        """Say whether the member *who* owned the record at *place*, or a copy of it, at any time between."""
        partitions = {place[:2], *(move.place[:2] for move in self.moves[place])}
        return any(
            spell.who == who and spell.at_ms <= until_ms and spell.until_ms >= since_ms
            for at in partitions
            for spell in self.spells[at]
        )

    def had_two_owners(self, place: Place, since_ms: int, until_ms: int) -> bool:
        """Say whether two members held themselves for the owner of the partition at the same time between."""
        spells = [one for one in self.spells[place[:2]] if one.at_ms <= until_ms and one.until_ms >= since_ms]
        return any(
            one.who != other.who and max(one.at_ms, other.at_ms) < min(one.until_ms, other.until_ms)
            for one, other in combinations(spells, 2)
        )

    def spell_of(self, sent: Sent) -> Spell | None:
        """Return the spell in which *sent* was, if its member owned the partition then."""
        spells = self.spells[sent.place[:2]]
        return next((one for one in spells if one.who == sent.who and one.at_ms <= sent.at_ms <= one.until_ms), None)

    def asked_by(self, post: Post) -> Sent | None:
        """Return the try that *post* was, as far as it was written down."""
        origin = self.places.get(post.id)
        sent = () if origin is None else self.sent.get(origin, ())
        return next((one for one in reversed(sent) if one.at_ms <= post.at_ms), None)

    def was_known_to_sender(self, first: Post, second: Post) -> bool:
        """Say whether who was told in *first* that all is well sent it again, as the same owner of the same copy."""
        asked, again = self.asked_by(first), self.asked_by(second)
        if asked is None or again is None or (asked.who, asked.place) != (again.who, again.place):
            return False
        is_after = first.answered_ms is not None and first.answered_ms + TOLD_MS < again.at_ms
        return is_after and self.spell_of(asked) is not None and self.spell_of(asked) == self.spell_of(again)

    def was_late(self, since_ms: int, until_ms: int) -> bool:
        """Say whether the machine kept our proxies from serving between."""
        return any(one.at_ms <= until_ms and one.until_ms >= since_ms for one in self._late)

    def came_too_late(self, first: Post) -> bool:
        """Say whether who sent *first* gave it up after half of its time on the wire, and the answer wasn't there yet.

        Requests and tries are told apart by their order: the wire loses none but by faults, which are reasons anyhow.
        """
        origin = self.places.get(first.id)
        tries = [] if origin is None else [one for one in self._written.get(origin, ()) if one.at_ms <= first.at_ms]
        number = sum(post.at_ms <= first.at_ms for post in self._posts[first.id])
        if not tries:
            return False
        asked = tries[min(number, len(tries)) - 1]
        if asked.given_up_ms is None or asked.given_up_ms - asked.at_ms < self._timeout_ms / 2 - TOLD_MS:
            return False
        there_ms = first.at_ms if first.answered_ms is None else first.answered_ms
        return there_ms + TOLD_MS >= asked.given_up_ms or self.was_late(asked.at_ms, asked.given_up_ms)

    def _moves_after(self, origin: Place, place: Place) -> Iterator[Moved]:
        since = next((move.at_ms for move in self.moves[origin] if move.place == place), 0)
        return (move for move in self.moves[origin] if move.at_ms >= since)


def covered(commit: Commit) -> list[int]:
    try:
        runs = decode(commit.metadata, commit.offset, 2**62).runs
    except UnreadableMapError:
        return []
    return [offset for run in runs for offset in range(run.first, run.end)]


def copies(history: History, move: Moved) -> list[Fault]:
    """Return the faults for which a record may be on our topic, and be read again from where it came."""
    near_ms = unwritten_ms(history)
    return [
        fault
        for fault in history.faults
        if fault.excuse in {"crash", *AWAY}
        and fault.until_ms >= move.at_ms - near_ms
        and fault.at_ms <= move.at_ms + near_ms
    ]


def unwritten_ms(history: History) -> int:
    """Return for how long nothing was written down of an event, even by a process that does all as it should."""
    return history.request_timeout_ms + history.commit_interval_ms * 2 + SLACK_MS
