"""How the sandbox's rules are read and chosen."""

from random import Random
from typing import Any

import pytest

from consumer.errors import SettingsError
from consumer.sandbox.behaviour import Behaviour, read_latency, read_rules


def behaviour(*rules: dict[str, Any], seed: int = 0) -> Behaviour:
    return Behaviour(read_rules(rules), seed=seed)


def status(chosen: Any) -> int | None:
    return None if chosen is None else chosen.status


def test_the_first_match_wins() -> None:
    rules = behaviour(
        {"match": {"app": "a", "event": "Purchase"}, "do": {"status": 501}},
        {"match": {"app": "a"}, "do": {"status": 502}},
        {"match": {"id": "e-7"}, "do": {"status": 503}},
        {"match": {"id_prefix": "slow-"}, "do": {"status": 504}},
    )
    assert status(rules.choose("a", "Purchase", "e-7", 0)) == 501
    assert status(rules.choose("a", "View", "e-7", 0)) == 502
    assert status(rules.choose("b", "View", "e-7", 0)) == 503
    assert status(rules.choose("b", "View", "e-77", 0)) is None
    assert status(rules.choose("b", "View", "slow-1", 0)) == 504
    assert status(rules.choose(None, None, None, 0)) is None
    assert rules.fired == [1, 1, 1, 1]


def test_first_tries_and_limit() -> None:
    rules = behaviour({"match": {"first_tries": 2, "limit": 3}, "do": {"status": 503}})
    assert [status(rules.choose("a", "View", "x", tries)) for tries in range(3)] == [503, 503, None]
    assert [status(rules.choose("a", "View", "y", tries)) for tries in range(2)] == [503, None]


def test_luck_belongs_to_the_event_and_its_try_and_not_to_the_order_of_arrival() -> None:
    tries = [(f"event-{number}", number % 3) for number in range(2000)]
    rule = {"match": {"share": 0.25}, "do": {"status": 503}}

    def unlucky(order: list[tuple[str, int]], seed: int = 0) -> set[tuple[str, int]]:
        rules = behaviour(rule, seed=seed)
        return {(event_id, seen) for event_id, seen in order if rules.choose("a", "View", event_id, seen)}

    assert unlucky(tries) == unlucky(tries[::-1])
    assert unlucky(tries) != unlucky(tries, seed=1)
    assert 400 < len(unlucky(tries)) < 600
    assert unlucky([("same", seen) for seen in range(2000)]) not in (set(), {("same", seen) for seen in range(2000)})


def test_a_share_without_ids_and_its_ends() -> None:
    some = behaviour({"match": {"share": 0.25}, "do": {"status": 503}})
    assert 400 < sum(some.choose("a", "View", None, 0) is not None for _ in range(2000)) < 600
    none, every = behaviour({"match": {"share": 0}}), behaviour({"match": {"share": 1}})
    assert not any(none.choose("a", "View", str(number), 0) for number in range(100))
    assert all(every.choose("a", "View", str(number), 0) for number in range(100))


def test_latencies() -> None:
    random = Random(1)
    assert read_latency(20).draw_s(random) == read_latency("20").draw_s(random) == 0.02
    uniform = [read_latency("uniform:5:50").draw_s(random) for _ in range(1000)]
    assert 0.005 <= min(uniform) < 0.01
    assert 0.045 < max(uniform) <= 0.05
    tail = sorted(read_latency("lognormal:20:0.5").draw_s(random) for _ in range(1001))
    assert 0.018 < tail[500] < 0.022
    assert tail[-1] > 0.06
    assert read_latency("lognormal:1:600000").draw_s(random) <= 600
    rules = Behaviour(read_rules([{"do": {"latency_ms": 7}}]), read_latency(3))
    assert rules.latency_s(rules.choose("a", "View", "x", 0)) == 0.007
    assert rules.latency_s(None) == 0.003


@pytest.mark.parametrize("text", ["", "fast", "-1", "nan", "inf", "uniform:5", "uniform:50:5", "lognormal:0:1", True])
def test_a_latency_that_is_none(text: Any) -> None:
    with pytest.raises(SettingsError, match="latency"):
        read_latency(text)


def test_rules_come_from_json_and_go_back() -> None:
    text = b"""[{"name": "x", "match": {"id_prefix": "a", "share": 0.5},
                 "do": {"status": 503, "headers": {"Retry-After": "2"}, "body": {"a": [1]},
                        "latency_ms": "uniform:5:50"}},
                {"do": {"action": "hang", "latency_ms": 3}}]"""
    rules = read_rules(text)
    assert rules[0].do.body == '{"a":[1]}'
    dumped = Behaviour(rules).dump()
    assert dumped[0]["do"]["latency_ms"] == "uniform:5:50"
    assert dumped[1] == {"do": {"action": "hang", "latency_ms": "3"}}
    assert read_rules(dumped) == rules


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"if": {}}, r"rules\[0\]\.if: "),
        ({"match": {"apps": "a"}}, r"rules\[0\]\.match\.apps: "),
        ({"match": {"share": 2}}, r"rules\[0\]\.match\.share: "),
        ({"match": {"first_tries": 0}}, r"rules\[0\]\.match\.first_tries: "),
        ({"do": {"status": 100}}, r"rules\[0\]\.do\.status: "),
        ({"do": {"action": "explode"}}, r"rules\[0\]\.do\.action: .*'reset_before'"),
        ({"do": {"latency_ms": "slow"}}, r"rules\[0\]\.do\.latency_ms: a latency is"),
        ({"do": {"headers": {"Content-Length": "3"}}}, "sandbox's own"),
        ({"do": {"headers": {"X": "a\r\nb"}}}, "printable"),
        ({"do": {"headers": {"X Y": "a"}}}, "header name"),
        ({"do": {"action": "hang", "status": 503}}, "no status"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_place(rule: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        read_rules([rule])


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read_rules(b'[{"do": {"status": 1}}, {"match": {"share": "x"}}]')
    assert len(caught.value.problems) == 2
    for broken in (b"{", b"{}", b"\xff"):
        with pytest.raises(SettingsError, match="rules: "):
            read_rules(broken)
