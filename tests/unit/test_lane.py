"""I7: a refused app waits alone, bounded, and is asked again."""

from consumer.core.lane import Admission, Lane, LanePolicy

POLICY = LanePolicy(waiting_records=2, waiting_s=20, probe_initial_s=5, probe_max_s=8)


def test_an_open_lane_sends() -> None:
    assert Lane[str](POLICY).admit(0.0) is Admission.SEND


def test_a_refused_lane_keeps_a_few_and_holds_the_rest() -> None:
    lane = Lane[str](POLICY)
    assert lane.refused("http_401", 0.0, probe=False)
    assert not lane.refused("http_401", 0.0, probe=False), "closes once"
    for item in ("a", "b"):
        assert lane.admit(1.0) is Admission.WAIT
        lane.wait(item, 1.0)
    assert lane.admit(1.0) is Admission.HOLD
    assert lane.waiting[0] == (21.0, "a")


def test_the_probe_decides() -> None:
    lane = Lane[str](POLICY)
    lane.refused("http_403", 0.0, probe=False)
    assert lane.admit(5.0) is Admission.PROBE
    assert lane.admit(5.0) is Admission.WAIT, "one probe at a time"
    lane.refused("http_403", 5.1, probe=True)
    assert lane.admit(13.0) is Admission.WAIT, "8 s after the failed probe, not 10: the maximum"
    assert lane.admit(13.1) is Admission.PROBE
    assert lane.accepted()
    assert lane.admit(13.2) is Admission.SEND
    assert not lane.accepted(), "opens once"


def test_a_probe_without_an_answer_makes_room_for_another() -> None:
    lane = Lane[str](POLICY)
    lane.refused("http_401", 0.0, probe=False)
    assert lane.admit(6.0) is Admission.PROBE
    lane.probes.put_back()
    assert lane.admit(6.0) is Admission.PROBE


def test_an_app_that_settings_switch_off_is_never_asked() -> None:
    lane = Lane[str](POLICY, switched_off=True)
    assert lane.admit(1e9) is Admission.HOLD
    assert not lane.accepted()
    assert lane.closed_for == "disabled"
