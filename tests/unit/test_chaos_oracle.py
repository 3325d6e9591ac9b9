"""The oracle of the chaos suite: it finds each kind of wrong, and takes nothing right for wrong."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumer.core.offset_map import Run, encode
from tests.chaos.__main__ import explain
from tests.chaos.commit_log import Commit, _key, _value
from tests.chaos.faults import CATALOGUE, plan
from tests.chaos.history import Exit, Fault, History, Late, Moved, Owned, Place, Post, Produced, Said, Sent, Written
from tests.chaos.oracle import judge
from tests.chaos.results import BEGIN, END, Result, append, read, write_into
from tests.chaos.world import WORLDS
from tests.chaos.wrong import BUILDS
from tests.support.kafka import ROOT


def post(at_ms: int, event_id: str, status: str, *, accepted: bool, took_ms: int = 20) -> Post:
    return Post(at_ms, event_id, status, accepted, at_ms + took_ms)


SOURCE, TIER, DEAD = "events", "events.retry", "events.dead"
GOOD = History(
    SOURCE, DEAD, request_timeout_ms=3000, commit_interval_ms=1000,
    produced=[Produced((SOURCE, 0, 0), "a"), Produced((SOURCE, 0, 1), ""), Produced((SOURCE, 0, 2), "c"),
              Produced((SOURCE, 0, 3), "d")],
    posts=[post(1000, "a", "200", accepted=True), post(1010, "c", "503", accepted=False),
           post(9000, "c", "200", accepted=True), post(9100, "d", "200", accepted=True)],
    moved=[Moved(1100, (DEAD, 0, 0), (SOURCE, 0, 1), 0), Moved(1200, (TIER, 0, 0), (SOURCE, 0, 2), 1)],
    commits=[Commit(1300, SOURCE, 0, 3, ""), Commit(9300, SOURCE, 0, 4, ""), Commit(9400, TIER, 0, 1, "")],
    exits=[Exit(9900, "member-1", 0, 0.5, 20.0)], owned=[Owned(900, "member-1", SOURCE, 0, is_owned=True)],
)  # fmt: skip
KILL = Fault(9500, 9500, "SIGKILL", "member-1", "crash")
OWNER = Owned(5000, "member-2", SOURCE, 0, is_owned=True)
TWICE = Fault(9500, 9600, "SIGTERM twice", "member-1")
AWAY = Fault(9000, 9500, "SIGSTOP", "member-1", "away")


def again(at_ms: int, status: str = "200", first: str = "200") -> History:
    """Return the good history, with the last event accepted a second time."""
    posts = [post if post.id != "d" else post._replace(status=first) for post in GOOD.posts]
    uncommitted = [commit for commit in GOOD.commits if commit.offset != 4]
    return replace(GOOD, posts=[*posts, post(at_ms, "d", status, accepted=True)], commits=uncommitted)


def violations(history: History) -> list[str]:
    return [text.split(":")[0].split(" ")[0] for text in judge(history).violations]


def test_a_good_history_is_good() -> None:
    assert judge(GOOD).violations == []


def test_a_lost_event_is_found() -> None:
    history = replace(GOOD, posts=[post for post in GOOD.posts if not (post.id == "c" and post.accepted)])
    assert judge(history).lost == 1
    assert "C1" in violations(history)


def test_a_lost_dead_letter_is_found() -> None:
    assert "C1" in violations(replace(GOOD, moved=GOOD.moved[1:]))


@pytest.mark.parametrize(
    "early",
    [
        Commit(900, SOURCE, 0, 1, ""),  # before Kochava had it
        Commit(1050, SOURCE, 0, 2, ""),  # before the broker had the dead letter
        Commit(1150, SOURCE, 0, 3, ""),  # before the broker had the retry
        Commit(8000, TIER, 0, 1, ""),  # before the retry succeeded
        Commit(1300, SOURCE, 0, 0, encode(0, [Run(3, 4)])[0]),  # a map that covers what wasn't sent
    ],
)
def test_an_unsafe_commit_is_found(early: Commit) -> None:
    assert "C2" in violations(replace(GOOD, commits=sorted([*GOOD.commits, early])))


def test_what_is_on_the_wire_is_not_settled() -> None:
    on_its_way = [one._replace(answered_ms=9500) if one.id == "d" else one for one in GOOD.posts]
    assert violations(replace(GOOD, posts=on_its_way)) == ["C2"]
    without_answer = [one._replace(answered_ms=None) if one.id == "d" else one for one in GOOD.posts]
    assert violations(replace(GOOD, posts=without_answer)) == ["C2"]


def test_a_true_map_is_safe() -> None:
    early = Commit(9200, SOURCE, 0, 3, encode(3, [])[0])
    true = Commit(9150, SOURCE, 0, 2, encode(2, [Run(3, 4)])[0])
    assert violations(replace(GOOD, commits=[true, early, *GOOD.commits[1:]])) == []


def test_a_commit_that_goes_back_is_found() -> None:
    assert violations(replace(GOOD, commits=[*GOOD.commits, Commit(9900, SOURCE, 0, 2, "")])) == ["C10"]


def test_a_commit_that_was_overtaken_while_brokers_were_away_must_be_made_good_at_once() -> None:
    back = Commit(9900, SOURCE, 0, 2, "")
    for later, found in ((10_500, []), (15_000, ["C10"])):
        commits = [*GOOD.commits, back, Commit(later, SOURCE, 0, 4, "")]
        assert violations(replace(GOOD, commits=commits, faults=[AWAY], owned=[OWNER])) == found


def test_an_overtaken_commit_of_a_partition_that_was_left_stays_for_the_next_owner() -> None:
    owned = [Owned(100, "member-3", SOURCE, 0, is_owned=True), Owned(9890, "member-3", SOURCE, 0, is_owned=False)]
    commits = [*GOOD.commits, Commit(9900, SOURCE, 0, 2, ""), Commit(15_000, SOURCE, 0, 4, "")]
    history = replace(GOOD, commits=commits, faults=[AWAY], owned=owned)
    assert violations(history) == []
    assert violations(replace(history, owned=[*owned, OWNER])) == ["C10"], "whose commit was undone"


def test_a_duplicate_without_a_reason_is_found() -> None:
    assert violations(again(9800)) == ["C3"]


def test_what_is_in_the_log_twice_is_sent_twice() -> None:
    """The embedded cluster keeps a producer's retry."""
    twice = [*GOOD.produced, Produced((SOURCE, 1, 0), "d")]
    verdict = judge(replace(again(9800), produced=twice))
    assert verdict.explained == {"produced twice": 1}
    third = replace(again(9800), produced=twice)
    assert violations(replace(third, posts=[*third.posts, post(9850, "d", "200", accepted=True)])) == ["C3"]


