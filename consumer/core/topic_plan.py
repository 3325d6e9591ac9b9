"""What our own topics must look like, so that a record can wait on them without getting lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from consumer.core.duration import parse_duration_s
from consumer.core.retry import RetryPlan

DAY_MS = 86_400_000
HEADERS_BYTES = 65_536
"""Room for our headers on top of the largest record of a source topic."""
KEEP_MS = {"retry": 7 * DAY_MS, "held": 30 * DAY_MS, "dead letters": 30 * DAY_MS}
"""Retention that we create topics with: a weekend for the tiers, a month for what waits for a person."""

Role: TypeAlias = Literal["source", "retry", "held", "dead letters", "orphan"]


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic as the brokers describe it."""

    name: str
    partitions: int
    replication: int
    retention_ms: int
    cleanup_policy: str
    max_message_bytes: int


@dataclass(frozen=True, slots=True)
class TopicLine:
    """One topic of ours, or one that we read: what it is, and what is wrong with it."""

    name: str
    role: Role
    facts: TopicFacts | None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewTopicPlan:
    """How to make a topic that is missing."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)


def review(
    plan: RetryPlan, sources: Sequence[str], facts: Mapping[str, TopicFacts], lag_of_others: Mapping[str, int]
) -> list[TopicLine]:
    """Judge every topic that we read or write.

    Args:
        plan: our own topics.
        sources: the topics that settings name.
        facts: the topics that exist, by name.
        lag_of_others: records that the group hasn't read of topics named like a retry tier, which no tier reads.
    """
    known = [facts[name] for name in sources if name in facts]
    lines = [_source_line(name, facts.get(name)) for name in sources]
    lines += [_own_line(name, role, facts.get(name), known, plan) for name, role in _roles(plan).items()]
    for name, lag in sorted(lag_of_others.items()):
        problem = (
            f"{lag} records wait here and no tier reads them: put its delay back into retry.tiers until it is empty"
        )
        lines.append(TopicLine(name, "orphan", facts.get(name), (problem,) if lag else ()))
    return lines


def missing(
    plan: RetryPlan,
    sources: Sequence[str],
    facts: Mapping[str, TopicFacts],
    *,
    partitions: int | None,
    replication: int | None,
) -> list[NewTopicPlan]:
    """Say how to make those of our topics that don't exist, after the source topics they serve."""
    known = [facts[name] for name in sources if name in facts]
    count = partitions or max((of.partitions for of in known), default=1)
    copies = replication or max((of.replication for of in known), default=1)
    size = max((of.max_message_bytes for of in known), default=1_048_588) + HEADERS_BYTES
    return [
        NewTopicPlan(
            name,
            count,
            copies,
            {"cleanup.policy": "delete", "retention.ms": str(KEEP_MS[role]), "max.message.bytes": str(size)},
        )
        for name, role in _roles(plan).items()
        if name not in facts
    ]


def _roles(plan: RetryPlan) -> dict[str, Role]:
    roles: dict[str, Role] = {tier.topic: "retry" for tier in plan.tiers}
    return {**roles, plan.held_topic: "held", plan.dead_letter_topic: "dead letters"}


def _source_line(name: str, facts: TopicFacts | None) -> TopicLine:
    if facts is None:
        return TopicLine(name, "source", None, ("doesn't exist: check kafka.topics, and the right to describe it",))
    return TopicLine(name, "source", facts)


def _own_line(
    name: str, role: Role, facts: TopicFacts | None, sources: Sequence[TopicFacts], plan: RetryPlan
) -> TopicLine:
    if facts is None:
        return TopicLine(name, role, None, ("missing: kochava-consumer topics --create",))
    problems: list[str] = []
    warnings: list[str] = []
    if facts.cleanup_policy != "delete":
        problems.append(f"cleanup.policy is {facts.cleanup_policy}: compaction would drop waiting records; set delete")
    largest = max((of.max_message_bytes for of in sources), default=0)
    if sources and facts.max_message_bytes < largest + HEADERS_BYTES:
        problems.append(
            f"max.message.bytes is {facts.max_message_bytes}: the source's largest record with our headers needs "
            f"{largest + HEADERS_BYTES}"
        )
    if facts.retention_ms >= 0:
        _judge_retention(facts.retention_ms, role, plan, problems, warnings)
    copies = max((of.replication for of in sources), default=0)
    if facts.replication < copies:
        problems.append(f"{facts.replication} replicas, the source has {copies}: a broker's loss would lose records")
    count = max((of.partitions for of in sources), default=0)
    if facts.partitions < count and role != "dead letters":
        warnings.append(f"{facts.partitions} partitions, the source has {count}: fewer members can share its work")
    return TopicLine(name, role, facts, tuple(problems), tuple(warnings))


def _judge_retention(retention_ms: int, role: Role, plan: RetryPlan, problems: list[str], warnings: list[str]) -> None:
    longest_ms = max(tier.delay_s for tier in plan.tiers) * 1000
    if role in {"retry", "held"} and retention_ms < longest_ms * 2:
        problems.append(
            f"retention.ms is {retention_ms}: with the longest tier at {round(longest_ms)} ms, records would be "
            "deleted before they are read; at least twice that"
        )
    elif retention_ms < DAY_MS:
        warnings.append("retention is under a day: an outage over a night would lose records")


def tier_delay_of(topic: str, prefix: str) -> float | None:
    """Return the delay in seconds of a topic named like a retry tier of *prefix*, else None."""
    head = f"{prefix}.retry."
    return parse_duration_s(topic[len(head) :]) if topic.startswith(head) else None
