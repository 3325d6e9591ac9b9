"""The search of the canary test is worth something only if it finds what it looks for, in each form."""

import base64
import hashlib
import json
from ipaddress import ip_address
from urllib.parse import quote

import orjson
import pytest

from tests.support.canary import Search

AGENT = 'Canary/1.0 (X11; "quoted" Ünïx) Käfer\\5d2e'
MARKERS = {
    "agent": AGENT,
    "id": "c0ffee11-2222-4333-8444-feedfacecafe",
    "address": "198.51.100.77",
    "address6": "2001:db8:ca:a2::77",
    "secret": "s3cret/+canary==9c1e",
}
SEARCH = Search(MARKERS)


@pytest.mark.parametrize("name", MARKERS)
@pytest.mark.parametrize(
    "change",
    [
        str, str.upper, str.lower,
        lambda text: quote(text, safe=""),
        lambda text: quote(quote(text, safe=""), safe=""),
        lambda text: quote(text, safe="").lower(),
        json.dumps,
        lambda text: json.dumps({"body": json.dumps({"id": text})}),
        lambda text: orjson.dumps([text]).decode(),
        repr,
        lambda text: repr({"value": text.encode()}),
        lambda text: text.encode().hex().upper(),
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.b64encode(b"1" + text.encode() + b"tail").decode(),
        lambda text: base64.b64encode(b"12" + text.encode() + b"t").decode(),
        lambda text: base64.urlsafe_b64encode(b"\xff12" + text.encode()).decode(),
        lambda text: hashlib.md5(text.encode()).hexdigest(),
        lambda text: hashlib.sha1(text.upper().encode()).hexdigest(),
        lambda text: hashlib.sha256(text.encode()).hexdigest()[:16],
        lambda text: hashlib.sha256(text.lower().encode()).hexdigest().upper(),
        lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
    ],
)  # fmt: skip
def test_each_form_is_found(name: str, change) -> None:
    found = SEARCH(f'{{"event":"x","value":"{change(MARKERS[name])}"}}\n')
    assert any(what.startswith(f"{name},") for what in found)


@pytest.mark.parametrize(
    "text",
    [
        "2001:0db8:00ca:00a2:0000:0000:0000:0077", "20010db800ca00a20000000000000077", "3325256781", "c633644d",
        str(int(ip_address("2001:db8:ca:a2::77"))), "c0ffee11222243338444feedfacecafe",
    ],
)  # fmt: skip
def test_other_spellings_of_addresses_and_ids_are_found(text: str) -> None:
    assert SEARCH(f"x {text} y")


def test_bytes_that_are_no_text_are_searched() -> None:
    assert SEARCH(b"\xff\x00" + AGENT.encode() + b"\xfe")


def test_what_is_clean_is_clean() -> None:
    lines = [{"event": "progress", "consumed": n, "hash": hashlib.sha256(bytes(n)).hexdigest()} for n in range(500)]
    assert SEARCH("\n".join(map(json.dumps, lines)) + 'kochava_events_total{app="com.example/ios"} 198.51 canary') == []
