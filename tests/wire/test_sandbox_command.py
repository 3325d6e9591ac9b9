"""`kochava-consumer sandbox` as its own process."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner

from consumer.cli.sandbox import command
from consumer.errors import SettingsError
from consumer.sandbox.behaviour import read_rules

SCRIPT = "from consumer.cli.sandbox import command; command()"


@contextmanager
def sandbox(tmp_path: Path, *options: str) -> Iterator[tuple[dict[str, Any], subprocess.Popen[bytes]]]:
    ready = tmp_path / "ready.json"
    arguments = [sys.executable, "-c", SCRIPT, "--port", "0", "--ready-file", str(ready), *options]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])
    try:
        while not ready.exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.02)
        yield json.loads(ready.read_bytes()), process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def send(url: str, body: bytes, context: ssl.SSLContext | None = None) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20, context=context) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_prints_its_summary(tmp_path: Path, number: signal.Signals) -> None:
    with sandbox(tmp_path) as (where, process):
        assert where["endpoint"] == f"{where['url']}/track/json"
        assert where["pid"] == process.pid
        assert json.loads(send(where["endpoint"], b"[]")) == {"success": "0", "error": "not_object"}
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert json.loads(out)["refused"] == 1
    assert err.decode() == f"taking events at {where['endpoint']}; more at {where['url']}/_sandbox\n", "no live line"


def test_https_rules_and_no_check(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "rules.json").write_text('[{"match": {"limit": 1}, "do": {"status": 503}}]')
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with sandbox(tmp_path, *options, "--rules", str(tmp_path / "rules.json"), "--no-check") as (where, _):
        assert where["url"].startswith("https://")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            send(where["endpoint"], b"[]", context)
        assert send(where["endpoint"], b"[]", context) == b'{"success":"1"}'


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")
def test_a_terminal_gets_a_live_line(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    ready = tmp_path / "ready.json"
    arguments = [sys.executable, "-c", SCRIPT, "--port", "0", "--ready-file", str(ready)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=theirs, cwd=Path(__file__).parents[2])
    try:
        os.close(theirs)
        seen = b""
        while b"duplicates" not in seen:
            seen += os.read(ours, 4096)
        assert b"accepted 0" in seen
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)


def test_help_teaches_with_rules_that_are_right() -> None:
    help_text = CliRunner().invoke(command, ["--help"]).output
    assert "curl -T rules.json" in help_text
    start, end = help_text.index("[{"), help_text.index("}}]") + 3
    assert [rule.match.share for rule in read_rules(help_text[start:end].encode())] == [None, 0.01, None]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--tls-cert", "cert.pem"), "--tls-cert and --tls-key go together"),
        (("--api-key", "k"), "--api-key and --app-secret go together"),
        (("--rules", "nowhere.json"), "cannot read nowhere.json"),
        (("--tls-cert", "nowhere.pem", "--tls-key", "nowhere.pem"), "cannot use nowhere.pem"),
        (("--latency-ms", "soon"), "latency: a latency is milliseconds, uniform:LOW:HIGH"),
        (("--host", "203.0.113.1"), "choose another --host or --port"),
    ],
)
def test_what_cannot_work_says_what_to_do(options: tuple[str, ...], hint: str) -> None:
    result = CliRunner().invoke(command, ["--port", "0", *options])
    assert result.exit_code != 0
    assert hint in (str(result.exception) if isinstance(result.exception, SettingsError) else result.output)
