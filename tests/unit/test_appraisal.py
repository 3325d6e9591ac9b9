"""What today's configuration makes of a record that was given up."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consumer import appraisal
from consumer.appraisal import Appraiser, why_not
from consumer.configuration import load
from consumer.core.dead_letters import Place
from consumer.core.headers import Hop, write_hop
from consumer.core.record import Record
from consumer.dead_letters import Examiner
from consumer.ports import Decoded, Undecodable
from consumer.sandbox.events import guid
from tests.support.processes import events
from tests.support.registry import Registry

PUZZLE = "com.example.puzzle/ios"


def appraiser(tmp_path: Path, **environment: str) -> Appraiser:
    path = tmp_path / "kochava.toml"
    path.write_text('[kafka]\nbootstrap_servers = "127.0.0.1:9"\ngroup_id = "g"\ntopics = ["t"]\nstart = "latest"\n')
    apps = {PUZZLE: {"guid": guid(*PUZZLE.split("/")), "enabled": environment.pop("enabled", "yes") == "yes"}}
    settings = load(
        path,
        {"KOCHAVA_CONSUMER_KOCHAVA__APPS": json.dumps(apps),
         **{f"KOCHAVA_CONSUMER_{name}": text for name, text in environment.items()}},
    )  # fmt: skip
    return Appraiser(settings, lambda _: None)


def record(value: bytes, stage: str = "map", reason: str = "unknown_app", offset: int = 0) -> Record:
    headers = write_hop((), Hop("t", 0, offset, 0), stage=stage, reason=reason, status=None)
    return Record("dead", 0, offset, 0, None, value, headers)


def verdicts(of: Appraiser, *values: bytes) -> list[str | None]:
    return [why_not(of.judge(decoded)) for decoded in of.decode([record(value) for value in values])]


def test_each_verdict(tmp_path: Path) -> None:
    ios, android = (value for _, value in events(2))
    with appraiser(tmp_path) as of:
        assert verdicts(of, ios, android, b"no Avro") == [None, "map: unknown_app", "decode: bad_magic"]
        assert verdicts(of, events(1, device={**DEVICE, "ip": None})[0][1]) == ["map: no_origination_ip"]
    with appraiser(tmp_path, enabled="no") as of:
        assert verdicts(of, ios) == ["held: app_switched_off"], "it would only wait on another topic"
    with appraiser(tmp_path, KOCHAVA__UNKNOWN_APP="filter") as of:
        assert verdicts(of, android) == ["filtered: unknown_app"]


DEVICE: dict[str, Any] = {
    **dict.fromkeys(("install_id", "vendor_id", "android_id", "udid", "model", "os_name", "os_version")),
    "advertising_id": "11111111-2222-3333-4444-555555555555", "user_agent": "x", "ip": "203.0.113.1", "custom_ids": {},
    "limit_ad_tracking": None,
}  # fmt: skip


def test_a_registry_that_is_away_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appraisal, "SCHEMAS_WAIT_S", 0.5)
    ((_, value),) = events(1)
    with Registry() as registry, appraiser(tmp_path, SCHEMAS__REGISTRY_URL=registry.url) as of:
        registry.is_down = True
        loop = of._runner.get_loop()
        begun = loop.time()
        assert verdicts(of, *[value] * 50) == ["decode: schema_unavailable"] * 50
        assert verdicts(of, value) == ["decode: schema_unavailable"]
        assert loop.time() - begun < 20, "not once for each"


class Recorder:
    """Stands in for the appraiser and notes what it is asked to decode."""

    def __init__(self) -> None:
        self.asked: list[bytes | None] = []

    def decode(self, records: list[Record]) -> list[Decoded | Undecodable]:
        self.asked += [each.value for each in records]
        return [Decoded(1, {}) for _ in records]

    def event(self, _: object) -> Any:
        return SimpleNamespace(app="app", name="event")


@pytest.mark.parametrize(("decode_all", "asked"), [(False, [b"a", b"d"]), (True, [b"a", b"b", b"d", b"e"])])
def test_what_kills_decoders_is_never_tried_and_what_never_was_decoded_gets_no_app(
    decode_all: bool, asked: list[bytes]
) -> None:
    recorder = Recorder()
    given = [record(b"a"), record(b"b", "decode", "truncated", 1), record(b"c", "decode", "killed_decoder", 2),
             record(b"d", "deliver", "http_400", 3), record(b"e", "map", "bad_time", 4),
             record(b"", offset=5)._replace(value=None)]  # fmt: skip
    seen = list(Examiner(recorder, "confluent").examine(given, decode_all=decode_all))  # type: ignore[arg-type]
    assert recorder.asked == asked
    assert [each.letter.place for each in seen] == [Place("dead", 0, offset) for offset in range(5)], "no marker"
    assert [each.letter.cause.app for each in seen] == ["app", None, None, "app", None], "whether decoded today or not"
    assert [each.decoded is None for each in seen] == [False, not decode_all, True, False, not decode_all]