def test_a_duplicate_behind_a_crash_is_explained_and_counted() -> None:
    verdict = judge(replace(again(9800), faults=[KILL]))
    assert verdict.violations == []
    assert verdict.explained == {"crash": 1}
    assert verdict.per_crash == [1]


def test_a_crash_long_after_explains_nothing() -> None:
    """It was settled for so long that a commit or a map should have said so."""
    late = KILL._replace(at_ms=30_000, until_ms=30_000)
    assert violations(replace(again(31_000), faults=[late])) == ["C3"]


def test_a_crash_explains_nothing_that_a_commit_had_told() -> None:
    told = Commit(9300, SOURCE, 0, 3, encode(3, [Run(3, 4)])[0])
    history = replace(again(12_000), faults=[KILL], commits=[GOOD.commits[0], told])
    assert "C3" in violations(history)


@pytest.mark.parametrize(("copied_ms", "found"), [(9000, []), (2000, ["C3"])])
def test_a_crash_right_after_a_copy_explains_both_copies_however_late_they_are_sent(
    copied_ms: int, found: list[str]
) -> None:
    """Held, not yet committed, killed: the next owner has it from its source, and the sweep from the held topic."""
    copy = Moved(copied_ms, (TIER, 0, 1), (SOURCE, 0, 3), 0)
    posts = [*GOOD.posts[:-1], post(20_000, "d", "200", accepted=True), post(21_600, "d", "200", accepted=True)]
    kept = [commit for commit in GOOD.commits if commit.offset != 4]
    history = replace(GOOD, posts=posts, moved=[*GOOD.moved, copy], commits=kept, faults=[KILL])
    assert violations(history) == found


