"""What the benchmark makes of its numbers, and that its contenders send what the consumer sends."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from xml.etree import ElementTree as ET

import httpx
import pytest

from consumer.adapters.clock import SystemClock
from consumer.core.record import Record
from consumer.parts import make_decoder, make_translator, tell_misfit
from consumer.sandbox.events import encode, sample_event
from consumer.translate import Prepared
from tests.bench import bounds, load, machine, micro
from tests.bench.contender import MODULES
from tests.bench.contenders.common import Orders, decoder, payload
from tests.bench.contenders.floor import Position
from tests.bench.contenders.mq_bridge import route
from tests.bench.figures import Figures, Spread, percentile, ratio, select, spread
from tests.bench.flame import parse, self_time, svg
from tests.bench.plots import COLOURS, draw
from tests.bench.refused_app import FLAT_MIB, OPEN_S, Sample, problems
from tests.bench.report import BEGIN, END, NAMES, json_lines, markdown, rich_tables, tables, write_between
from tests.bench.scenarios import ALL, BY_NAME, CONTENDERS, Scenario
from tests.bench.sink import Counters, find_event_id
from tests.bench.sinks import our_sink
from tests.support.kafka import ROOT, RealKafka
from tests.support.processes import SCHEMA, events

STACKS = ["main;poll 6", "main;take;decode 3", "main;take 1", "", "no count"]


def run_of(contender: str, run: int, rate: float, *, scenario: str = "http-20ms", **changes: object) -> Figures:
    known = {"events": 1000, "measured_events": 700, "measured_s": 1.0, "cpu_us_per_event": 1e6 / rate, "cores": 0.9,
             "peak_rss_mib": 70.0, "new_connections": 512, "sink_cores": 0.3, "answers": 1000, "committed": 1000,
             "is_complete": True, **changes}  # fmt: skip
    return Figures(scenario=scenario, contender=contender, run=run, events_per_s=rate, **known)  # type: ignore[arg-type]


RUNS = [
    run_of("consumer", 1, 10_000), run_of("httpx", 1, 100, is_complete=False), run_of("floor", 1, 20_000),
    run_of("consumer", 2, 6_000), run_of("httpx", 2, 50), run_of("floor", 2, 15_000),
    run_of("consumer", 3, 9_000), run_of("httpx", 3, 100), run_of("floor", 3, 15_000),
]  # fmt: skip


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (0.999, 100.0), (1.0, 100.0)]
)
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected


def test_several_runs_are_a_median_and_the_extremes() -> None:
    assert spread(select(RUNS, "http-20ms", "consumer"), "events_per_s") == Spread(9_000, 6_000, 10_000)
    assert spread(RUNS, "age_p99_ms") is None


def test_a_ratio_divides_the_runs_of_one_round() -> None:
    """Excludes a ratio of medians, 9,000 / 100: a round in which the machine was slow touched both."""
    assert ratio(RUNS, "http-20ms", "events_per_s", "consumer", "httpx") == Spread(100, 90, 120)


def test_a_ratio_needs_both_in_a_round_and_something_to_divide_by() -> None:
    alone = [run_of("consumer", 1, 10), run_of("floor", 2, 10), run_of("floor", 3, 10, committed=0)]
    assert ratio(alone, "http-20ms", "events_per_s", "consumer", "floor") is None
    assert ratio([*alone, run_of("consumer", 3, 10)], "http-20ms", "committed", "consumer", "floor") is None


def test_a_table_has_a_row_for_each_contender_and_marks_what_is_not_complete() -> None:
    ((title, head, rows),) = tables(RUNS)
    assert title.startswith("http-20ms")
    assert all(len(row) == len(head) for row in rows)
    assert [row[0] for row in rows] == ["kochava-consumer", "bare floor", "naive httpx *"]
    assert rows[0][1] == "9,000 (6,000 to 10,000)"
    assert rows[2][-1] == "100.00 (90.00 to 120.00)"
    assert rows[0][-1] == ""
    assert len(rich_tables(RUNS)) == 1


def test_a_steady_scenario_shows_ages() -> None:
    ages = {"age_p50_ms": 25.0, "age_p99_ms": 40.0, "age_p999_ms": 60.0, "age_max_ms": 80.0}
    ((_, head, rows),) = tables([run_of("consumer", 1, 1000, scenario="steady", **ages)])
    assert dict(zip(head, rows[0], strict=True))["p99.9, ms"] == "60.0"


def test_the_page_is_changed_between_its_markers_only() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    text = markdown(RUNS, {"processor": "some", "cores": "2"}, "2026-11-26", ["images/bench-rate.svg"])
    written = write_between(page, text)
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "old" not in written
    assert write_between(written, text) == written
    assert "| naive httpx \\* |" in written
    assert "![bench-rate](images/bench-rate.svg)" in written
    with pytest.raises(ValueError, match="has no"):
        write_between("a page", text)


def test_a_sink_that_may_have_been_the_limit_is_told() -> None:
    assert "may have been the limit" not in markdown(RUNS, {}, "", [])
    assert "may have been the limit" in markdown([run_of("floor", 1, 10, sink_cores=0.95)], {}, "", [])


def test_our_page_has_the_markers_and_names_every_scenario() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    assert write_between(page, "text")
    assert [name for name in BY_NAME if f"`{name}`" not in page] == []


def test_results_are_json_lines() -> None:
    facts, *runs = map(json.loads, json_lines(RUNS, {"cores": "2"}).splitlines())
    assert facts == {"machine": {"cores": "2"}}
    assert [Figures(**run) for run in runs] == RUNS


def test_plots_are_the_same_for_the_same_numbers(tmp_path: Path) -> None:
    steady = run_of("consumer", 1, 1000, scenario="steady", age_p99_ms=40.0)
    paths = draw([*RUNS, steady], tmp_path)
    first = [path.read_bytes() for path in paths]
    assert [path.name for path in paths] == ["bench-rate.svg", "bench-cpu.svg", "bench-age.svg"]
    assert [path.read_bytes() for path in draw([*RUNS, steady], tmp_path)] == first
    assert all(len(text) < 60_000 for text in first)


def test_no_scenario_asks_for_what_the_consumer_refuses() -> None:
    assert len(BY_NAME) == len(ALL)
    assert all(one.connections <= one.in_flight_records for one in ALL)


def test_a_scenario_takes_no_more_events_than_its_connections_carry() -> None:
    assert BY_NAME["in-flight-16"].events(60_000) == 8_000
    assert BY_NAME["http-20ms"].events(60_000) == 60_000
    assert BY_NAME["http-0ms"].events(60_000) == 60_000


def test_contenders_send_what_the_consumer_sends() -> None:
    """Excludes a floor that is low because it does less of the mapping than it must."""
    settings = micro.settings()
    translator = make_translator(settings, make_decoder(settings, SystemClock(), None), tell_misfit)
    decode = decoder()
    for at, (_, value) in enumerate(events(500)):
        ours = translator.translate(Record("events", 0, at, -1, None, value))
        assert isinstance(ours, Prepared)
        assert payload(decode(value)) == json.loads(ours.request.body)


def test_every_contender_has_a_name_a_colour_and_a_module() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    assert set(CONTENDERS) == set(NAMES) == set(COLOURS) == {"consumer", *MODULES}
    assert all((ROOT / "tests" / "bench" / "contenders" / f"{module}.py").exists() for module, _ in MODULES.values())
    assert [name for name in NAMES.values() if f"| {name} |" not in page] == []


@pytest.mark.parametrize(
    ("connections", "tasks"), [(16, 1), (64, 1), (100, 1), (256, 4), (500, 5), (509, 1), (512, 8), (2000, 8)]
)
def test_mq_bridge_has_as_many_requests_in_flight_as_there_are_connections(connections: int, tasks: int) -> None:
    made = route(Orders("kafka:9092", "events", "group", "https://sink/", connections, 2 * connections, "ca.pem"))
    http = made["output"]["http"]
    assert made["concurrency"] == tasks
    assert tasks * http["batch_concurrency"] == connections
    assert http["batch_concurrency"] <= made["batch_size"] <= 2 * connections / tasks
    assert http["tls"] == {"required": True, "ca_file": "ca.pem"}


def test_the_floor_commits_no_further_than_what_was_answered() -> None:
    position = Position(10)
    seen = []
    for offset in (11, 12, 10, 14, 13):
        position.settle(offset)
        seen.append(position.next)
    assert seen == [10, 10, 13, 13, 15]


def test_the_sink_reads_when_an_event_was_produced(tmp_path: Path) -> None:
    for body, found in (
        (b'{"event_id":"t1790000000000000000-7"}', (b"t", b"1790000000000000000")),
        (b'{"event_id": "slow-3"}', (b"slow-", b"3")),
        (b'{"event_id":"warm-3"}', None),
    ):
        match = find_event_id(body)
        assert (match and match.groups()) == found
    for event_id, found in (
        ("t1790000000000000000-7", (b"t", b"1790000000000000000")), ("slow-3", (b"slow-", b"3")), ("warm-3", None),
    ):  # fmt: skip
        match = find_event_id(encode(sample_event(10, Random(1), event_id), SCHEMA, 10))  # 10 is a line feed
        assert (match and match.groups()) == found
    writer = Counters(tmp_path / "counters", is_new=True)
    writer.numbers[0] = 3
    writer.ages[0], writer.numbers[2] = 1.5, 1
    reader = Counters(tmp_path / "counters")
    assert (reader.answers, reader.connections, reader.ages_ms()) == (3, 0, [1.5])


def test_a_process_is_measured_with_what_it_started() -> None:
    inner = f"import subprocess, sys; subprocess.run([{sys.executable!r}, '-c', 'input()'])"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{inner.replace('subprocess.run', 'print(1, flush=True); subprocess.run')}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        process.stdout.readline()
        while len(machine.tree(process.pid)) < 2:
            assert process.poll() is None
        assert machine.cpu_s(process.pid) >= 0
        assert machine.peak_mib(process.pid) > 1
        assert process.pid in machine.tree(os.getpid())
    finally:
        process.communicate(b"\n")
    assert machine.peak_mib(process.pid) == 0


def test_a_flame_graph_is_one_picture_with_every_share() -> None:
    found = parse(STACKS)
    assert found == Counter({("main", "poll"): 6, ("main", "take", "decode"): 3, ("main", "take"): 1})
    assert self_time(found) == [("poll", 0.6), ("decode", 0.3), ("take", 0.1)]
    drawn = ET.fromstring(svg(found, "a < b"))
    titles = [title.text for title in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["all: 100.0%", "main: 100.0%", "poll: 60.0%", "take: 40.0%", "decode: 30.0%"]


def test_every_step_is_measured() -> None:
    timed = {name: (step, 20) for name, step in micro.steps(20).items()}
    timed |= {name: (step, 1) for name, step in micro.offset_map_steps().items()}
    found = micro.measure(timed, 2)
    assert {"decode", "map", "serialise", "write request", "classify answer", "budget"} < set(found)
    assert all(len(values) == 2 for values in found.values())


# -- bounds: one consumer, loads that differ in one thing


def test_a_bound_is_compared_with_the_first_of_its_round() -> None:
    """Excludes a comparison with another round, in which the machine was slow."""
    costs = {"apps-0": (50.0, 80.0, 60.0), "apps-1": (55.0, 96.0, 66.0)}
    runs = [
        run_of("consumer", at, 1e6 / cost, scenario=name) for name, of in costs.items() for at, cost in enumerate(of)
    ]
    assert bounds.misses("apps", runs) == []
    slower = [*runs[:3], *(run_of("consumer", at, 1e6 / 100, scenario="apps-1") for at in range(3))]
    assert bounds.misses("apps", slower) == ["apps 1,000: 1.67 of the first one's cost, goal 1.15"]


def test_a_rate_misses_its_bound_from_below() -> None:
    rates = {"neighbour-0": 1000, "neighbour-1": 960, "neighbour-2": 940, "neighbour-3": 950, "neighbour-4": 2000}
    runs = [run_of("consumer", 1, rate, scenario=name) for name, rate in rates.items()]
    assert bounds.misses("neighbour", runs) == ["neighbour 503: 0.94 of the first one's rate, goal 0.95"]


def test_what_a_neighbour_sends_is_not_counted() -> None:
    """Also beyond the events that repeat."""
    count = load.VARIETY + 100
    made = load.values(Scenario("", ""), load.VARIETY)
    name = load.app_id(0, 3).encode()
    of_app = sum(name in value and b"\x06ios" in value for value in (*made, *made[:100]))
    assert load.of_neighbour(count) == of_app > count / 13


@pytest.mark.parametrize(("how", "status"), [("ok", 200), ("401", 401), ("slow", 200), ("never", None)])
def test_the_sink_answers_a_neighbour_in_its_own_way(tmp_path: Path, how: str, status: int | None) -> None:
    with our_sink(tmp_path, 1, neighbour=f"{load.NEIGHBOUR}={how}") as sink, httpx.Client(timeout=3) as client:
        assert client.post(sink.endpoint, content=b"{}").status_code == 200
        if status is None:
            with pytest.raises(httpx.ReadTimeout):
                client.post(sink.endpoint, content=load.NEIGHBOUR.encode(), timeout=0.2)
        else:
            assert client.post(sink.endpoint, content=load.NEIGHBOUR.encode()).status_code == status
        assert sink.answers == 1


def test_apps_schemas_and_padding_are_what_was_asked_for(tmp_path: Path) -> None:
    scenario = Scenario("", "", app_ids=250, schemas=100)
    made = load.values(scenario, 4000, padding=1000)
    assert len({value[:5] for value in made}) == 100
    assert 1000 < min(map(len, made)) < 1600
    setup = load.prepare(RealKafka(tmp_path), tmp_path, "topic", scenario)
    assert len(setup.apps) == 1000
    folder = Path(setup.environment["KOCHAVA_CONSUMER_SCHEMAS__DIRECTORY"])
    assert len([*folder.glob("*.avsc")]) == 100
    settings = micro.settings({"KOCHAVA_CONSUMER_SCHEMAS__DIRECTORY": str(folder),
                               "KOCHAVA_CONSUMER_KOCHAVA__APPS": json.dumps(setup.apps)})  # fmt: skip
    translator = make_translator(settings, make_decoder(settings, SystemClock(), None), tell_misfit)
    steps = [translator.translate(Record("events", 0, at, -1, None, value)) for at, value in enumerate(made)]
    assert {type(step) for step in steps} == {Prepared}
    assert len({step.app for step in steps if isinstance(step, Prepared)}) == 1000


# -- one app is refused


def samples(per_s: float, *mib: float) -> list[Sample]:
    return [Sample(at * 5.0, at * 5.0 * per_s, each, 0.0) for at, each in enumerate(mib)]


@pytest.mark.parametrize(
    ("refused", "opened_s", "said"),
    [
        (samples(97.1, 50, 60, 70, 70, 72, 73), OPEN_S, ""),
        (samples(96.9, 70, 70, 70, 70, 70, 70), 1.0, "less than 97%"),
        (samples(100, 50, 50, 60, 60, 60 + FLAT_MIB + 1, 60 + FLAT_MIB + 1), 1.0, "memory is not flat"),
        (samples(100, 70, 70, 70, 70, 60, 60), 1.0, "memory is not flat"),
        (samples(100, 70, 70, 70, 70, 70, 70), OPEN_S + 1, "the lane was closed"),
    ],
)
def test_what_a_refused_app_costs_others_is_judged(refused: list[Sample], opened_s: float, said: str) -> None:
    wrong = problems(samples(100, 70, 70, 70), refused, opened_s)
    assert len(wrong) == bool(said)
    assert said in "".join(wrong)
