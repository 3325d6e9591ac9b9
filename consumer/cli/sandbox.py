"""`kochava-consumer sandbox`: the stand-in Kochava on a port, with its counts on the terminal."""

import asyncio
import gc
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import orjson

from consumer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext

    from consumer.sandbox.server import Sandbox

LIVE_INTERVAL_S = 1.0


@click.command(
    short_help="A stand-in Kochava that checks, counts and misbehaves.",
    epilog="""\b
Examples:
  kochava-consumer sandbox                          listen on http://127.0.0.1:8080
  kochava-consumer sandbox --latency-ms 20          every answer takes 20 ms
  kochava-consumer sandbox --latency-ms lognormal:20:0.8
  kochava-consumer sandbox --on-finding record      count what is wrong, but accept it
  kochava-consumer sandbox --no-check --quiet       as fast as it can, for benchmarks
  kochava-consumer sandbox --rules rules.json

\b
Let the consumer send to it:
  [kochava]
  endpoint = "http://127.0.0.1:8080/track/json"

\b
Ask it, and tell it, while it runs:
  curl 127.0.0.1:8080/_sandbox/summary              totals; /_sandbox lists the rest
  curl 127.0.0.1:8080/_sandbox/ledger               every event id with what became of it
  curl -T rules.json 127.0.0.1:8080/_sandbox/rules  other rules from now on

\b
Rules are a JSON list; the first that matches decides:
  [{"name": "purchases succeed on the second try",
    "match": {"event": "Purchase", "first_tries": 1},
    "do": {"status": 503, "headers": {"Retry-After": "2"}}},
   {"name": "1 % doubtful",
    "match": {"share": 0.01},
    "do": {"action": "reset_after"}},
   {"name": "one app is not let in",
    "match": {"app": "koexample-ios-1a2b3c"},
    "do": {"status": 401, "latency_ms": "uniform:5:50"}}]

\b
  match  app, event, id, id_prefix, share (0 to 1), first_tries (of each id), limit (in all)
  do     action: answer, refuse, html, redirect, reset_before, reset_after (the event was accepted), hang
         status, headers, body; latency_ms; early_hints (103 first); drip_ms (one byte each); close: announced, silent
         accepted: true or false, whatever is answered

\b
A certificate for https:
  openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost \\
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out cert.pem""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free one.")
@click.option("--tls-cert", type=click.Path(path_type=Path, dir_okay=False), help="Serve https with this chain (PEM).")
@click.option("--tls-key", type=click.Path(path_type=Path, dir_okay=False), help="Its private key (PEM).")
@click.option("--rules", type=click.Path(path_type=Path, dir_okay=False), help="How to misbehave (JSON).")
@click.option("--latency-ms", default="0", show_default=True, metavar="MS|uniform:LOW:HIGH|lognormal:MEDIAN:SIGMA",
              help="Of every answer that no rule delays.")  # fmt: skip
@click.option("--on-finding", type=click.Choice(["refuse", "record"]), default="refuse", show_default=True,
              help="An event that breaks the contract is answered so and not accepted, or only counted.")  # fmt: skip
@click.option("--no-check", is_flag=True, help="Don't check payloads at all.")
@click.option("--device-ua", type=click.Choice(["encoded", "raw"]), default="encoded", show_default=True,
              help="How the consumer is set to send user agents.")  # fmt: skip
@click.option("--usertime", type=click.Choice(["seconds", "milliseconds"]), default="seconds", show_default=True,
              help="In which unit it is set to send the time.")  # fmt: skip
@click.option("--optional-device-id", is_flag=True, help="kochava_device_id alone identifies an install.")
@click.option("--custom-id", multiple=True, default=["custom"], show_default=True, metavar="KEY",
              help="A key of device_ids agreed with Kochava; repeatable.")  # fmt: skip
@click.option("--api-key", envvar="SANDBOX_API_KEY", help="Demand strict authentication with this key ...")
@click.option("--app-secret", envvar="SANDBOX_APP_SECRET", help="... and this made-up secret.")
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--ledger-max-entries", default=5_000_000, show_default=True, type=click.IntRange(0),
              help="Event ids that the ledger has room for.")  # fmt: skip
@click.option("--log-max-entries", default=200_000, show_default=True, type=click.IntRange(1),
              help="Requests that the log remembers.")  # fmt: skip
@click.option("--ready-file", type=click.Path(path_type=Path, dir_okay=False),
              help="Write where it listens into this file (JSON), once it does.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="No live line; there is none without a terminal either.")
def command(**options: Any) -> None:
    """Run a stand-in Kochava: it takes events at /track/json, says what is wrong with them, and keeps a ledger.

    Without rules it accepts every event that keeps to the contract. SIGINT and SIGTERM end it; it then prints its
    summary and exits with 0.
    """
    sandbox = _make(options)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(sandbox, options["ready_file"], is_live=not options["quiet"] and sys.stderr.isatty()))
    click.echo(orjson.dumps(sandbox.summary(), option=orjson.OPT_INDENT_2).decode())


def _make(options: dict[str, Any]) -> "Sandbox":
    from consumer.sandbox.behaviour import read_rules  # noqa: PLC0415 - `--help` must be quick
    from consumer.sandbox.checker import Checker, Contract, Credentials  # noqa: PLC0415
    from consumer.sandbox.server import Sandbox  # noqa: PLC0415

    api_key, app_secret = options["api_key"], options["app_secret"]
    if (api_key is None) is not (app_secret is None):
        raise click.UsageError("--api-key and --app-secret go together")
    contract = Contract(
        device_ua=options["device_ua"],
        usertime=options["usertime"],
        require_device_id=not options["optional_device_id"],
        custom_ids=frozenset(options["custom_id"]),
        credentials=None if api_key is None else Credentials(api_key, app_secret),
    )
    on_finding: Literal["refuse", "record"] = options["on_finding"]
    return Sandbox(
        options["host"],
        options["port"],
        ssl=_tls(options["tls_cert"], options["tls_key"]),
        rules=() if options["rules"] is None else read_rules(_read(options["rules"])),
        latency_ms=options["latency_ms"],
        checker=None if options["no_check"] else Checker(contract),
        on_finding=on_finding,
        seed=options["seed"],
        ids_max_entries=options["ledger_max_entries"],
        log_max_entries=options["log_max_entries"],
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError([f"cannot read {path}: {error.strerror}"]) from None


def _tls(certificate: Path | None, key: Path | None) -> "SSLContext | None":
    import ssl  # noqa: PLC0415 - plain http does without

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError("--tls-cert and --tls-key go together; --help shows how to make them")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # SSLError is one
        raise SettingsError([f"cannot use {certificate} with {key}: {error.strerror or error}"]) from None
    return context


def _loop_factory() -> "Callable[[], asyncio.AbstractEventLoop] | None":
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


def _raise_file_limit() -> None:
    """Allow as many connections as the system lets us."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not on Windows

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # then it stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(sandbox: "Sandbox", ready_file: Path | None, *, is_live: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await sandbox.start()
    except OSError as error:
        raise SettingsError([f"cannot listen: {error.strerror}; choose another --host or --port"]) from None
    _raise_file_limit()
    # The ledger only grows and holds no cycles; looking for some again and again costs more than all else.
    gc.set_threshold(200_000, 50, 1000)
    try:
        click.echo(f"taking events at {sandbox.endpoint}; more at {sandbox.url}/_sandbox", err=True)
        if ready_file is not None:
            where = {"url": sandbox.url, "endpoint": sandbox.endpoint, "pid": os.getpid()}
            fresh = ready_file.with_name(f"{ready_file.name}.new")
            fresh.write_bytes(orjson.dumps(where))
            fresh.replace(ready_file)  # whoever waits for the file never sees half of it
        if is_live:
            await _show(sandbox, stop)
        await stop.wait()
    finally:
        await sandbox.close()


async def _show(sandbox: "Sandbox", stop: asyncio.Event) -> None:
    """Keep one line up to date until *stop*."""
    before, then = 0, time.monotonic()
    while not stop.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LIVE_INTERVAL_S)
        ledger, now = sandbox.ledger, time.monotonic()
        rate = max(ledger.requests - before, 0) / (now - then)  # a reset starts from 0 again
        before, then = ledger.requests, now
        parts = [
            f"{rate:>8,.0f}/s",
            click.style(f"accepted {ledger.accepted:,}", fg="green"),
            click.style(f"refused {ledger.refused:,}", fg="red" if ledger.refused else None),
            click.style(f"duplicates {ledger.duplicates:,}", fg="yellow" if ledger.duplicates else None),
            f"connections {sandbox.connections_open:,}",
        ]
        click.echo("\r\x1b[2K" + "   ".join(parts), err=True, nl=False)
    click.echo(err=True)