def test_a_lost_answer_explains_a_duplicate() -> None:
    assert judge(again(9800, first="reset_after")).violations == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"faults": [AWAY]}, "assignment lost or commit impossible"),
        ({"faults": [AWAY._replace(excuse="answer")]}, "answer lost or not understood"),
        ({"said": [Said(9500, "m", "consumer.drained")]}, "drain deadline passed"),
        ({"said": [Said(9500, "m", "offset.commit_failed")]}, "commit refused"),
        ({"exits": [Exit(9500, "m", 6, 0.5, 20.0)], "faults": [TWICE._replace(who="m")]}, "forced end"),
    ],
)
def test_what_explains_a_duplicate(changes: dict[str, Any], reason: str) -> None:
    verdict = judge(replace(again(9800), **changes))
    assert (verdict.violations, verdict.explained) == ([], {reason: 1})


@pytest.mark.parametrize("fault", [AWAY._replace(at_ms=90_000, until_ms=95_000), AWAY._replace(excuse="")])
def test_what_explains_none(fault: Fault) -> None:
    assert violations(replace(again(99_000), faults=[fault])) == ["C3"]


@pytest.mark.parametrize("excuse", ["crash", "away"])
def test_what_happens_to_a_member_that_had_nothing_of_it_explains_nothing(excuse: str) -> None:
    fault = AWAY._replace(who="member-2", excuse=excuse)
    history = replace(again(9800), faults=[fault])
    assert violations(history) == ["C3"]
    had_it = Owned(8900, "member-2", SOURCE, 0, is_owned=True)
    assert violations(replace(history, owned=[*GOOD.owned, had_it])) == []


def test_what_a_commit_had_told_is_sent_again_only_by_one_who_did_not_know() -> None:
    """Whoever was away, and wakes up, sends what he had in hand; all others have read the commit."""
    history = replace(again(12_000), commits=GOOD.commits, faults=[AWAY])
    assert violations(history) == ["C3"]
    split = [*GOOD.owned, Owned(8000, "member-2", SOURCE, 0, is_owned=True)]
    assert judge(replace(history, owned=split)).explained == {"two members held themselves for its owner": 1}


def tries(*times_ms: int, who: str = "member-1", place: Place = (SOURCE, 0, 3)) -> list[Sent]:
    return [Sent(at_ms, who, place) for at_ms in times_ms]


def test_whoever_had_the_answer_has_no_excuse_to_send_again() -> None:
    history = replace(again(9800), faults=[AWAY], sent=tries(9090, 9790))
    assert violations(history) == ["C3"]


@pytest.mark.parametrize(
    "sent",
    [
        tries(9090, 9110),  # the second was under way before the first was answered
        [*tries(9090), *tries(9790, place=(TIER, 0, 1))],  # a copy
        [*tries(9090), *tries(9790, who="member-2")],
    ],
)
def test_others_may_have_one(sent: list[Sent]) -> None:
    owners = [*GOOD.owned, OWNER._replace(at_ms=9400), Owned(900, "member-1", TIER, 0, is_owned=True)]
    history = replace(again(9800), faults=[AWAY], sent=sent, owned=owners)
    assert judge(history).explained == {"assignment lost or commit impossible": 1}


