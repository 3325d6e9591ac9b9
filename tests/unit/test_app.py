"""The process as a whole, without a broker: how it ends, the mark of a first start, and what it does now and then."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from consumer import app, watchdog
from consumer.adapters import kafka_source
from consumer.core.record import Record
from consumer.errors import ConsumerError, ExitCode, KafkaFatalError
from consumer.ports import ForwardProblem
from consumer.settings import Settings

SETTINGS = Settings.model_validate(
    {
        "kafka": {"bootstrap_servers": "nowhere:9092", "group_id": "g", "topics": ["events"], "start": "earliest"},
        "kochava": {"endpoint": "http://127.0.0.1/track", "apps": {"puzzle": {"guid": "guid-puzzle"}}},
        "admin": {"listen": ""},
    }
)


class FakeClock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0


class Forwarder:
    """Takes what the test has it report, one of `problems` each time, and then all."""

    def __init__(self, _conf: object, loop: asyncio.AbstractEventLoop, _failed: object) -> None:
        self._loop = loop
        self.problems: list[str] = []
        self.forwarded: list[tuple[str, Record, str | None]] = []

    def forward(self, topic: str, record: Record, _headers: object, reported: Callable[..., None]) -> None:
        problem = self.problems.pop(0) if self.problems else None
        self.forwarded.append((topic, record, problem))
        self._loop.call_soon(reported, None if problem is None else ForwardProblem(problem))

    def set_password(self, password: str) -> None: ...


class Forced(BaseException):
    """The process would be gone."""


class Deadline:
    """The watchdog's timer, which runs out when a test says so; and `os._exit`."""

    def __init__(self) -> None:
        self._timers: list[Any] = []

    def make(self, _deadline_s: float, bite: Callable[..., None], args: list[Any]) -> SimpleNamespace:
        timer = SimpleNamespace(bite=lambda: bite(*args), is_running=False)
        timer.start = lambda: setattr(timer, "is_running", True)
        timer.cancel = lambda: setattr(timer, "is_running", False)
        self._timers.append(timer)
        return timer

    @staticmethod
    def exit(code: int) -> None:
        raise Forced(ExitCode(code))

    def forced(self) -> ExitCode | None:
        """Return what the process would exit with if it hung here; None: it could hang for ever."""
        for timer in self._timers:
            if timer.is_running:
                try:
                    timer.bite()
                except Forced as ended:
                    return ended.args[0]
        return None


@pytest.fixture
def deadline(monkeypatch: pytest.MonkeyPatch) -> Deadline:
    deadline = Deadline()
    monkeypatch.setattr(watchdog, "threading", SimpleNamespace(Timer=deadline.make, Lock=threading.Lock))
    monkeypatch.setattr(watchdog, "os", SimpleNamespace(_exit=deadline.exit))
    monkeypatch.setattr(watchdog, "faulthandler", SimpleNamespace(dump_traceback=lambda **_: None))
    return deadline


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(app, "SystemClock", lambda: clock)
    return clock


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def member(
    loop: asyncio.AbstractEventLoop, clock: FakeClock, deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> app.Member:
    """One that was made, and does not run."""
    monkeypatch.setattr(app, "KafkaForwarder", Forwarder)
    return app.Member(SETTINGS, loop, shadow=False)


# -- the end by force


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (KafkaFatalError("the client cannot go on"), ExitCode.KAFKA),
        (ConsumerError("a callback failed"), ExitCode.BUG),
        (ZeroDivisionError(), ExitCode.BUG),
    ],
)
def test_a_sigterm_after_a_failure_leaves_its_code_and_is_the_first_one(
    member: app.Member, deadline: Deadline, failure: Exception, code: ExitCode
) -> None:
    """Excludes: whoever restarts it is told "forced", and not why; the first SIGTERM is taken for a second one."""
    member._fail(failure)
    assert deadline.forced() is code
    member._on_signal()
    assert deadline.forced() is code
    with pytest.raises(Forced) as ended:
        member._on_signal()
    assert ended.value.args == (ExitCode.FORCED,)


def test_an_end_without_a_failure_is_forced(member: app.Member, deadline: Deadline) -> None:
    member._on_signal()
    assert deadline.forced() is ExitCode.FORCED


