"""Judges a history: was anything lost, was a commit unsafe, is every duplicate explained? Pure."""

import signal

from tests.chaos.duplicates import FORGOTTEN, duplicates_explained, sent_by_owners, told_in_time
from tests.chaos.facts import AWAY, SLACK_MS, Facts, Verdict, copies, covered
from tests.chaos.faults import TWICE
from tests.chaos.history import History, Moved

__all__ = ["Verdict", "judge"]

MAX_ATTEMPTS = 4 * 3
"""Tries in a process, on the source topic and two tiers, as `Setup` sets them."""
MAX_RSS_MIB = 300


def judge(history: History) -> Verdict:
    """Check C1 to C5, C7, C9 and C10 over the whole *history*; C6 is not promised, C8 has a suite of its own."""
    verdict = Verdict()
    facts = Facts(history)
    _nothing_lost(history, facts, verdict)
    _commits_safe(history, facts, verdict)
    duplicates_explained(history, facts, verdict)
    sent_by_owners(history, facts, verdict)
    told_in_time(history, facts, verdict)
    _came_to_rest(history, verdict)
    _ended_in_time(history, verdict)
    _stayed_small(history, verdict)
    return verdict


def _nothing_lost(history: History, facts: Facts, verdict: Verdict) -> None:
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
        _attempts_kept(history, event_id, facts.moves[place], verdict)
    for event_id in facts.accepted.keys() & set(history.aborted):
        verdict.violations.append(f"C1 sent, but its transaction was aborted: {event_id}")


def _attempts_kept(history: History, event_id: str, moves: list[Moved], verdict: Verdict) -> None:
    """C4: tries are bounded, and each tier adds to what was counted before it."""
    counted: dict[str, int] = {}
    for move in moves:
        if move.attempts > MAX_ATTEMPTS:
            verdict.violations.append(f"C4 tried too often: {event_id}, {move.attempts} times")
        topic = move.place[0]
        if ".retry." not in topic:
            continue
        earlier = [attempts for tier, attempts in counted.items() if tier != topic]
        was_copied = any(copies(history, before) for before in moves if before.at_ms <= move.at_ms)
        if earlier and move.attempts <= min(earlier) and not was_copied:
            verdict.violations.append(
                f"C4 forgot tries: {event_id} had {min(earlier)} before, on {topic} {move.attempts}"
            )
        counted[topic] = min(move.attempts, counted.get(topic, move.attempts))


def _commits_safe(history: History, facts: Facts, verdict: Verdict) -> None:
    """C2, C10: at each commit all below it, and all that its map covers, was accounted for; and it never went back."""
    before: dict[tuple[str, int], int] = {}
    for index, commit in enumerate(history.commits):
        at = (commit.topic, commit.partition)
        last = before.get(at, 0)
        if commit.offset < last and not _was_made_good(history, index, last):
            verdict.violations.append(f"C10 went back: {at} from {last} to {commit.offset}")
        for offset in [*range(last, commit.offset), *covered(commit)]:
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


def _came_to_rest(history: History, verdict: Verdict) -> None:
    """C5: after all was healed, everything was read and committed."""
    if not history.is_settled:
        verdict.violations.append(
            f"C5 no progress: {verdict.undelivered} events were waiting two minutes after all faults were healed"
        )


def _ended_in_time(history: History, verdict: Verdict) -> None:
    """C7: whoever was told to end did, by its deadline, in order or for a reason; nobody ended for none."""
    worked = {one.who for one in history.owned}
    forgot = {one.who for one in history.said if one.event == FORGOTTEN}
    for one in history.exits:
        ended_ms = one.at_ms + round(one.seconds * 1000)
        before = [fault for fault in history.faults if fault.at_ms - SLACK_MS <= ended_ms]
        is_allowed = {
            0: True,
            -signal.SIGTERM: one.who not in worked,  # before it could listen
            4: any(fault.excuse == "fatal" or (fault.excuse in AWAY and one.who in forgot) for fault in before),
            6: any(
                (fault.kind == TWICE and fault.who == one.who)
                or (fault.excuse in AWAY and fault.until_ms + SLACK_MS >= one.at_ms)
                for fault in before
            ),
        }.get(one.code, False)
        if one.seconds > one.deadline_s or not is_allowed:
            verdict.violations.append(f"C7 {one.who} ended with {one.code} after {one.seconds:.1f} s")


def _stayed_small(history: History, verdict: Verdict) -> None:
    """C9: memory is bounded, whatever fails."""
    for who, most in history.peak_rss_mib.items():
        if most > MAX_RSS_MIB:
            verdict.violations.append(f"C9 {who} held {most:.0f} MiB")