def test_an_owner_that_has_it_once_more_has_to_read_the_commit() -> None:
    left, back = GOOD.owned[0]._replace(at_ms=9200, is_owned=False), GOOD.owned[0]._replace(at_ms=9600)
    history = replace(again(9800), faults=[AWAY], sent=tries(9090, 9790), owned=[*GOOD.owned, left, back])
    assert judge(history).explained == {"assignment lost or commit impossible": 1}


LEFT = GOOD.owned[0]._replace(at_ms=5000, is_owned=False)


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (tries(4900, 6400), []),  # it may take a moment until it hears of it
        (tries(6600), ["C3"]),
        (tries(800), ["C3"]),  # before it had it
        (tries(4000, who="member-2"), ["C3"]),
        (tries(4000, place=(TIER, 0, 0)), ["C3"]),
    ],
)
def test_nobody_sends_what_he_does_not_own(sent: list[Sent], found: list[str]) -> None:
    assert violations(replace(GOOD, sent=sent, owned=[*GOOD.owned, LEFT])) == found


def test_one_who_is_stopped_hears_of_it_when_he_wakes_up() -> None:
    asleep = AWAY._replace(at_ms=4000, until_ms=8000)
    history = replace(GOOD, sent=tries(9000), owned=[*GOOD.owned, LEFT])
    assert violations(replace(history, faults=[asleep])) == []
    assert violations(replace(history, faults=[asleep._replace(who="member-2")])) == ["C3"]
    assert violations(replace(history, faults=[asleep._replace(kind="broker frozen")])) == ["C3"]


STANDING = [one for one in GOOD.commits if one.offset != 4]
LATER = Commit(12_700, SOURCE, 0, 4, "")


@pytest.mark.parametrize(
    ("commits", "found"),
    [
        ([*STANDING], ["C3"]),
        ([*STANDING, LATER], ["C3"]),  # 3.6 s after the answer
        ([*STANDING, LATER._replace(at_ms=12_600)], []),
        ([*STANDING, Commit(9300, SOURCE, 0, 3, encode(3, [Run(3, 4)])[0]), LATER], []),
    ],
)
def test_what_was_answered_is_told_soon(commits: list[Commit], found: list[str]) -> None:
    history = replace(GOOD, commits=commits, sent=tries(9090), exits=[])
    assert violations(history) == found


@pytest.mark.parametrize(
    "changes",
    [
        {"faults": [AWAY]},
        {"faults": [AWAY._replace(excuse="answer")]},
        {"said": [Said(10_000, "member-1", "offset.commit_failed")]},
        {"has_commit_log": False},
        {"is_classic": True},  # somebody got partitions 8.2 s before
        {"exits": [Exit(12_000, "member-1", 0, 3.0, 20.0)]},
        {"owned": [*GOOD.owned, Owned(20_000, "member-1", SOURCE, 1, is_owned=False)]},
        {"owned": [*GOOD.owned, GOOD.owned[0]._replace(at_ms=10_000, is_owned=False)]},
        {"posts": [*GOOD.posts[:-1], GOOD.posts[-1]._replace(answered_ms=None)], "commits": STANDING},
    ],
)
def test_what_may_hinder_that(changes: dict[str, Any]) -> None:
    history = replace(GOOD, **{"commits": [*STANDING, LATER], "sent": tries(9090), "exits": [], **changes})
    assert violations(history) == []


def test_each_duplicate_behind_a_crash_counts_for_it_whatever_else_explains_it() -> None:
    verdict = judge(replace(again(9800), faults=[AWAY._replace(who="broker-1"), KILL]))
    assert verdict.explained == {"assignment lost or commit impossible": 1}
    assert verdict.per_crash == [1]


def test_a_tier_that_forgot_tries_is_found() -> None:
    tiers = [
        Moved(1200, ("events.retry.1s", 0, 0), (SOURCE, 0, 2), 4),
        Moved(1250, ("events.retry.2s", 0, 0), (SOURCE, 0, 2), 4),
    ]
    history = replace(GOOD, moved=[GOOD.moved[0], *tiers])
    assert "C4" in violations(history)
    assert "C4" in violations(replace(history, faults=[KILL._replace(at_ms=50_000, until_ms=50_000)]))
    assert "C4" not in violations(replace(history, faults=[KILL._replace(at_ms=1220, until_ms=1220)]))
    assert "C4" not in violations(replace(GOOD, moved=[GOOD.moved[0], tiers[0], tiers[1]._replace(attempts=5)]))


