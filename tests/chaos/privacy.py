"""C8: whatever the faults did, no member's log tells what is in an event."""

from pathlib import Path
from random import Random

from consumer.sandbox.events import sample_event
from tests.support.canary import Search

_DEVICES = [sample_event(number, Random(number))["device"] for number in range(60)]
_SAMPLES = {
    f"{name} of event {number}": text
    for number, device in enumerate(_DEVICES)
    for name, text in device.items()
    if name in {"install_id", "advertising_id", "vendor_id", "udid", "ip"} and text
}
_FAMILIES = (b"install-0", b"11111111-2222-3333-4444-", b"55555555-6666-7777-8888-", b"roku-0", b"203.0.113.",
             b"2001:db8::", b"cfnetwork", b"applewebkit", b"order-0")  # fmt: skip
"""What the samples of all events begin with or hold."""
_SEARCH = Search(_SAMPLES)


def told(folder: Path) -> list[str]:
    """Return what the logs in *folder* tell of anybody, as violations."""
    found = []
    for log in sorted(folder.glob("*.log")):
        text = log.read_bytes()
        what = _SEARCH(text) + [family.decode() for family in _FAMILIES if family in text.lower()]
        found += [f"C8 {log.name} tells {each}" for each in what]
    return found
