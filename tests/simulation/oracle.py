"""Watches a simulated world and says what is wrong: commits as they are made, duplicates as they happen, losses last.

Everything turns on the *place* of a record: topic, partition, offset. Each place is to have one outcome: Kochava
accepted a POST that was made for it, or a copy of it was appended to a topic of ours; or nothing is to be sent of it.
A commit may pass a place, or its map cover it, only when its member was told of an outcome. A further outcome needs a
reason that could not be helped.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeAlias

from consumer.core.assignment import Assignment
from consumer.core.headers import OURS, read_hop
from consumer.core.offset_map import UnreadableMapError, decode
from consumer.core.record import Partition, Record
from tests.simulation.broker import Broker, Message
from tests.simulation.coordinator import Commit, Group
from tests.simulation.sink import Post, Sink
from tests.simulation.world import START_S, World

UNWRITTEN_S = 3.0
"""How long what settled may stay unwritten when nothing is in the way: flushed, obeyed, stored, and then one interval
of the client's commit, or of ours for a map, and half of one until that is looked at."""

Place: TypeAlias = tuple[str, int, int]
How = Literal["", "given back", "lost", "died"]


class ViolationError(AssertionError):
    """What was promised does not hold."""


@dataclass(eq=False)
class Tenure:
    """One member's time with one partition: an assignment, as seen from outside."""

    member: str
    partition: Partition
    began_at: float
    drains_until: float = math.inf
    ended_at: float = math.inf
    how: How = ""
    is_fenced: bool = False
    taken_at: float = math.inf
    """When the coordinator thought its member dead, which may be before it could give back what it had drained."""

    def end(self, how: How, at: float) -> None:
        if not self.how:
            self.how, self.ended_at = how, at


@dataclass(eq=False)
class Outcome:
    """Something that became of the record at `place`: accepted by Kochava, or copied to a topic of ours."""

    kind: Literal["accepted", "copied"]
    place: Place
    tenure: Tenure
    sent_at: float
    told_at: float = math.inf
    """When its member heard of it, in words that leave no doubt."""

    def __str__(self) -> str:
        told = f"told at {self.told_at - START_S:.4f}" if self.told_at < math.inf else "never told"
        return f"{self.kind} by {self.tenure.member} (sent at {self.sent_at - START_S:.4f}, {told})"


class Standing:
    """What is committed of one partition, or was to be."""

    def __init__(self, commit: Commit = Commit(0, "")) -> None:  # noqa: B008 - immutable
        try:
            runs = decode(commit.metadata, commit.offset, 2**62).runs
        except UnreadableMapError as error:
            raise ViolationError(f"a map that its reader refuses ({error}): {commit}") from None
        self.offset = commit.offset
        self.beyond = frozenset(offset for run in runs for offset in range(run.first, run.end))

    def covers(self, offset: int) -> bool:
        return offset < self.offset or offset in self.beyond

    def __str__(self) -> str:
        return f"{self.offset} and {_numbers(self.beyond)}"