def test_two_copies_on_our_topic_need_a_reason() -> None:
    """Both are delivered: the record was acknowledged there, and not settled where it came from."""
    twice = [*GOOD.moved, Moved(1250, (TIER, 0, 1), (SOURCE, 0, 2), 1)]
    history = replace(GOOD, moved=twice, posts=[*GOOD.posts, post(9050, "c", "200", accepted=True)])
    assert violations(history) == ["C3"]
    crash = KILL._replace(at_ms=1220, until_ms=1220)
    assert judge(replace(history, faults=[crash])).explained == {
        "crash between our topic's acknowledgement and the commit": 1
    }


def test_an_event_of_an_aborted_transaction_must_not_be_sent() -> None:
    assert violations(replace(GOOD, aborted=["a"])) == ["C1"]


def test_more_tries_than_there_are_is_found() -> None:
    assert violations(replace(GOOD, moved=[*GOOD.moved[:1], GOOD.moved[1]._replace(attempts=13)])) == ["C4"]


def test_a_member_that_grows_is_found() -> None:
    assert violations(replace(GOOD, peak_rss_mib={"member-1": 80.0, "member-2": 301.0})) == ["C9"]


def test_a_fatal_error_ends_a_member_and_nothing_else_does() -> None:
    ended = Exit(9900, "m", 4, 0.5, 20.0)
    assert violations(replace(GOOD, exits=[ended])) == ["C7"]
    assert violations(replace(GOOD, exits=[ended], faults=[AWAY._replace(excuse="fatal")])) == []


@pytest.mark.parametrize(
    "ended", [Exit(9900, "m", 0, 30.0, 20.0), Exit(9900, "m", 1, 0.5, 20.0), Exit(9900, "m", 6, 15.0, 20.0)]
)
def test_a_late_or_a_bad_end_is_found(ended: Exit) -> None:
    assert violations(replace(GOOD, exits=[ended])) == ["C7"]


def test_no_progress_is_found() -> None:
    assert violations(replace(GOOD, is_settled=False)) == ["C5"]


def test_the_commit_log_of_both_formats_is_read() -> None:
    key = bytes.fromhex("0001 0005") + b"group" + bytes.fromhex("0006") + b"events" + bytes.fromhex("00000007")
    assert _key(key) == ("group", "events", 7)
    assert _key(bytes.fromhex("0002 0005") + b"group") is None, "a group's own record, no commit"
    old = bytes.fromhex("0003 0000000000000009 ffffffff 0003") + b"map" + (77).to_bytes(8, "big")
    assert _value(old, "events", 7) == Commit(77, "events", 7, 9, "map")
    flexible = bytes.fromhex("0004 0000000000000009 ffffffff 04") + b"map" + (77).to_bytes(8, "big") + b"\0"
    assert _value(flexible, "events", 7) == Commit(77, "events", 7, 9, "map")


def test_a_failing_seed_is_told_as_text_and_as_a_picture(tmp_path: Path) -> None:
    owned = [Owned(900, "member-1", SOURCE, 0, is_owned=True), Owned(9500, "member-1", SOURCE, 0, is_owned=False)]
    history = replace(again(9800), faults=[KILL._replace(until_ms=9700)], commits=[], owned=owned)
    told = explain(history, judge(history), tmp_path, 7, 20)
    assert "--first 7 --seeds 1" in told
    timeline = (tmp_path / "timeline.txt").read_text()
    assert "POST   d 200 AGAIN" in timeline
    assert "OWNS   member-1 events[0]" in timeline
    assert (tmp_path / "picture.svg").read_text().count("POST again") >= 1
    assert History.read(tmp_path / "history.json") == history


