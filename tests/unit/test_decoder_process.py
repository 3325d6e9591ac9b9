"""Records that kill the decoder, and everything else that can happen to a process apart. All with real processes."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime, time as time_of_day
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from fastavro import parse_schema

from consumer.adapters.decoder_process import MAX_AHEAD, DecoderProcess
from consumer.core.avro_reader import MAX_DEPTH, Malformed
from consumer.ports import Apart, Decoded, Undecodable
from tests.support.avro import encode, one_field, plain_decoder, record_of
from tests.support.kafka import ROOT

FRAGILE = "tests.support.fragile_child"
LIST = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
TREE = {
    "type": "record",
    "name": "Tree",
    "fields": [
        {"name": "label", "type": "string"},
        {"name": "leaves", "type": {"type": "array", "items": "Tree"}},
        {"name": "by_name", "type": {"type": "map", "values": "Tree"}},
    ],
}


def chain(depth: int) -> bytes:
    """A list of so many nodes, a byte each."""
    return b"\x02" * (depth - 1) + b"\0"


class Member:
    """A decoder with a process apart, as the pipeline uses it."""

    def __init__(self, schema, *, restart_s=0.01, **kwargs) -> None:
        self.deaths: list[str] = []
        self.process = DecoderProcess(self.deaths.append, restart_s=restart_s, **kwargs)
        self.decoder = plain_decoder(schema, apart=self.process)

    async def decode(self, body: bytes):
        decoded = self.decoder.decode(record_of(body))
        return await self.decoder.decode_apart(decoded.work) if isinstance(decoded, Apart) else decoded


def with_member(test, schema=LIST, **kwargs) -> None:
    async def play():
        member = Member(schema, **kwargs)
        try:
            await test(member)
        finally:
            await member.decoder.close()

    asyncio.run(play())


async def until(holds) -> None:
    while not holds():  # noqa: ASYNC110  what another process does sets no event of ours
        await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_record_that_kills_fastavro_does_kill_it():
    """Else the tests here prove nothing."""
    script = (
        "import io, fastavro; schema = fastavro.parse_schema("
        f"{LIST}); print(fastavro.schemaless_reader(io.BytesIO({chain(5)}), schema, None)); "
        f"fastavro.schemaless_reader(io.BytesIO(b'\\x02' * 50_000 + b'\\0'), schema, None)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.count("next") == 5
    assert done.returncode == -signal.SIGSEGV


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1_000, 5_000, 100_000])
def test_a_recursive_schema_with_a_record_too_deep(depth):
    """A recursive schema, depth 1,000 and 5,000: refused in words, by a process that lives on."""

    async def play(member):
        before = await member.decode(chain(3))
        assert await member.decode(chain(depth)) == Undecodable("too_deep")
        assert await member.decode(chain(3)) == before
        assert before.datum == {"next": {"next": {"next": None}}}
        assert member.deaths == []

    with_member(play)


def test_a_record_that_kills_its_decoder_costs_a_process_and_no_other_record():
    """The decoder is fastavro here, the record a real one: SIGSEGV, twice."""

    async def play(member):
        good, bad = chain(3), chain(50_000)
        answers = await asyncio.gather(*map(member.decode, [good] * 40 + [bad] + [good] * 40))
        assert answers.pop(40) == Undecodable("killed_decoder")
        assert {str(answer.datum) for answer in answers} == {str({"next": {"next": {"next": None}}})}
        assert member.deaths == ["signal_11", "signal_11"]

    with_member(play, module=FRAGILE)


def test_each_of_several_killers_is_found():
    async def play(member):
        good, bad = chain(3), chain(50_000)
        answers = await asyncio.gather(*map(member.decode, [bad, good, bad, good]))
        assert [type(answer) for answer in answers] == [Undecodable, Decoded, Undecodable, Decoded]
        assert member.deaths == ["signal_11"] * 4

    with_member(play, module=FRAGILE)


def test_a_record_that_takes_too_long_twice_is_given_up():
    async def play(member):
        slow = asyncio.ensure_future(member.process.decode(b"command", b"hang"))
        good = asyncio.ensure_future(member.decode(chain(2)))
        assert await slow == Malformed("decode_timeout")
        assert await good == Decoded(1, {"next": {"next": None}})
        assert member.deaths == ["timeout", "timeout"]

    with_member(play, module=FRAGILE, record_s=1.5)


def test_a_process_that_somebody_else_kills_costs_no_record(tmp_path):
    async def play(member):
        marker = tmp_path / "pid"
        innocent = asyncio.ensure_future(member.process.decode(b"command", f"first {marker}".encode()))
        others = [asyncio.ensure_future(member.decode(chain(2))) for _ in range(2 * MAX_AHEAD)]
        await until(marker.exists)
        os.kill(int(marker.read_text()), signal.SIGKILL)
        assert await innocent == Malformed("second")
        assert all(isinstance(answer, Decoded) for answer in await asyncio.gather(*others))
        assert member.deaths == ["signal_9"]

    with_member(play, module=FRAGILE)


def test_a_process_that_dies_with_nothing_to_do_is_replaced():
    async def play(member):
        first = (await member.process.decode(b"command", b"who"))["pid"]
        os.kill(first, signal.SIGKILL)
        await until(lambda: not is_alive(first))
        assert (await member.process.decode(b"command", b"who"))["pid"] != first
        assert member.deaths == ["signal_9"]

    with_member(play, module=FRAGILE)


def test_a_process_that_does_not_even_start_blames_nobody():
    async def play(member):
        waiting = asyncio.ensure_future(member.decode(chain(2)))
        await until(lambda: len(member.deaths) == 3)
        assert member.deaths == ["exit_1"] * 3
        assert not waiting.done()
        waiting.cancel()

    with_member(play, module="tests.support.no_such_module")


def test_starts_are_bounded():
    """However often it dies."""

    async def play(member):
        began = time.monotonic()
        await asyncio.gather(*[member.decode(chain(50_000)) for _ in range(2)])
        assert len(member.deaths) == 4
        assert time.monotonic() - began > 1.45

    with_member(play, module=FRAGILE, restart_s=0.5)


@pytest.mark.parametrize("command", [b"garbage", b"foreign"])
def test_an_answer_that_is_none_counts_as_a_death(command):
    """Excludes: what hostile bytes have made of the child runs code in the parent."""

    async def play(member):
        assert await member.process.decode(b"command", command) == Malformed("killed_decoder")
        assert isinstance(await member.decode(chain(2)), Decoded)

    with_member(play, module=FRAGILE)


def test_the_process_has_no_secrets_and_no_sockets(monkeypatch):
    monkeypatch.setenv("KOCHAVA_CONSUMER_KAFKA__SASL_PASSWORD", "hunter2")

    async def play(member):
        who = await member.process.decode(b"command", b"who")
        assert who["environment"].keys() <= {"PYTHONPATH", "PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "LC_CTYPE"}
        # in, out, err, and the listing itself
        assert [name for name in who["files"] if not name.startswith(("/dev/null", "/proc/", "pipe:", "socket:"))] == []
        assert len(who["files"]) <= 4

    with_member(play, module=FRAGILE)


def test_what_is_given_up_is_not_decoded(tmp_path):
    """A partition that leaves takes its records out of the queue: what waits is bounded by what is in flight."""

    async def play(member):
        blocking = asyncio.ensure_future(member.process.decode(b"command", f"first {tmp_path / 'pid'}".encode()))
        await until((tmp_path / "pid").exists)
        others = [asyncio.ensure_future(member.decode(chain(2))) for _ in range(1_000)]
        await asyncio.sleep(0)
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        assert len(member.process._waiting) == 0
        assert len(member.process._sent) <= MAX_AHEAD
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        await blocking
        assert isinstance(await member.decode(chain(2)), Decoded)

    with_member(play, module=FRAGILE)


@pytest.mark.parametrize("starting", [True, False])
def test_close_ends_the_process_and_what_waits(tmp_path, starting):
    async def play():
        member = Member(LIST, module=FRAGILE)
        pid = 0 if starting else (await member.process.decode(b"command", b"who"))["pid"]
        waiting = asyncio.ensure_future(member.process.decode(b"command", b"hang"))
        await asyncio.sleep(0)
        await member.decoder.close()
        assert not pid or not is_alive(pid)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(play())


def test_close_before_any_recursive_record_has_nothing_to_end():
    with_member(lambda member: asyncio.sleep(0))


def test_a_parent_that_is_killed_takes_the_process_with_it():
    script = (
        "import asyncio\n"
        "from consumer.adapters.decoder_process import DecoderProcess\n"
        "async def main():\n"
        f"    process = DecoderProcess(print, module={FRAGILE!r})\n"
        "    print((await process.decode(b'command', b'who'))['pid'], flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_bug_of_ours_reaches_who_waits(monkeypatch):
    async def play(member):
        monkeypatch.setattr(member.process, "_use", None)
        with pytest.raises(TypeError):
            await member.decode(chain(2))

    with_member(play)


# -- what is decoded apart, is decoded as strictly


def test_all_types_come_back_as_they_are():
    kinds = {
        "a": ({"type": "long", "logicalType": "timestamp-millis"}, datetime(2026, 11, 3, 12, tzinfo=UTC)),
        "b": ({"type": "long", "logicalType": "local-timestamp-micros"}, datetime(2026, 11, 3)),  # noqa: DTZ001  it has none
        "c": ({"type": "int", "logicalType": "date"}, date(2026, 11, 3)),
        "d": ({"type": "int", "logicalType": "time-millis"}, time_of_day(1, 2, 3)),
        "e": ({"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}, Decimal("19.99")),
        "f": ({"type": "string", "logicalType": "uuid"}, UUID(int=7)),
        "g": ({"type": "map", "values": ["null", "double", "bytes"]}, {"x": 0.5, "y": b"\xff", "z": None}),
        "h": ("boolean", True),
    }
    fields = [{"name": name, "type": kind} for name, (kind, _) in kinds.items()]
    schema = {"type": "record", "name": "R", "fields": [*fields, {"name": "r", "type": ["null", "R"]}]}
    flat = {name: value for name, (_, value) in kinds.items()}
    datum = {**flat, "r": {**flat, "r": None}}

    async def play(member):
        decoded = await member.decode(encode(schema, datum))
        assert decoded == Decoded(1, datum)
        assert repr(decoded.datum) == repr(datum)
        assert member.decoder.parsed_schema(1)["name"] == "R"

    with_member(play, schema)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x04", "bad_index"),
        (b"\x01", "bad_index"),
        (b"\x02\x03\0", "bad_index"),
        (b"\x80\0", "bad_index"),
        (b"\0\0", "trailing_bytes"),
        (b"\x02", "truncated"),
        (b"", "truncated"),
    ],
)
def test_hostile_bytes_of_a_recursive_type(body, reason):
    async def play(member):
        assert await member.decode(body) == Undecodable(reason)

    with_member(play)


def test_a_wide_tree_of_few_bytes_is_bounded_like_everything_else():
    async def play(member):
        leaf = {"label": "", "leaves": [], "by_name": {}}
        tree = {"label": "", "leaves": [leaf] * 1_000, "by_name": {"a": leaf}}
        assert (await member.decode(encode(TREE, tree))).datum == tree
        wide = encode(TREE, {**tree, "leaves": [leaf] * 340_000})
        assert len(wide) < 1_048_576
        assert await member.decode(wide) == Undecodable("too_large")
        claims = b"\0" + b"\xfe\xff\xff\x7f" + b"\0" * 9
        assert await member.decode(claims) == Undecodable("truncated")

    with_member(play, TREE)


def test_memory_is_bounded_by_the_kernel():
    """Whatever the guard's arithmetic has overlooked: the schema here has not passed it."""

    async def play(member):
        schema = one_field({"type": "array", "items": {"type": "array", "items": "int"}})
        named = {}
        unguarded = pickle.dumps((parse_schema(schema, named), named, frozenset()))
        count = 4_000_000
        body = encode("long", count) + b"\0" * count + b"\0"
        assert await member.process.decode(unguarded, body) == Malformed("too_large")
        assert isinstance(await member.decode(chain(2)), Decoded)
        assert member.deaths == []

    with_member(play, record_s=60)


def test_one_branch_of_a_union_that_is_recursive_takes_no_other_apart():
    async def play(member):
        plain = member.decoder.decode(record_of(b"\0\x02"))
        assert isinstance(plain, Decoded)
        assert await member.decode(b"\x02" + chain(2)) == Decoded(2, {"next": {"next": None}})

    with_member(play, [one_field("long"), LIST])
