"""Judges a history: was anything lost, was a commit unsafe, is every duplicate explained? Pure."""

import signal
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from consumer.core.offset_map import UnreadableMapError, decode
from tests.chaos.commit_log import Commit
from tests.chaos.history import Fault, History, Moved, Place, Post

SLACK_MS = 1500
"""What machines that are busy add to an interval: a commit that is due waits for its thread, its broker, its disk."""
AWAY = {"away", "fatal"}
"""Excuses of faults that may cost a member its partitions, or keep its commits from the broker."""
MAX_ATTEMPTS = 4 * 3
"""Tries in a process, on the source topic and two tiers, as `Setup` sets them."""
MAX_RSS_MIB = 300


@dataclass
class Verdict:
    """What is wrong, and how often each explanation of a duplicate was needed."""

    violations: list[str] = field(default_factory=list)
    explained: Counter[str] = field(default_factory=Counter)
    per_crash: list[int] = field(default_factory=list)
    lost: int = 0
    undelivered: int = 0
    """Neither delivered nor given up when the run was ended without having come to rest (C5)."""


def judge(history: History) -> Verdict:
    """Check C1 to C5, C7, C9 and C10 over the whole *history*; C6 is not promised, C8 has a suite of its own."""
    verdict = Verdict()
    facts = _Facts(history)
    _nothing_lost(history, facts, verdict)
    _commits_safe(history, facts, verdict)
    _duplicates_explained(history, facts, verdict)
    _came_to_rest(history, verdict)
    _ended_in_time(history, verdict)
    _stayed_small(history, verdict)
    return verdict


class _Facts:
    """The history by what is asked of it."""

    def __init__(self, history: History) -> None:
        self.ids = {one.place: one.id for one in history.produced}
        self.accepted: dict[str, list[Post]] = defaultdict(list)
        for post in sorted(history.posts):
            if post.accepted:
                self.accepted[post.id].append(post)
        self.moves: dict[Place, list[Moved]] = defaultdict(list)
        self.origins: dict[Place, Place] = {place: place for place in self.ids}
        for move in sorted(history.moved):
            self.moves[move.origin].append(move)
            self.origins[move.place] = move.origin

    def is_accounted(self, place: Place, at_ms: int) -> bool:
        """Say whether the record at *place* needed no more work at *at_ms*: accepted, or gone on to a topic of ours."""
        origin = self.origins.get(place)
        if origin is None:
            return True  # no record of ours: a gap, a marker, a tombstone
        posts = self.accepted.get(self.ids.get(origin, ""), ())
        if posts and posts[0].at_ms <= at_ms:
            return True
        return any(move.place != place and move.at_ms <= at_ms for move in self._moves_after(origin, place))

    def _moves_after(self, origin: Place, place: Place) -> Iterator[Moved]:
        since = next((move.at_ms for move in self.moves[origin] if move.place == place), 0)
        return (move for move in self.moves[origin] if move.at_ms >= since)


def _nothing_lost(history: History, facts: _Facts, verdict: Verdict) -> None:
    """C1, C4: every record was accepted, or is a dead letter that says where it came from."""
    if not history.produced:
        verdict.violations.append("C1 not judged: nothing was produced")
    for place, event_id in facts.ids.items():
        is_dead = any(move.place[0] == history.dead_letter for move in facts.moves[place])
        if not is_dead and event_id not in facts.accepted:
            if history.is_settled:
                verdict.lost += 1
                verdict.violations.append(f"C1 lost: {event_id or 'no event'} at {place}")
            else:  # a commit above it would have been unsafe (C2), so it is there to be read again
                verdict.undelivered += 1
        for move in facts.moves[place]:
            if move.attempts > MAX_ATTEMPTS:
                verdict.violations.append(f"C4 tried too often: {event_id} at {place}, {move.attempts} times")
    for event_id in facts.accepted.keys() & set(history.aborted):
        verdict.violations.append(f"C1 sent, but its transaction was aborted: {event_id}")