class Client:
    """A Kafka client that owns nothing; `happens` in its poll, and its close may hang."""

    def __init__(self, happens: Callable[[], Any], closes: Callable[[], None]) -> None:
        self._happens = happens
        self.close = closes

    def subscribe(self, *_: object, **__: object) -> None: ...

    def poll(self, _timeout: float) -> Any:
        return self._happens()

    def consume(self, _most: int, _timeout: float) -> list[Any]:
        return []


def fatal_error() -> Any:
    return SimpleNamespace(error=lambda: KafkaError(KafkaError._FATAL), topic=lambda: None, partition=lambda: None)


def bug() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(("happens", "code"), [(fatal_error, ExitCode.KAFKA), (bug, ExitCode.BUG)])
def test_the_deadline_and_its_code_hold_from_the_clients_close_to_the_loops(
    deadline: Deadline, happens: Callable[[], Any], code: ExitCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are known to hang: the one after fatal errors, the other one for name lookups that have no end."""
    at_close: list[tuple[str, ExitCode | None]] = []

    class Loop(asyncio.SelectorEventLoop):
        def add_signal_handler(self, *_: object) -> None: ...

        def close(self) -> None:
            at_close.append(("loop", deadline.forced()))
            super().close()

    client = Client(happens, lambda: at_close.append(("client", deadline.forced())))
    monkeypatch.setattr(kafka_source, "make_client", lambda _kind, _conf: client)
    monkeypatch.setattr(app, "new_event_loop", Loop)
    # what belongs to the test's own process stays as it is
    monkeypatch.setattr(app, "gc", SimpleNamespace(collect=int, freeze=int, set_threshold=lambda *_: None))
    monkeypatch.setattr(app, "signal", SimpleNamespace(signal=lambda *_: None, SIG_IGN=None))
    monkeypatch.setattr(app, "resource", SimpleNamespace(setrlimit=lambda *_: None, RLIMIT_CORE=0))
    monkeypatch.setattr(app, "configure_logging", lambda *_: None)
    monkeypatch.setattr(app, "scrub_uncaught", lambda: None)
    with pytest.raises((KafkaFatalError, ZeroDivisionError)):
        app.run(SETTINGS, shadow=True)
    assert at_close == [("client", code), ("loop", code)]
    assert deadline.forced() is None, "all is done"


# -- the mark of a first start


def test_the_mark_of_a_first_start_is_written_until_it_is_there(
    member: app.Member, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Excludes: a group without a mark, which looks new when the broker has forgotten it."""
    monkeypatch.setattr(app, "TELL_S", 0)
    forwarder: Any = member._forwarder
    forwarder.problems = ["_QUEUE_FULL", "_MSG_TIMED_OUT", "UNKNOWN_TOPIC_OR_PART"]

    async def go_round() -> None:
        member._sources[0]._first_start()
        for _ in range(100):
            await asyncio.sleep(0)

    loop.run_until_complete(go_round())
    assert [problem for _, _, problem in forwarder.forwarded] == [
        "_QUEUE_FULL", "_MSG_TIMED_OUT", "UNKNOWN_TOPIC_OR_PART", None,
    ]  # fmt: skip
    assert {(topic, record.value) for topic, record, _ in forwarder.forwarded} == {("events.kochava.held", None)}


# -- now and then


def test_cycles_are_collected_at_intervals(
    member: app.Member, clock: FakeClock, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Excludes: what failed events leave in them stays until the threshold, which is high."""
    monkeypatch.setattr(app, "TICK_S", 0)

    class Cycle:
        def __init__(self) -> None:
            self.me = self

    async def ticks(seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            clock.now += 0.25
            await asyncio.sleep(0)

    async def look() -> None:
        ticking = asyncio.create_task(member._tick())
        await ticks(1)
        for _ in range(3):
            left = weakref.ref(Cycle())
            assert left() is not None, "nothing else collects"
            await ticks(app.COLLECT_S + 1)
            assert left() is None
        ticking.cancel()
        await asyncio.wait([ticking])

    gc.disable()
    try:
        loop.run_until_complete(look())
    finally:
        gc.enable()
