"""Nobody's data in the log (I10): what a line may say, whoever writes it, however it goes wrong."""

import ast
import io
import logging
import re
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

import orjson
import pytest
import structlog
from hypothesis import given, strategies as st

import consumer
from consumer.telemetry import (
    Repeated,
    UncataloguedError,
    configure_logging,
    frames_of,
    kafka_logger,
    log,
    scrub_uncaught,
)
from consumer.telemetry.events import EVENTS
from consumer.telemetry.logs import MAX_REPEATED, MAX_TEXT_CHARS
from consumer.telemetry.reference import reference

CANARY = "CANARY-8f2c"
ROOT = Path(consumer.__file__).parent


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, config = root.handlers, root.level, structlog.get_config()
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield
    root.handlers, (sys.excepthook, sys.unraisablehook, threading.excepthook) = handlers, hooks
    root.setLevel(level)
    structlog.configure(**config)


@pytest.fixture(params=["json", "console"])
def stream(request: pytest.FixtureRequest) -> io.StringIO:
    stream = io.StringIO()
    configure_logging("debug", request.param, stream)
    return stream


@pytest.fixture
def lines() -> "Lines":
    return Lines()


class Lines:
    """The log as JSON, read back."""

    def __init__(self, *, strict: bool = False) -> None:
        self.stream = io.StringIO()
        configure_logging("debug", "json", self.stream, strict=strict)

    def all(self) -> list[dict[str, object]]:
        return [orjson.loads(line) for line in self.stream.getvalue().splitlines()]

    def only(self) -> dict[str, object]:
        (line,) = self.all()
        return line


def fail_with_data() -> None:
    device_id = CANARY
    raise ValueError(f"cannot decode {device_id}")


class Secretive(Enum):
    DEVICE = CANARY

    def __str__(self) -> str:
        return CANARY


class TestCanary:
    """Wrong designs excluded: a denylist, rendering values by str or repr, tracebacks with text or locals."""

    def test_fields_that_are_not_listed(self, stream: io.StringIO) -> None:
        log.info("consumer.assigned", partitions=2, device_id=CANARY, **{CANARY: 1})
        assert "partitions" in stream.getvalue()
        assert CANARY not in stream.getvalue()

    @pytest.mark.parametrize(
        "value",
        [
            {"device": {"id": CANARY}}, [CANARY], (CANARY,), {CANARY}, CANARY.encode(), ValueError(CANARY),
            Secretive.DEVICE, Path(CANARY), memoryview(CANARY.encode()),
        ],
    )  # fmt: skip
    def test_listed_fields_with_anything_but_plain_values(self, stream: io.StringIO, value: object) -> None:
        log.info("consumer.assigned", partitions=value)
        assert "[redacted]" in stream.getvalue()
        assert CANARY not in stream.getvalue()

    def test_exceptions_with_data_in_text_locals_cause_and_notes(self, stream: io.StringIO) -> None:
        try:
            try:
                fail_with_data()
            except ValueError as error:
                error.add_note(CANARY)
                raise RuntimeError(CANARY) from error
        except RuntimeError as error:
            log.exception("callback.failed", callback="assign")
            log.error("callback.failed", callback="assign", exc_info=error)
        assert stream.getvalue().count("RuntimeError") == 2
        assert CANARY not in stream.getvalue()

    def test_words_in_place_of_an_event(self, stream: io.StringIO) -> None:
        log.warning("could not send %s", CANARY)
        log.warning(f"could not send {CANARY}")
        assert stream.getvalue().count("[redacted]") == 2
        assert CANARY not in stream.getvalue()

    def test_an_event_that_is_not_in_the_catalogue_goes_out_bare(self, stream: io.StringIO) -> None:
        log.warning("delivery.surprised", partitions=CANARY, reason=CANARY)
        assert "delivery.surprised" in stream.getvalue()
        assert CANARY not in stream.getvalue()

    def test_libraries(self, stream: io.StringIO) -> None:
        logging.getLogger("httpx").info("HTTP Request: POST https://user:%s@host/", CANARY)
        logging.getLogger("httpcore").debug(CANARY)
        assert stream.getvalue() == ""
        logging.getLogger("httpx").warning("https://user:%s@host/", CANARY)
        try:
            fail_with_data()
        except ValueError:
            logging.getLogger("asyncio").exception("Exception in callback %r", CANARY, extra={"device": CANARY})
        kafka_logger().log(logging.WARNING, "%s [%s] %s", "FAIL", CANARY, f"sasl_ssl://{CANARY}: refused")
        kafka_logger().warning(CANARY)
        text = stream.getvalue()
        assert "httpx" in text
        assert "ValueError" in text
        assert "FAIL" in text
        assert CANARY not in text

    def test_what_nobody_caught(self, stream: io.StringIO, capfd: pytest.CaptureFixture[str]) -> None:
        scrub_uncaught()
        thread = threading.Thread(target=fail_with_data)
        thread.start()
        thread.join()

        class Broken:
            def __del__(self) -> None:
                fail_with_data()

        Broken()
        try:
            fail_with_data()
        except ValueError as error:
            sys.excepthook(ValueError, error, error.__traceback__)
        for where in ("thread", "unraisable", "main"):
            assert where in stream.getvalue()
        assert stream.getvalue().count("fail_with_data") == 3
        assert CANARY not in stream.getvalue() + "".join(capfd.readouterr())

    def test_before_anything_is_configured(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A command that forgets to configure must not get structlog's own default, which prints every field."""
        structlog.reset_defaults()
        del sys.modules["consumer.telemetry.logs"]
        try:
            from consumer.telemetry.logs import log as fresh

            fresh.info("consumer.assigned", partitions=1)
            fresh.warning("kafka.error", reason="_TRANSPORT", device=CANARY)
        finally:
            sys.modules["consumer.telemetry.logs"] = sys.modules["consumer.telemetry"].logs
        printed = capsys.readouterr()
        assert orjson.loads(printed.err)["reason"] == "_TRANSPORT"
        assert CANARY not in printed.err + printed.out

    @given(
        st.sampled_from(sorted(EVENTS)),
        st.dictionaries(st.text(), st.recursive(st.text() | st.integers() | st.floats() | st.none() | st.binary(),
            lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text(), of, max_size=3)), max_size=5),
    )  # fmt: skip
    def test_any_fields_make_one_line_of_json_with_listed_fields_only(self, event: str, fields: dict) -> None:
        lines = Lines()
        names = EVENTS[event].fields
        listed = dict(zip(names, fields.values(), strict=False))
        taken = {"event", "self", "exc_info", "stack_info"}
        log.info(event, **{name: of for name, of in fields.items() if name not in taken} | listed)
        assert lines.only().keys() <= {"ts", "level", "event", "service", "version", "error_type", "frames", *names}
        assert lines.stream.getvalue().rstrip("\n").isprintable()


