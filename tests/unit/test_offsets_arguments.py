"""What `offsets` refuses without asking a broker: one sentence, exit code 2; and what it says when a commit fails."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import KafkaError, TopicPartition

from consumer.adapters import kafka_offsets
from consumer.adapters.kafka_offsets import HasMembersError, KafkaOffsets, Write
from consumer.cli import root
from consumer.cli.offsets_write import commit, refuse_members, write_new
from consumer.core.record import Partition
from consumer.core.standing import GroupFacts, Member
from consumer.errors import CheckFailedError, ConsumerError, KafkaFatalError

SETTINGS = """
[kafka]
bootstrap_servers = "127.0.0.1:9"
group_id = "mine"
topics = ["in-app-events"]
start = "earliest"
[kochava]
endpoint = "http://127.0.0.1:9/track/json"
[kochava.apps."a"]
guid = "kotest-a-1"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "kochava.toml"
    path.write_text(SETTINGS)
    return path


def run(config: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(root, ["offsets", *arguments, "--config", str(config)])
    if isinstance(done.exception, ConsumerError):
        return done.exception.exit_code, str(done.exception)
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("", "give exactly one of --to-datetime"),
        ("--to-earliest --to-latest", "--to-earliest and --to-latest was given"),
        ("--to-offset 0 --shift-by 0", "--to-offset and --shift-by was given"),
        ("--to-offset -1", "-1 is not in the range"),
        ("--to-offset x", "'x' is not a valid integer"),
        ("--to-datetime 2026-11-01T09:30:00", "write 2026-11-01T09:30:00Z for UTC"),
        ("--to-datetime soon", "'soon' is no date and time"),
        ("--by-duration 2 hours", "unexpected extra argument"),
        ("--by-duration 2w", "such as 90m, 2h or 1d"),
        ("--to-latest --topic other", "the group doesn't read 'other'; it reads in-app-events, in-app-events.kochava"),
        ("--to-latest --partition x", "write 0,1 or in-app-events:0,1"),
        ("--from-file no-such-file.csv", "does not exist"),
        ("--to-latest --execute", "there is no terminal to confirm on: add --yes"),
    ],
)
def test_a_reset_that_means_nothing(config: Path, arguments: str, why: str) -> None:
    code, said = run(config, "reset", *arguments.split())
    assert code == 2
    assert why in " ".join(said.split())


@pytest.mark.parametrize(
    ("content", "options", "why"),
    [
        ("in-app-events,0", [], "line 1 is not topic,partition,offset"),
        ("other,0,1", [], "the group doesn't read 'other'"),
        ("in-app-events,0,1", ["--topic", "in-app-events"], "leave --topic and --partition out"),
        (b"\xff\xfe", [], "cannot read"),
    ],
)
def test_a_file_that_means_nothing(
    config: Path, tmp_path: Path, content: str | bytes, options: list[str], why: str
) -> None:
    file = tmp_path / "offsets.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, said = run(config, "reset", "--from-file", str(file), *options)
    assert code == 2
    assert why in " ".join(said.split())


def test_an_undo_of_what_is_no_backup_or_another_groups(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.json"
    for content in ("", "{}", '{"version": 1, "group": "mine", "at": "", "partitions": []}'):
        file.write_text(content)
        code, said = run(config, "undo", str(file))
        assert code == 2
        assert "is no backup of `offsets reset`" in said
    file.write_text(
        '{"version": 1, "group": "other", "at": "", "partitions": [{"topic": "t", "partition": 0, "offset": 1,'
        ' "metadata": "", "foreign_metadata": false, "reset_to": 0}]}'
    )
    code, said = run(config, "undo", str(file))
    assert code == 5
    assert "is of group 'other', but the settings say 'mine'" in said
    assert run(config, "undo", str(file), "--execute")[0] == 2, "no terminal, no --yes"


@pytest.mark.parametrize("command", ["show", "reset", "undo"])
def test_help_has_an_example(config: Path, command: str) -> None:
    code, said = run(config, command, "--help")
    assert code == 0
    assert f"  kochava-consumer offsets {command} " in said


def test_a_backup_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    write_new(path, b"first")
    for place in (path, tmp_path / "no-such-folder" / "backup"):
        with pytest.raises(Exception, match="nothing was changed") as refused:
            write_new(place, b"second")
        assert "--backup" in str(refused.value)
    assert path.read_bytes() == b"first"


class Refusing:
    """A client whose commit fails with this code, as a whole or for its first partition alone; or has no answer."""

    def __init__(self, code: int | None, answered: Callable[[Any, Any], None], *, alone: bool) -> None:
        self._code, self._answered, self._alone = code, answered, alone
        self._offsets: list[Any] = []
        self.is_closed = False

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        self._offsets = [SimpleNamespace(error=None) for _ in offsets]

    def poll(self, seconds: float) -> None:
        if self._code is not None:
            error = KafkaError(self._code)
            self._offsets[0].error = error
            self._answered(None if self._alone else error, self._offsets)

    def close(self) -> None:
        self.is_closed = True


WRITES = [Write(Partition("t", 0), 5), Write(Partition("t", 1), 6)]


def offsets_refused_with(code: int | None, monkeypatch: pytest.MonkeyPatch, *, alone: bool) -> KafkaOffsets:
    monkeypatch.setattr(
        kafka_offsets, "make_client", lambda _kind, conf: Refusing(code, conf["on_commit"], alone=alone)
    )
    return KafkaOffsets({"bootstrap.servers": "nowhere"}, "mine")


@pytest.mark.parametrize(
    ("code", "alone"),
    [(KafkaError._TIMED_OUT, False), (KafkaError.UNKNOWN_TOPIC_OR_PART, True), (KafkaError._WAIT_COORD, False),
     (None, False)],
)  # fmt: skip
def test_a_commit_that_fails_may_have_been_made(code: int | None, alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_offsets, "COMMIT_TIMEOUT_S", 0.05)
    name = KafkaError(KafkaError._TIMED_OUT if code is None else code).name()
    offsets = offsets_refused_with(code, monkeypatch, alone=alone)
    with pytest.raises(KafkaFatalError, match=name) as failed, offsets:
        commit(offsets, WRITES, Path("backup.json"))
    assert offsets._consumer.is_closed == (code is not None), "nobody waits for an answer that doesn't come"
    assert "Whether the commit was made is not known" in str(failed.value)
    assert "kochava-consumer offsets undo backup.json" in str(failed.value)


@pytest.mark.parametrize("alone", [True, False])
def test_a_member_that_came_between_look_and_commit_is_named(alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = offsets_refused_with(KafkaError.UNKNOWN_MEMBER_ID, monkeypatch, alone=alone)
    with pytest.raises(HasMembersError):
        offsets.commit(WRITES)
    facts = GroupFacts("mine", "stable", (Member("pod-7", "10.0.0.7", 1),))
    monkeypatch.setattr(KafkaOffsets, "group", lambda _self: facts)
    with pytest.raises(CheckFailedError, match="refused it, nothing was changed") as refused:
        commit(offsets, WRITES, Path("backup.json"))
    assert "pod-7 on 10.0.0.7, 1 partition" in str(refused.value)


@pytest.mark.parametrize("state", ["preparing rebalancing", "stable", "assigning"])
def test_a_group_that_is_not_empty_is_refused_though_nobody_is_named(state: str) -> None:
    with pytest.raises(CheckFailedError, match=state):
        refuse_members(GroupFacts("mine", state))
    for stopped in ("empty", "dead"):
        refuse_members(GroupFacts("mine", stopped))
