"""C8: whatever the faults did, no member's log and no metric tells what is in an event.

The values of all events begin alike, so a search for these beginnings, in each form, finds any of them. What has no
beginning, since it was hashed or made a number, is looked for word by word.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from random import Random

from consumer.sandbox.events import sample_event
from tests.support.canary import DIGEST_CHARS, HASHES, Search

EVENTS = 5000
"""As many as a schedule of 20 s has."""
_SEARCH = Search({
    "an install id": "install-00000000",
    "an advertising id": "11111111-2222-3333-4444-00000000",
    "a vendor id": "55555555-6666-7777-8888-00000000",
    "a Roku": "roku-00000000",
    "an address": "203.0.113.",
    "an address 6": "2001:db8::",
    "an address 6 in full": "2001:0db8:0000:",
    "an order": "order-00000000",
    **{f"a user agent of event {number}": str(sample_event(number, Random(0))["device"]["user_agent"])
       for number in range(4)},
    "Apple's user agent": "CFNetwork/",
    "a browser's user agent": "AppleWebKit/",
})  # fmt: skip
_WORD = re.compile(rb"[0-9a-f]{10,}")


def told(folder: Path) -> list[str]:
    """Return what the logs in *folder* tell of anybody, as violations."""
    words = _words()
    found = []
    for log in sorted(folder.glob("*.log")):
        text = log.read_bytes().lower()
        what = {
            *_SEARCH(text),
            *(words[word] for each in _WORD.findall(text) if (word := each[:DIGEST_CHARS]) in words),
        }
        found += [f"C8 {log.name} tells {each}" for each in sorted(what)]
    return found


@cache
def _words() -> dict[bytes, str]:
    """Return hashes and numbers of what is in events, and which event it is."""
    found: dict[bytes, str] = {}
    for number in range(EVENTS):
        for name, text in _values(number):
            for kind in HASHES:
                found[hashlib.new(kind, text.encode()).hexdigest()[:DIGEST_CHARS].encode()] = f"{kind} of {name}"
            if name == "an address":
                found[str(int(ip_address(text))).encode()[:DIGEST_CHARS]] = f"{name} as a number"
            if name == "an Android id":
                found[text.encode()] = name
    return found


def _values(number: int) -> Iterator[tuple[str, str]]:
    device = sample_event(number, Random(number))["device"]
    names = {"install_id": "an install id", "advertising_id": "an advertising id", "vendor_id": "a vendor id",
             "android_id": "an Android id", "udid": "a Roku", "ip": "an address"}  # fmt: skip
    for field, name in names.items():
        if device[field]:
            yield name, device[field]
