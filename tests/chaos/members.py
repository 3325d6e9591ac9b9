"""The members of one run: started, killed, told to end, buried."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from random import Random

from tests.chaos.history import Exit, Fault, Owned, Place, Said, Sent, Written
from tests.support.processes import ConsumerProcess, Setup

DEADLINE_S = 8 + 5 + 2 + 5
"""Drain, close and what the watchdog adds, as `Setup` sets them; and a busy machine."""
TOLD = {"offset.commit_failed", "kafka.brokers_forgotten"}
"""Log events that are told."""
TOLD_LATE = {"consumer.drained", "shutdown.drained"}
"""Those that are told when the drain wasn't in time."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Members:
    """All processes of a run. Those that are `frozen` are left alone by other faults."""

    MOMENTS = {"answered": 500, "settled": 20, "stored": 60, "mapped": 8, "acknowledged": 10}  # noqa: RUF012 - constant
    """Where `member.py` can kill, and by how many calls at most."""

    def __init__(self, setup: Setup, faults: list[Fault], wrong: str | None, options: tuple[str, ...] = ()) -> None:
        self._setup = setup
        self._faults = faults
        self._wrong = wrong
        self._options = options
        self._processes: dict[str, ConsumerProcess] = {}
        self._told: dict[str, tuple[float, int]] = {}
        self._started: list[str] = []
        self.frozen: set[str] = set()
        self.exits: list[Exit] = []
        self.peak_rss_mib: dict[str, float] = {}

    # -- who there is

    @property
    def names(self) -> list[str]:
        """Those that run and weren't told to end."""
        self._bury()
        return [name for name in self._processes if name not in self._told]

    def any(self, draw: Random, *, that_listens: bool = False) -> str | None:
        """Choose one that nothing else happens to; *that_listens*: so far started that it hears signals."""
        names = [name for name in self.names if name not in self.frozen]
        if that_listens:
            names = [name for name in names if (self._setup.folder / f"{name}.log").stat().st_size]
        return draw.choice(names) if names else None

    def pid(self, name: str) -> int | None:
        process = self._processes[name].process if name in self._processes else None
        return None if process is None else process.pid

    # -- what is done to them

    def start(self, *, kill_at: str | None = None) -> ConsumerProcess:
        name = f"member-{len(self._started) + 1}"
        self._started.append(name)
        member = ConsumerProcess(self._setup, name, (), self._setup.environment)
        options = ["--journal", str(self._journal(name)), "--clock", str(self._clock(name)), *self._options]
        if self._wrong is not None:
            options += ["--wrong", self._wrong]
        if kill_at is not None:
            options += ["--kill-at", kill_at]
        member.module = ("tests.chaos.member", *options)
        self._processes[name] = member.start()
        return member

    def kill(self, name: str) -> None:
        self._look_at_memory(name)
        self._processes.pop(name).kill()
        self._told.pop(name, None)

    def signal(self, name: str, number: int) -> None:
        if name in self._processes:
            with suppress(ProcessLookupError):
                self._processes[name].signal(number)

    def set_clock(self, name: str, offset_ms: int) -> None:
        """Let the wall clock of *name* be wrong by *offset_ms*."""
        self._clock(name).write_text(str(offset_ms))
        if name not in self._told:  # while an interpreter ends, signals have no handlers any more
            self.signal(name, signal.SIGUSR2)

    def tell_to_end(self, name: str) -> None:
        if name in self._processes:
            self._look_at_memory(name)
            self._told.setdefault(name, (time.monotonic(), now_ms()))
            self.signal(name, signal.SIGTERM)

    def has_ended(self, name: str) -> bool:
        """Say whether *name* is gone; one that doesn't end in twice its time is killed."""
        self._bury()
        if name in self._told and time.monotonic() - self._told[name][0] > 2 * DEADLINE_S:
            self._processes[name].signal(signal.SIGABRT)  # prints where it hangs
            time.sleep(1)
            self._processes[name].kill()
            self._bury()
        return name not in self._processes

    def end_all(self) -> None:
        for name in [*self._processes]:
            self.tell_to_end(name)
        while not all([self.has_ended(name) for name in [*self._processes]]):  # noqa: C419 - each is looked at
            time.sleep(0.05)

    def kill_all(self) -> None:
        for member in self._processes.values():
            member.kill()

    def _bury(self) -> None:
        """Note who has ended: because it was told to, at his moment, or for a reason of his own."""
        for name, member in [*self._processes.items()]:
            assert member.process is not None
            code = member.process.poll()
            if code is None:
                self._look_at_memory(name)
                continue
            del self._processes[name]
            since, since_ms = self._told.pop(name, (time.monotonic(), now_ms()))
            if code == -signal.SIGKILL and time.monotonic() - since <= 2 * DEADLINE_S:
                at_ms = _last_write_ms(member)
                self._faults.append(Fault(at_ms, at_ms, "killed at a moment", name, "crash"))
            else:
                self.exits.append(Exit(since_ms, name, code, time.monotonic() - since, DEADLINE_S))

    def _look_at_memory(self, name: str) -> None:
        with suppress(OSError):
            status = Path(f"/proc/{self.pid(name)}/status").read_text()
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    self.peak_rss_mib[name] = int(line.split()[1]) / 1024

    # -- what they tell afterwards

    def owned(self) -> list[Owned]:
        """Return who owned what, as the members themselves wrote it down."""
        return [
            Owned(at_ms, who, topic, partition, is_owned=what == "owns")
            for who, at_ms, what, topic, partition, _ in self._journals()
            if what in {"owns", "leaves"}
        ]

    def sent(self) -> list[Sent]:
        return [
            Sent(at_ms, who, (topic, partition, offset))
            for who, at_ms, what, topic, partition, offset in self._journals()
            if what == "sends"
        ]

    def written(self) -> list[Written]:
        """Return what was given to a connection, and when it was given up, if it was."""
        found: list[Written] = []
        last: dict[tuple[str, Place], int] = {}
        for who, at_ms, what, topic, partition, offset in self._journals():
            key = who, (topic, partition, offset)
            if what == "writes":
                last[key] = len(found)
                found.append(Written(at_ms, *key, None))
            elif what == "gives up" and key in last:
                found[last[key]] = found[last[key]]._replace(given_up_ms=at_ms)
        return found

    def _journals(self) -> Iterator[tuple[str, int, str, str, int, int]]:
        for name in self._started:
            with suppress(FileNotFoundError):
                for line in self._journal(name).read_text().splitlines():
                    with suppress(json.JSONDecodeError):  # a line that was cut by a kill
                        yield name, *json.loads(line)

    def said(self) -> list[Said]:
        found = []
        for name in self._started:
            for line in (self._setup.folder / f"{name}.log").read_text(errors="replace").splitlines():
                with suppress(json.JSONDecodeError, KeyError, TypeError):
                    logged = json.loads(line)
                    event = logged["event"]
                    if event in TOLD or (event in TOLD_LATE and not logged["in_time"]):
                        at_ms = round(datetime.fromisoformat(logged["ts"]).timestamp() * 1000)
                        found.append(Said(at_ms, name, event))
        return found

    def _journal(self, name: str) -> Path:
        return self._setup.folder / f"{name}.journal"

    def _clock(self, name: str) -> Path:
        return self._setup.folder / f"{name}.clock"


def _last_write_ms(member: ConsumerProcess) -> int:
    """Return about when a process ended that killed itself: it logs its progress each second, at least."""
    return round(member.log_file.stat().st_mtime * 1000)
