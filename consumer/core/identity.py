"""Who the device is: its platform, the keys that Kochava knows its ids by, its address.

The platform comes from the event, never from which ids happen to be filled: an Android id in `idfa` is worse than none.
"""

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Literal, TypeAlias

Family: TypeAlias = Literal["apple", "android", "fire", "roku", "other"]

_FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        (
            "apple", "ios", "ipados", "iphoneos", "iphone", "ipad", "ipod", "ipodtouch", "tvos", "appletv", "watchos",
            "applewatch", "visionos", "xros", "macos", "macosx", "osx", "mac", "maccatalyst",
        ),
        "apple",
    ),
    **dict.fromkeys(("android", "androidos", "androidtv", "googletv", "wearos"), "android"),
    **dict.fromkeys(("fire", "fireos", "firetv", "firetvos", "firetablet", "amazon", "amazonfiretv", "kindle"), "fire"),
    **dict.fromkeys(("roku", "rokuos", "rokutv"), "roku"),
}  # fmt: skip

KEYS: dict[Family, dict[str, str]] = {
    "apple": {"advertising_id": "idfa", "vendor_id": "idfv"},
    "android": {"advertising_id": "adid", "android_id": "android_id"},
    "fire": {"advertising_id": "fire_adid", "android_id": "android_id"},
    "roku": {"udid": "udid", "rida": "rida"},
    "other": {},
}
"""Kochava's key for each neutral id name."""

_NEUTRAL = frozenset({"advertising_id", "vendor_id", "android_id", "udid", "rida"})
_ALL_KEYS = _NEUTRAL.union(*(keys.values() for keys in KEYS.values()))
_FOREIGN: dict[Family, frozenset[str]] = {
    family: _ALL_KEYS - frozenset(keys.values()) for family, keys in KEYS.items()
}  # fmt: skip
"""Names that mean another platform's id, or none here; every other name is a custom key and stays."""
_ZEROS = re.compile(r"[0\-:{}. ]*")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")


@lru_cache(maxsize=1024)
def family_of(platform: str | None) -> Family:
    """Return the family of a *platform*, however it is spelled (iOS, Apple TV, fire_os)."""
    return _FAMILIES.get(re.sub(r"[^a-z]", "", (platform or "").lower()), "other")


def device_ids(family: Family, ids: dict[str, str]) -> dict[str, str]:
    """Return the ids that say something, by Kochava's keys. Empty and all-zero ones say nothing."""
    keys, foreign = KEYS[family], _FOREIGN[family]
    found: dict[str, str] = {}
    for name, text in ids.items():
        key = keys.get(name)
        if key is None:
            if name in foreign or not name:
                continue
            key = name
        value = text.strip()
        if value and (value[0] not in "0{-:. " or not _ZEROS.fullmatch(value)):
            found[key] = value
    return found


def device_ip(text: str) -> str | None:
    """Return *text* as the device's address, one literal, or None if it can't be one."""
    text = text.strip()
    if _IPV4.fullmatch(text):
        return None if text == "0.0.0.0" else text  # noqa: S104 - compared, not bound
    return _device_ipv6(text)


@lru_cache(maxsize=16_384)
def _device_ipv6(text: str) -> str | None:
    if len(text) > 45 or "%" in text:  # the longest literal; a zone id means nothing outside of the device
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if not isinstance(address, IPv6Address):
        return None
    inner = address.ipv4_mapped or address
    return None if inner.is_unspecified else text
