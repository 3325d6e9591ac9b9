"""C3: nothing is sent twice without a reason, and nothing that could send it twice later is left undone."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise

from tests.chaos.commit_log import Commit
from tests.chaos.facts import AWAY, SLACK_MS, Facts, Verdict, copies, covered, unwritten_ms
from tests.chaos.history import Fault, History, Place, Post, Sent, Spell

STOPPED = {"SIGSTOP", "event loop blocked"}
"""Faults in which a member cannot hear at once that a partition is gone."""
FORGOTTEN = "kafka.brokers_forgotten"
"""What a member says that ends because its client lost its brokers: a defect of librdkafka, when brokers were away."""
DRAIN_MS = 8_000
JOIN_MS = 6_000 + DRAIN_MS
"""How long a request to join may wait for others: for one that is gone, its session; for one that drains, that."""
MEMBER = "member-"


def duplicates_explained(history: History, facts: Facts, verdict: Verdict) -> None:
    """C3: each acceptance beyond the first has a reason that could not be helped."""
    crashes = sorted(fault for fault in history.faults if fault.excuse == "crash")
    by_crash: Counter[Fault] = Counter()
    times_in_log = Counter(facts.ids.values())  # the embedded cluster knows no idempotence: a producer's retry is kept
    for event_id, posts in facts.accepted.items():
        copies_left = times_in_log[event_id] - 1
        for first, second in pairwise(posts):
            place = facts.places.get(event_id)
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
            for crash in reversed(crashes):  # whatever else explains it: what a crash costs is not made to look small
                since_ms = first.at_ms - history.request_timeout_ms - SLACK_MS
                if first.at_ms <= crash.at_ms <= second.at_ms and (
                    place is None or facts.may_have_had(crash.who, place, since_ms, crash.at_ms)
                ):
                    by_crash[crash] += 1
                    break
    verdict.per_crash = [by_crash[crash] for crash in crashes]


def _reason(history: History, facts: Facts, first: Post, second: Post, place: Place | None) -> str | None:
    near_ms = unwritten_ms(history)
    if place is not None and _was_covered(facts, place, first, second):
        # only somebody who didn't know of that commit sends it again: another one who held itself for the owner
        if facts.had_two_owners(place, first.at_ms - near_ms, second.at_ms):
            return "two members held themselves for its owner"
        return None
    between = [
        fault
        for fault in history.faults
        if fault.until_ms >= first.at_ms - near_ms
        and fault.at_ms <= second.at_ms
        and (
            place is None
            or not fault.who.startswith(MEMBER)
            or facts.may_have_had(fault.who, place, first.at_ms - near_ms, second.at_ms)
        )
    ]
    if first.status not in {"200", "202"} or any(
        fault.at_ms - history.request_timeout_ms <= first.at_ms <= fault.until_ms + SLACK_MS
        for fault in between
        if fault.excuse == "answer"
    ):
        return "answer lost or not understood"
    if facts.came_too_late(first):
        return "no answer in time"
    if facts.was_known_to_sender(first, second):
        return None
    for fault in between:  # a member that wakes up sends what it had in hand, until it hears that it is nobody
        if fault.excuse in AWAY and fault.at_ms - near_ms <= first.at_ms <= fault.until_ms + near_ms:
            return "assignment lost or commit impossible"
    if place is not None and (why := _copied(history, facts, place, second)):
        return why
    uncommitted_ms = history.commit_interval_ms * 2 + SLACK_MS
    if any(fault.excuse == "crash" and _hidden_ms(between, first, fault) <= uncommitted_ms for fault in between):
        return "crash"
    for said in history.said:
        if said.event != FORGOTTEN and first.at_ms - near_ms <= said.at_ms <= second.at_ms:
            return "commit refused" if said.event == "offset.commit_failed" else "drain deadline passed"
    if any(one.code in {4, 6} and first.at_ms <= one.at_ms + one.seconds * 1000 + SLACK_MS and one.at_ms <= second.at_ms
           for one in history.exits):  # fmt: skip
        return "forced end"
    return None


def _copied(history: History, facts: Facts, place: Place, second: Post) -> str | None:
    """Say why a record was sent from a topic of ours and from where it came, or from there twice."""
    for move in facts.moves[place]:
        for fault in copies(history, move):
            if fault.at_ms <= second.at_ms:
                if fault.excuse == "crash":
                    return "crash between our topic's acknowledgement and the commit"
                return "copied to our topic, and the commit was impossible"
    return None


def _hidden_ms(between: list[Fault], first: Post, crash: Fault) -> int:
    """Return how long before *crash* the event was answered, without the time in which nothing could be committed."""
    since_ms = first.at_ms if first.answered_ms is None else first.answered_ms
    away = sum(
        max(0, min(fault.until_ms + SLACK_MS, crash.at_ms) - max(fault.at_ms, since_ms))
        for fault in between
        if fault.excuse in AWAY
    )
    return crash.at_ms - since_ms - away


def _was_covered(facts: Facts, place: Place, first: Post, second: Post) -> bool:
    """Say whether commits told that the event was settled, and some time later it was sent again all the same."""
    if facts.moves[place]:
        return False  # a copy of it was on its way over our own topics: judged by C2 there
    told = [
        place[2] < commit.offset or place[2] in covered(commit)
        for commit in facts.commits[place[:2]]
        if first.at_ms <= commit.at_ms <= second.at_ms - SLACK_MS
    ]
    return bool(told) and told[-1]  # the last one counts: one that waited for brokers may have gone back (C10)


def sent_by_owners(history: History, facts: Facts, verdict: Verdict) -> None:
    """C3, at its root: nobody sends what it doesn't own."""
    heard_ms = {spell: _heard_ms(history, spell) for spells in facts.spells.values() for spell in spells}
    for one in history.sent:
        if not any(
            spell.who == one.who and spell.at_ms <= one.at_ms <= heard_ms[spell] + SLACK_MS
            for spell in facts.spells[one.place[:2]]
        ):
            verdict.violations.append(f"C3 sent by {one.who}, which doesn't own it: {one.place}")