def test_a_schedule_is_drawn_from_its_seed_and_of_faults_of_its_world() -> None:
    for world in WORLDS:
        drawn = plan(7, world, 500)
        assert drawn == plan(7, world, 500)
        assert drawn != plan(8, world, 500)
        assert {name for _, name, _ in drawn} == {kind.name for kind in CATALOGUE.values() if world in kind.worlds}


def test_results_are_kept_and_written_into_a_page(tmp_path: Path) -> None:
    verdict = judge(replace(again(9800), faults=[KILL]))
    for seed in (4, 2, 3, 4):
        append(tmp_path / "results", Result.of(seed, "one", "classic", replace(again(9800), faults=[KILL]), verdict))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old\n{END}after\n")
    write_into(page, read(tmp_path / "results"))
    text = page.read_text()
    assert "| - one | 3 classic: seeds 2-4 |" in text
    assert "| **lost** | 0 |" in text
    assert "| sent twice per SIGKILL: p50 / max | 1 / 1 |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text


def test_an_answer_that_came_too_late_explains_a_second_sending() -> None:
    place = (SOURCE, 0, 3)
    history = replace(
        again(12_200), written=[Written(9090, "member-1", place, 12_090), Written(12_190, "member-1", place, None)],
        posts=[one._replace(answered_ms=12_100) if one.id == "d" else one for one in again(12_200).posts],
    )  # fmt: skip
    assert judge(history).explained == {"no answer in time": 1}


@pytest.mark.parametrize(
    ("written", "late", "is_explained"),
    [
        pytest.param([Written(9090, "member-1", (SOURCE, 0, 3), None)], [], False, id="nobody gave it up"),
        pytest.param([Written(9090, "member-1", (SOURCE, 0, 3), 12_090)], [], False, id="the answer was there"),
        pytest.param([Written(9090, "member-1", (SOURCE, 0, 3), 12_090)], [Late(8000, 9000)], False, id="late before"),
        pytest.param([Written(9090, "member-1", (SOURCE, 0, 3), 10_000)], [Late(9000, 9900)], False, id="too early"),
        pytest.param([Written(9090, "member-1", (SOURCE, 0, 3), 12_090)], [Late(9000, 9900)], True, id="a late wire"),
        pytest.param(
            [Written(4000, "member-1", (SOURCE, 0, 3), 7000), Written(9090, "member-1", (SOURCE, 0, 3), None)],
            [Late(6000, 6500)], False, id="another try's",
        ),
    ],
)  # fmt: skip
def test_only_the_try_itself_and_a_late_machine_explain_it(
    written: list[Written], late: list[Late], *, is_explained: bool
) -> None:
    history = again(12_200)
    if len(written) > 1:
        history.posts.append(post(4010, "d", "503", accepted=False))
    history = replace(history, written=written, late=late)
    assert ("C3" in violations(history)) is not is_explained


@pytest.mark.parametrize("build", BUILDS)
def test_every_wrong_build_still_fits_the_product(build: str) -> None:
    """Excludes: a build that patches what the product doesn't use any more, and that the oracle hunts in vain."""
    done = subprocess.run(
        [sys.executable, "-c", f"from tests.chaos.wrong import BUILDS; BUILDS[{build!r}][0]()"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_build_that_forgets_tries_does() -> None:
    """The simulation judges no headers, so that nothing else in make test looks at it."""
    code = """
from consumer.core.assignment import Assignment
from consumer.core.headers import ATTEMPTS
from consumer.core.record import Partition, Record
from consumer.envelope import Envelope
from tests.chaos.wrong import BUILDS

def tries() -> int:
    record = Record("t", 0, 0, -1, None, b"", ((ATTEMPTS, b"3"),))
    return Envelope(record, Assignment(Partition("t", 0), 1, 0), is_ours=True, taken_at=0.0).hop.attempts

assert tries() == 3
BUILDS["tries_forgotten_at_a_restart"][0]()
assert tries() == 0
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