def _commits_safe(history: History, facts: _Facts, verdict: Verdict) -> None:
    """C2, C10: at each commit all below it, and all that its map covers, was accounted for; and it never went back."""
    before: dict[tuple[str, int], int] = {}
    for index, commit in enumerate(history.commits):
        at = (commit.topic, commit.partition)
        last = before.get(at, 0)
        if commit.offset < last and not _was_made_good(history, index, last):
            verdict.violations.append(f"C10 went back: {at} from {last} to {commit.offset}")
        for offset in [*range(last, commit.offset), *_covered(commit)]:
            if not facts.is_accounted((*at, offset), commit.at_ms + 1):
                verdict.violations.append(f"C2 unsafe: {at} committed {commit.offset}, but {offset} was not settled")
        before[at] = max(last, commit.offset)


def _was_made_good(history: History, index: int, last: int) -> bool:
    """Say whether a commit that went back had waited for brokers that were away, and another one was made at once.

    Whoever lost the partition or was killed meanwhile could make none; then the next owner begins with the older one.
    """
    commit = history.commits[index]
    at = (commit.topic, commit.partition)
    in_time_ms = commit.at_ms + history.commit_interval_ms * 2 + SLACK_MS
    return any(fault.excuse in AWAY and fault.at_ms <= commit.at_ms for fault in history.faults) and (
        not _owners(history, at, commit.at_ms - SLACK_MS, in_time_ms)
        or any(
            (later.topic, later.partition) == at and later.offset >= last and later.at_ms <= in_time_ms
            for later in history.commits[index + 1 :]
        )
    )


def _owners(history: History, at: tuple[str, int], since_ms: int, until_ms: int) -> set[str]:
    """Return who owned the partition *at* all the time."""
    found: set[str] = set()
    for one in sorted(history.owned):
        if (one.topic, one.partition) != at:
            continue
        if one.is_owned and one.at_ms <= since_ms:
            found.add(one.who)
        elif not one.is_owned and one.at_ms <= until_ms:
            found.discard(one.who)
    ended = {one.who for one in history.exits if one.at_ms <= until_ms}
    return (
        found - ended - {fault.who for fault in history.faults if fault.excuse == "crash" and fault.at_ms <= until_ms}
    )


def _covered(commit: Commit) -> list[int]:
    try:
        runs = decode(commit.metadata, commit.offset, 2**62).runs
    except UnreadableMapError:
        return []
    return [offset for run in runs for offset in range(run.first, run.end)]


def _duplicates_explained(history: History, facts: _Facts, verdict: Verdict) -> None:
    """C3: each acceptance beyond the first has a reason that could not be helped."""
    crashes = sorted(fault.at_ms for fault in history.faults if fault.excuse == "crash")
    by_crash: Counter[int] = Counter()
    places = {event_id: place for place, event_id in facts.ids.items()}
    times_in_log = Counter(facts.ids.values())  # the embedded cluster knows no idempotence: a producer's retry is kept
    for event_id, posts in facts.accepted.items():
        copies_left = times_in_log[event_id] - 1
        for first, second in pairwise(posts):
            place = places.get(event_id)
            reason = _reason(history, facts, first, second, place)
            if reason is None and copies_left > 0:  # each copy explains one, and no more
                copies_left -= 1
                reason = "produced twice"
            if reason is None:
                verdict.violations.append(
                    f"C3 sent twice: {event_id} at {place}, {second.at_ms - first.at_ms} ms apart"
                )
                continue
            verdict.explained[reason] += 1
            if reason == "crash":
                by_crash[crashes[bisect_right(crashes, second.at_ms) - 1]] += 1
    verdict.per_crash = [by_crash[at_ms] for at_ms in crashes]