class TestALine:
    def test_says_when_what_and_who(self, lines: Lines) -> None:
        log.info("offset.resolved", topic="events", partition=3, offset=17, rule=None)
        line = lines.only()
        when = datetime.fromisoformat(str(line.pop("ts")))
        assert when.tzinfo == UTC
        assert line == {
            "level": "info", "event": "offset.resolved", "service": "kochava-consumer", "version": consumer.__version__,
            "topic": "events", "partition": 3, "offset": 17, "rule": None,
        }  # fmt: skip

    def test_tells_an_error_by_type_and_place(self, lines: Lines) -> None:
        try:
            fail_with_data()
        except ValueError as error:
            log.exception("callback.failed", callback="assign")
            frames = frames_of(error)
        line = lines.only()
        assert line["error_type"] == "ValueError"
        assert line["frames"] == frames
        assert re.fullmatch(
            r"test_telemetry_logs\.py:\d+:test_tells_an_error_by_type_and_place "
            r"test_telemetry_logs\.py:\d+:fail_with_data",
            frames,
        )

    def test_names_what_caused_an_error(self, lines: Lines) -> None:
        error = SystemError("data")
        error.__cause__ = KeyError("data")
        error.__cause__.__cause__ = error.__cause__  # a ring ends, too
        log.error("callback.failed", callback="assign", exc_info=error)
        assert lines.only()["error_type"] == "SystemError from KeyError from KeyError from KeyError"

    def test_keeps_the_innermost_frames_of_a_deep_error(self) -> None:
        def dig(depth: int) -> None:
            dig(depth - 1) if depth else fail_with_data()

        with pytest.raises(ValueError, match=CANARY) as caught:
            dig(100)
        frames = frames_of(caught.value).split(" ")
        assert len(frames) == 12
        assert frames[-1].endswith(":fail_with_data")

    @pytest.mark.parametrize("text", ["a\nb", "\x1b[2Jgone", "\ud800", "\u202eback", "\x00"])
    def test_is_one_line_and_commands_no_terminal(self, stream: io.StringIO, text: str) -> None:
        log.warning("kafka.error", reason=text, count=1)
        assert stream.getvalue().count("\n") == 1
        assert stream.getvalue()[:-1].isprintable()

    def test_is_bounded(self, lines: Lines) -> None:
        log.warning("kafka.error", reason="x" * 5000, count=2**70)
        line = lines.only()
        assert line["reason"] == "x" * MAX_TEXT_CHARS + "…"
        assert line["count"] == "[redacted]"

    def test_below_the_level_is_left_out(self) -> None:
        stream = io.StringIO()
        configure_logging("warning", "json", stream)
        log.debug("event.held", reason="x")
        log.info("consumer.assigned", partitions=1)
        log.warning("consumer.lost", partitions=1)
        assert stream.getvalue().count("\n") == 1

    def test_auto_is_for_people_on_a_terminal_only(self) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        for stream, is_json in ((io.StringIO(), True), (Terminal(), False)):
            configure_logging("info", "auto", stream)
            log.info("consumer.assigned", partitions=1)
            assert stream.getvalue().startswith("{") is is_json
            assert "consumer.assigned" in stream.getvalue()

    def test_an_unknown_level_is_refused(self) -> None:
        with pytest.raises(ValueError, match="debug, info, warning, error"):
            configure_logging("chatty", "json", io.StringIO())


