"""What `offsets` refuses without asking a broker: one sentence, exit code 2; and what it says when a commit fails."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import KafkaError, KafkaException, TopicPartition

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
    """A client whose commit fails with this code, as a whole or for its first partition alone."""

    def __init__(self, code: int, *, alone: bool) -> None:
        self._code, self._alone = code, alone

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> list[Any]:
        assert not asynchronous
        if not self._alone:
            raise KafkaException(KafkaError(self._code))

        class Answer:
            error = KafkaError(self._code)

        return [Answer(), *offsets[1:]]

    def close(self) -> None:
        pass


WRITES = [Write(Partition("t", 0), 5), Write(Partition("t", 1), 6)]


def offsets_refused_with(code: int, monkeypatch: pytest.MonkeyPatch, *, alone: bool) -> KafkaOffsets:
    monkeypatch.setattr(kafka_offsets, "make_client", lambda _kind, _conf: Refusing(code, alone=alone))
    return KafkaOffsets({"bootstrap.servers": "nowhere"}, "mine")


@pytest.mark.parametrize("alone", [True, False])
def test_a_commit_without_an_answer_may_have_been_made(alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = offsets_refused_with(KafkaError._TIMED_OUT, monkeypatch, alone=alone)
    with pytest.raises(KafkaFatalError, match="_TIMED_OUT") as failed:
        commit(offsets, WRITES, Path("backup.json"))
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