def _heard_ms(history: History, spell: Spell) -> int:
    """Return until when the owner of *spell* may not have heard of its end: it can't while it is stopped."""
    stops = (fault for fault in history.faults if fault.kind in STOPPED and fault.who == spell.who)
    return max([spell.until_ms, *(fault.until_ms for fault in stops if fault.at_ms <= spell.until_ms + SLACK_MS)])


def told_in_time(history: History, facts: Facts, verdict: Verdict) -> None:
    """C3, before it can happen: what was answered is soon below a commit or in its map, for the next owner to know."""
    if not history.has_commit_log:
        return
    told = {at: _Told(commits) for at, commits in facts.commits.items()}
    for event_id, posts in facts.accepted.items():
        for post in posts:
            asked = facts.asked_by(post)
            if asked is None or post.answered_ms is None or post.status != "200":
                continue
            due_ms = post.answered_ms + history.commit_interval_ms * 2 + SLACK_MS
            at, offset = asked.place[:2], asked.place[2]
            is_told = at in told and told[at].tells(offset, post.answered_ms, due_ms)
            if not is_told and not _is_hindered(history, facts, asked, post, due_ms):
                verdict.violations.append(f"C3 not told in time: {event_id} at {asked.place} by {asked.who}")


class _Told:
    """The commits of one partition, in their order."""

    def __init__(self, commits: Sequence[Commit]) -> None:
        self._commits = commits
        self._times = [commit.at_ms for commit in commits]
        self._tops = [*accumulate((commit.offset for commit in commits), max)]

    def tells(self, offset: int, since_ms: int, until_ms: int) -> bool:
        """Say whether a commit until *until_ms* is above *offset*, or one between has it in its map."""
        above = bisect_right(self._tops, offset)
        if above < len(self._times) and self._times[above] <= until_ms:
            return True
        between = range(bisect_left(self._times, since_ms), bisect_right(self._times, until_ms))
        return any(offset in covered(self._commits[index]) for index in between)


def _is_hindered(history: History, facts: Facts, asked: Sent, post: Post, due_ms: int) -> bool:
    """Say whether the member that asked had a reason not to tell until *due_ms*."""
    spell, late_ms = facts.spell_of(asked), due_ms - (post.answered_ms or 0)
    if spell is None or spell.until_ms < due_ms:
        return True
    if any(
        fault.until_ms + SLACK_MS >= post.at_ms and fault.at_ms <= due_ms
        for fault in history.faults
        if fault.excuse in {"answer", *AWAY}
    ) or any(said.who == asked.who and post.at_ms <= said.at_ms <= due_ms for said in history.said):
        return True
    if facts.was_late(post.answered_ms or post.at_ms, due_ms):
        return True
    # while it drains what it gives up, or all at its end, nothing of it is committed
    if any(one.who == asked.who and one.at_ms <= due_ms for one in history.exits) or any(
        one.who == asked.who and not one.is_owned and one.at_ms - DRAIN_MS <= due_ms <= one.at_ms + late_ms
        for one in history.owned
    ):
        return True
    return history.is_classic and any(abs(due_ms - at_ms) <= JOIN_MS for at_ms in facts.changes)