class TestAStreamThatFails:
    """A log that can't be written must not stop the work."""

    def test_a_closed_file_or_pipe_drops_the_line(self) -> None:
        class Broken(io.StringIO):
            def flush(self) -> None:
                raise BrokenPipeError

        closed = io.StringIO()
        for stream in (Broken(), closed):
            configure_logging("info", "json", stream)
            closed.close()
            log.error("shutdown.forced", reason="deadline", exit_code=6)

    def test_a_thread_stuck_in_a_write_does_not_stop_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The watchdog logs before it ends the process; a full pipe must not keep it from that."""
        monkeypatch.setattr("consumer.telemetry.logs.WRITE_TIMEOUT_S", 0.01)
        is_stuck, go_on = threading.Event(), threading.Event()

        class Full(io.StringIO):
            def write(self, text: str) -> int:
                is_stuck.set()
                go_on.wait()
                return super().write(text)

        stream = Full()
        configure_logging("info", "json", stream)
        stuck = threading.Thread(target=log.info, args=["shutdown.finished"], daemon=True)
        stuck.start()
        is_stuck.wait()
        log.error("shutdown.forced", reason="deadline", exit_code=6)  # returns
        go_on.set()
        stuck.join()
        assert "shutdown.finished" in stream.getvalue()


class TestStrict:
    def test_raises_for_what_the_catalogue_does_not_know(self) -> None:
        lines = Lines(strict=True)
        with pytest.raises(UncataloguedError, match=r"consumer\.asigned"):
            log.info("consumer.asigned", partitions=1)
        with pytest.raises(UncataloguedError, match="device_id"):
            log.info("consumer.assigned", partitions=1, device_id="x")
        log.error("callback.failed", callback="assign", error_type="ValueError", exc_info=ValueError())
        assert lines.only()["callback"] == "assign"


class TestRepeated:
    def test_the_first_then_one_per_interval_with_their_count(self) -> None:
        repeated = Repeated(interval_s=10.0)
        assert [repeated.due("a", now) for now in (0.0, 1.0, 9.9, 10.0, 10.1, 20.0, 90.0)] == [1, 0, 0, 3, 0, 2, 1]

    def test_each_kind_for_itself(self) -> None:
        repeated = Repeated()
        assert [repeated.due(what, 5.0) for what in "aba"] == [1, 1, 0]

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 30)), max_size=60))
    def test_no_occurrence_is_told_twice_or_forgotten(self, steps: list[tuple[str, float]]) -> None:
        repeated, now, told = Repeated(), 0.0, 0
        for what, passed in steps:
            now += passed
            told += repeated.due(what, now)
        told += sum(repeated.due(what, now + 100) - 1 for what in {what for what, _ in steps})
        assert told == len(steps)

    def test_kinds_are_bounded(self) -> None:
        repeated = Repeated()
        due = [repeated.due(str(number), 1.0) for number in range(MAX_REPEATED + 5)]
        assert sum(due) == MAX_REPEATED + 1
        assert repeated.due("one more", 20.0) == 5

    def test_warnings_of_libraries_are_limited_by_place(self, lines: Lines) -> None:
        for number in range(50):
            logging.getLogger("asyncio").warning("slow %s", number)
        logging.getLogger("asyncio").error("elsewhere")
        assert [line["level"] for line in lines.all()] == ["warning", "error"]


def _log_calls() -> Iterator[tuple[str, ast.Call, str]]:
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=method)) if method in {
                    "debug", "info", "warning", "error", "exception", "critical", "log",
                }:  # fmt: skip
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node, method


@pytest.mark.parametrize(("place", "call", "method"), [pytest.param(*of, id=of[0]) for of in _log_calls()])
def test_every_line_of_the_code_is_in_the_catalogue(place: str, call: ast.Call, method: str) -> None:
    name = call.args[0]
    names = [name.body, name.orelse] if isinstance(name, ast.IfExp) else [name]
    for each in names:
        assert isinstance(each, ast.Constant), f"{place}: an event's name stands where it is logged"
        assert each.value in EVENTS, f"{place}: add {each.value} to telemetry.events"
        event = EVENTS[each.value]
        assert {"exception": "error"}.get(method, method) == event.level
        fields = {keyword.arg for keyword in call.keywords if keyword.arg}
        unknown = fields - {*event.fields, "error_type", "frames", "exc_info", "version"}
        assert not unknown, f"{place}: fields that would be dropped"


def test_the_page_is_made_of_the_catalogues() -> None:
    page = ROOT.parent / "docs" / "telemetry.md"
    assert page.read_text() == reference(), "python -m consumer.telemetry.reference > docs/telemetry.md"


def test_names_and_fields_of_events_are_plain() -> None:
    for name, event in EVENTS.items():
        assert re.fullmatch(r"[a-z]+(\.[a-z_]+)?", name)
        assert event.meaning.endswith(".")
        assert len(set(event.fields)) == len(event.fields)
        assert all(re.fullmatch(r"[a-z_]+", of) for of in event.fields)