class Oracle:
    """The judge of one world."""

    def __init__(self, world: World, broker: Broker) -> None:
        self._world = world
        self._broker = broker
        self.wants: dict[Place, str] = {}
        """What is to be sent of each source record: its id, or nothing if that is empty."""
        self.held_up: dict[str, list[list[float]]] = defaultdict(list)
        """When a member, or one of its threads, stood still: from and to."""
        self.accepted: Counter[str] = Counter()
        self.dead: set[str] = set()
        self.explained: Counter[str] = Counter()
        self.commits = 0
        self._dead_letters = ""
        self._origins: dict[Place, Place] = {}
        self._outcomes: dict[Place, list[Outcome]] = defaultdict(list)
        self._posts: dict[Post, Outcome] = {}
        self.is_ordered = False
        self._last_of_key: dict[tuple[Tenure, bytes], Post] = {}
        self._tenures: dict[Assignment, Tenure] = {}
        self._died_at: dict[str, float] = {}
        self._dumb_since: dict[str, float] = {}
        self._of_member: dict[tuple[str, Partition], list[Tenure]] = defaultdict(list)
        self._tried: dict[Partition, list[tuple[float, str, Standing]]] = defaultdict(list)
        self._applied: dict[Partition, list[tuple[float, Standing]]] = defaultdict(list)

    def watch(self, group: Group, sink: Sink, dead_letters: str) -> None:
        """Listen to the broker and to Kochava; *dead_letters* is a topic."""
        self._dead_letters = dead_letters
        group.on_commit.append(self._committed)
        self._broker.on_append.append(self._appended)
        sink.on_post.append(self._posted)
        sink.on_accepted.append(self._accepted)
        sink.on_answer.append(self._answered)

    def fail(self, what: str) -> NoReturn:
        """End the simulation. The product might catch what is raised, so the world is told, too."""
        self._world.note("ORACLE", what)
        violation = ViolationError(what)
        self._world.crash(violation)
        raise violation

    # -- whose a partition is

    def began(self, member: str, assignments: Iterable[Assignment]) -> None:
        for assignment in assignments:
            partition = assignment.partition
            tenure = Tenure(member, partition, self._world.now)
            self._tenures[assignment] = tenure
            self._of_member[member, partition].append(tenure)
            settled = [offset for run in assignment.before.runs for offset in range(run.first, run.end)]
            self._world.note(member, f"OWNS {_name(partition)} from {assignment.start}, settled {_numbers(settled)}")

    def drains(self, assignments: Iterable[Assignment], deadline: float) -> None:
        for assignment in assignments:
            self._tenures[assignment].drains_until = deadline

    def ended(self, assignments: Iterable[Assignment], reason: str) -> None:
        for assignment in assignments:
            tenure = self._tenures[assignment]
            tenure.is_fenced = True
            tenure.end("lost" if reason == "lost" else "given back", self._world.now)
            self._world.note(tenure.member, f"{tenure.how.upper()} {_name(tenure.partition)} ({reason})")

    def handed_over(self, member: str, partitions: Iterable[Partition]) -> None:
        """Note that *member* has given *partitions* back, even if its event loop has not heard of it."""
        for partition in partitions:
            for tenure in self._of_member[member, partition][-1:]:
                tenure.end("lost", self._world.now)

    def taken(self, member: str, partitions: Iterable[Partition]) -> None:
        """Note that *member* is thought dead, and *partitions* go to others."""
        self.handed_over(member, partitions)
        for partition in partitions:
            for tenure in self._of_member[member, partition][-1:]:
                tenure.taken_at = min(tenure.taken_at, self._world.now)

    def falls_dumb(self, member: str) -> None:
        """Note that a client of *member* is fatal: it says nothing more to the broker."""
        self._dumb_since.setdefault(member, self._world.now)

    def died(self, member: str) -> None:
        self._died_at[member] = self._world.now
        for tenure in self._tenures.values():
            if tenure.member == member:
                tenure.end("died", self._world.now)

    # -- commits

    def attempted(self, member: str, partition: Partition, commit: Commit) -> None:
        """Note a commit as it leaves the client."""
        self._tried[partition].append((self._world.now, member, Standing(commit)))

    def _committed(self, partition: Partition, commit: Commit) -> None:
        """Look at a commit that is being written down: C2, C10, and I9 (what was covered once stays so)."""
        history = self._applied[partition]
        before = history[-1][1] if history else Standing()
        now = Standing(commit)
        self.commits += 1
        self._world.note("broker", f"COMMIT {_name(partition)} {now}")
        if now.offset < before.offset:
            self.fail(f"C10 went back: {_name(partition)} from {before.offset} to {now.offset}")
        for offset in [*range(before.offset, now.offset), *now.beyond]:
            if offset not in before.beyond and not self._is_done((*partition, offset)):
                self.fail(f"C2 unsafe: {_name(partition)} committed {now}, but {offset} was not settled")
        forgotten = [offset for offset in before.beyond if not now.covers(offset)]
        if forgotten:
            self.fail(f"I9 forgotten: {_name(partition)} committed {now}, but {forgotten} were covered before")
        history.append((self._world.now, now))

    def _is_done(self, place: Place) -> bool:
        """Say whether nothing is left to do for the record at *place*, and somebody knows it."""
        record = self._broker.logs[Partition(*place[:2])].records.get(place[2])
        if record is None or record.value() is None or self.wants.get(self._origins.get(place, place)) == "":
            return True
        return any(outcome.told_at <= self._world.now for outcome in self._outcomes[place])

    # -- outcomes

    def _posted(self, post: Post) -> None:
        outcome = self._posts[post] = self._expect("accepted", post.member, post.place)
        if self.is_ordered:
            self._is_in_order(post, outcome.tenure)

    def _is_in_order(self, post: Post, tenure: Tenure) -> None:
        """C6: within an assignment, the events of a key go one after another, each until it has ended."""
        key = self._broker.logs[Partition(*post.place[:2])].records[post.place[2]].key()
        last = self._last_of_key.get((tenure, key or b""))
        if last is not None and (last.is_on_the_wire or last.place > post.place):
            self.fail(f"C6: {post.place} is sent after {last.place}, of the same key")
        self._last_of_key[tenure, key or b""] = post

    def _expect(self, kind: Literal["accepted", "copied"], member: str, place: Place) -> Outcome:
        tenures = self._of_member[member, Partition(*place[:2])]
        # an event loop that was blocked may not have heard yet of one that ended, and of the next
        tenure = next((one for one in tenures if not one.is_fenced), None)
        if tenure is None:
            self.fail(f"I4: {member} sends {place}, which it has given up for the next owner")
        return Outcome(kind, place, tenure, self._world.now)

    def _accepted(self, post: Post) -> None:
        self.accepted[post.event_id] += 1
        self._happened(self._posts[post])

    def _answered(self, post: Post) -> None:
        if post.is_clean:
            self._posts[post].told_at = self._world.now

    def copies(self, member: str, record: Record) -> Outcome:
        """Expect a copy of *record* on a topic of ours."""
        return self._expect("copied", member, (record.topic, record.partition, record.offset))

    def _appended(self, message: Message, carries: object) -> None:
        if not isinstance(carries, Outcome):
            return
        place: Place = (message.topic(), message.partition(), message.offset())
        origin = self._origins.get(carries.place, carries.place)
        self._origins[place] = origin
        self._is_true_copy(message, origin)
        self._world.note("broker", f"COPY {carries.place} is at {place}")
        if message.topic() == self._dead_letters:
            self.dead.add(self.wants[origin])
        self._happened(carries)

    def _is_true_copy(self, message: Message, origin: Place) -> None:
        """I5: its bytes are those of the source record, and it says where that stands."""
        source = self._broker.logs[Partition(*origin[:2])].records[origin[2]]
        kept = [header for header in message.headers() or () if header[0] not in OURS]
        if (message.key(), message.value(), kept) != (source.key(), source.value(), source.headers() or []):
            self.fail(f"I5: the copy of {origin} is not what it was")
        headers = tuple(message.headers() or ())
        hop = read_hop(Record(*origin, -1, None, None, headers), is_ours=True)
        if (hop.topic, hop.partition, hop.offset) != origin:
            self.fail(f"C4: a copy of {origin} says that it came from {hop}")

    def _happened(self, outcome: Outcome) -> None:
        """Note an outcome; one that is not the first of its place needs a reason."""
        others = self._outcomes[outcome.place]
        for other in others:
            first, second = sorted((other, outcome), key=lambda one: one.sent_at)
            reason = self._reason(first, second)
            if reason is None:
                self.fail(f"C3 twice without a reason: {outcome.place} {first}, and {second}")
            else:
                self.explained[reason] += 1
        others.append(outcome)

    def _reason(self, first: Outcome, second: Outcome) -> str | None:
        """Say why *second* was sent although *first* had been; None if it should not have been."""
        tenure = first.tenure
        if tenure is second.tenure:
            return "no clear answer" if first.told_at > second.sent_at else None
        if first.told_at > tenure.ended_at:  # in flight when the partition left; or two have it at once
            if tenure.how in {"lost", "died"}:
                return f"{tenure.how}, in flight"
            if tenure.ended_at >= tenure.drains_until:
                return "drain timed out"
            # while there is no answer, or an unclear one, the record is as good as unsent
            return "no clear answer" if first.told_at == math.inf and tenure.how else None
        if second.tenure.how == "lost" and second.tenure.ended_at <= second.sent_at:
            return "lost, and did not know"
        partition, offset = tenure.partition, first.place[2]
        if any(at < second.tenure.began_at and one.covers(offset) for at, one in self._applied[partition]):
            return None  # it was written down, and sent all the same
        if any(
            member == tenure.member and at >= first.told_at and one.covers(offset)
            for at, member, one in self._tried[partition]
        ):
            return "commit did not arrive"
        is_given_back = tenure.how == "given back"  # and its member may have ended before it could say so
        until = tenure.ended_at
        if is_given_back:
            ends = (one.get(tenure.member, math.inf) for one in (self._died_at, self._dumb_since))
            until = min(tenure.taken_at, *ends)
        if self._unwritten_s(tenure.member, first.told_at, until) <= UNWRITTEN_S:
            return f"{'died' if is_given_back else tenure.how}, not yet committed"
        return None

    def _unwritten_s(self, member: str, since: float, until: float) -> float:
        """Return how long *member* could have written something down, but for times when its threads stood still."""
        stood, reached = 0.0, since
        for begin, end in sorted(self.held_up[member]):
            begin, end = max(begin, reached), min(end, until)  # noqa: PLW2901 - overlaps count once
            if end > begin:
                stood += end - begin
                reached = end
        return until - since - stood

    # -- the end

    def judge(self) -> None:
        """When all has come to rest: C1, nothing is lost; I4, whoever lost a partition knows it."""
        for tenure in self._tenures.values():
            if tenure.how == "lost" and not tenure.is_fenced and tenure.member not in self._died_at:
                self.fail(f"I4: {tenure.member} has lost {_name(tenure.partition)} and does not know it")
        lost = [
            f"{event} at {place}"
            for place, event in self.wants.items()
            if event and event not in self.dead and not self.accepted[event]
        ]
        if lost:
            self.fail(f"C1 lost: {', '.join(lost)}")

    @property
    def sent_twice(self) -> int:
        return sum(count - 1 for count in self.accepted.values() if count)


def _name(partition: Partition) -> str:
    return f"{partition.topic}[{partition.number}]"


def _numbers(offsets: Iterable[int]) -> str:
    return ",".join(map(str, sorted(offsets))) or "none"