def _reason(history: History, facts: _Facts, first: Post, second: Post, place: Place | None) -> str | None:
    # nothing was written down of it in this time, even by a process that does all as it should
    unwritten_ms = history.request_timeout_ms + history.commit_interval_ms * 2 + SLACK_MS
    between = [
        fault
        for fault in history.faults
        if fault.until_ms >= first.at_ms - unwritten_ms and fault.at_ms <= second.at_ms
    ]
    if first.status != "200" or any(
        fault.at_ms - history.request_timeout_ms <= first.at_ms <= fault.until_ms + SLACK_MS
        for fault in between
        if fault.excuse == "answer"
    ):
        return "answer lost or not understood"
    for fault in between:  # a member that wakes up sends what it had in hand, until it hears that it is nobody
        if fault.excuse in AWAY and fault.at_ms - unwritten_ms <= first.at_ms <= fault.until_ms + unwritten_ms:
            return "assignment lost or commit impossible"
    if place is not None and (why := _copied(history, facts, place, second, unwritten_ms)):
        return why
    if place is not None and _was_covered(history, facts, place, first, second):
        return None
    if any(fault.excuse == "crash" and _hidden_ms(between, first, fault) <= unwritten_ms for fault in between):
        return "crash"
    for said in history.said:
        if first.at_ms - unwritten_ms <= said.at_ms <= second.at_ms:
            return "commit refused" if said.event == "offset.commit_failed" else "drain deadline passed"
    if any(one.code in {4, 6} and first.at_ms <= one.at_ms + one.seconds * 1000 + SLACK_MS and one.at_ms <= second.at_ms
           for one in history.exits):  # fmt: skip
        return "forced end"
    return None


def _copied(history: History, facts: _Facts, place: Place, second: Post, unwritten_ms: int) -> str | None:
    """Say why a record was sent from a topic of ours and from where it came, or from there twice."""
    for move in facts.moves[place]:
        for fault in history.faults:
            is_near = fault.until_ms >= move.at_ms - unwritten_ms and fault.at_ms <= move.at_ms + unwritten_ms
            if is_near and fault.at_ms <= second.at_ms:
                if fault.excuse == "crash":
                    return "crash between our topic's acknowledgement and the commit"
                if fault.excuse in AWAY:
                    return "copied to our topic, and the commit was impossible"
    return None


def _hidden_ms(between: list[Fault], first: Post, crash: Fault) -> int:
    """Return how long before *crash* the event was accepted, without the time in which nothing could be committed."""
    away = sum(
        max(0, min(fault.until_ms + SLACK_MS, crash.at_ms) - max(fault.at_ms, first.at_ms))
        for fault in between
        if fault.excuse in AWAY
    )
    return crash.at_ms - first.at_ms - away


def _was_covered(history: History, facts: _Facts, place: Place, first: Post, second: Post) -> bool:
    """Say whether a commit told that the event was settled, and some time later it was sent again all the same."""
    if facts.moves[place]:
        return False  # a copy of it was on its way over our own topics: judged by C2 there
    return any(
        (commit.topic, commit.partition) == place[:2]
        and first.at_ms <= commit.at_ms <= second.at_ms - SLACK_MS
        and (place[2] < commit.offset or place[2] in _covered(commit))
        for commit in history.commits
    )


def _came_to_rest(history: History, verdict: Verdict) -> None:
    """C5: after all was healed, everything was read and committed."""
    if not history.is_settled:
        verdict.violations.append(
            f"C5 no progress: {verdict.undelivered} events were waiting two minutes after all faults were healed"
        )


def _ended_in_time(history: History, verdict: Verdict) -> None:
    """C7: whoever was told to end did, by its deadline; nobody ended for no reason."""
    fatal = [fault for fault in history.faults if fault.excuse == "fatal"]
    worked = {one.who for one in history.owned}
    for one in history.exits:
        is_early = one.code == -signal.SIGTERM and one.who not in worked  # before it could listen
        was_ended = one.code == 4 and any(fault.at_ms - SLACK_MS <= one.at_ms for fault in fatal)
        if one.seconds > one.deadline_s or not (one.code in {0, 6} or is_early or was_ended):
            verdict.violations.append(f"C7 {one.who} ended with {one.code} after {one.seconds:.1f} s")


def _stayed_small(history: History, verdict: Verdict) -> None:
    """C9: memory is bounded, whatever fails."""
    for who, most in history.peak_rss_mib.items():
        if most > MAX_RSS_MIB:
            verdict.violations.append(f"C9 {who} held {most:.0f} MiB")
