"""Who the device is: its platform, the keys that Kochava knows its ids by, its address.

The platform comes from the event, never from which ids happen to be filled: an Android id in `idfa` is worse than none.
"""

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Literal, TypeAlias

Family: TypeAlias = Literal["apple", "android", "fire", "roku", "other"]

_APPLE = {"ios", "ipados", "iphoneos", "iphone", "ipad", "ipod", "ipodtouch", "tvos", "appletv", "watchos", "visionos",
          "macos", "osx", "apple"}  # fmt: skip
_FAMILIES: dict[str, Family] = {
    **dict.fromkeys(_APPLE, "apple"),
    **dict.fromkeys(("android", "androidtv", "googletv", "wearos"), "android"),
    **dict.fromkeys(("fireos", "firetv", "fire", "amazon", "kindle"), "fire"),
    **dict.fromkeys(("roku", "rokuos"), "roku"),
}

KEYS: dict[Family, dict[str, str]] = {
    "apple": {"advertising_id": "idfa", "vendor_id": "idfv"},
    "android": {"advertising_id": "adid", "android_id": "android_id"},
    "fire": {"advertising_id": "fire_adid", "android_id": "android_id"},
    "roku": {"udid": "udid"},
    "other": {},
}
"""Kochava's key for each neutral id name. Names that are none of the neutral ones are custom keys and stay."""

_NEUTRAL = frozenset({"advertising_id", "vendor_id", "android_id", "udid"})
_ZEROS = re.compile(r"[0\-:{}. ]*")


@lru_cache(maxsize=1024)
def family_of(platform: str | None) -> Family:
    """Return the family of a *platform*, however it is spelled (iOS, Apple TV, fire_os)."""
    return _FAMILIES.get(re.sub(r"[^a-z]", "", (platform or "").lower()), "other")


def device_ids(family: Family, ids: dict[str, str]) -> dict[str, str]:
    """Return the ids that say something, by Kochava's keys. Empty and all-zero ones say nothing."""
    keys = KEYS[family]
    found: dict[str, str] = {}
    for name, text in ids.items():
        key = keys.get(name) or (None if name in _NEUTRAL else name)
        if key is None or not text:
            continue
        value = text.strip()
        if value and (value[0] not in "0{-" or not _ZEROS.fullmatch(value)):
            found[key] = value
    return found


@lru_cache(maxsize=65_536)
def device_ip(text: str) -> str | None:
    """Return *text* as the device's address, one literal, or None if it can't be one."""
    text = text.strip()
    if "%" in text:  # a zone id means nothing outside of the device
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if address.is_unspecified else text
