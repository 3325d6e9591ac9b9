"""What is wrong with a post-install event, by the contract with Kochava.

The contract is read here a second time, on purpose: a rule that the consumer misunderstood must not be misunderstood
here too. So this imports nothing of ours, and where it can it asks another library than the mapping does (`inet_pton`
for addresses, a pattern for percent-encoding). A finding names a rule and a place in the payload, never a value:
values are personal data.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha1
from socket import AF_INET, AF_INET6, inet_pton
from typing import Literal
from urllib.parse import unquote_to_bytes

from consumer.sandbox.consent import check_att, check_gdpr
from consumer.sandbox.findings import (
    ABSENT,
    FIRST_MILLISECOND,
    KEY_MAX_CHARS,
    Finding,
    check_text,
    compare_keys,
    mistyped,
)

_TOP = frozenset({"action", "kochava_app_id", "kochava_device_id", "data"})
_DATA_NEEDED = frozenset({"device_ids", "origination_ip", "device_ver", "device_ua", "event_name"})
_DATA_KNOWN = _DATA_NEEDED | {
    "app_tracking_transparency", "app_version", "currency", "device_limit_tracking", "event_data",
    "gdpr_privacy_consent", "usertime",
}  # fmt: skip
_APPLE, _ANDROID, _FIRE, _ROKU = 1, 2, 4, 8
_ANY = _APPLE | _ANDROID | _FIRE | _ROKU
_IDS = {
    "idfa": _APPLE, "idfv": _APPLE, "adid": _ANDROID, "android_id": _ANDROID | _FIRE, "fire_adid": _FIRE,
    "udid": _ROKU, "rida": _ROKU,
}  # fmt: skip
"""Keys of device_ids, each with the platforms that have it, as bits."""
_RESERVED = frozenset({
    "network", "source", "fb_campaign", "campaign", "site", "creative", "attribution_type", "integration_type",
    "integration_version", "cracked", "jailbroken",
})  # fmt: skip
_UNRESERVED = r"[A-Za-z0-9\-._~]"
# An escaped unreserved character is no canonical encoding, so `%41` is refused; so are lower-case hex digits.
_ENCODED = re.compile(rf"(?:{_UNRESERVED}|%(?!2[DE]|3[0-9]|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])[0-9A-F]{{2}})+")
_CURRENCY = re.compile(r"[A-Z]{3}")
_JSON_TYPE = re.compile(rb"application/json\s*(?:;\s*charset\s*=\s*\"?utf-8\"?\s*)?", re.IGNORECASE)
_CACHED_MAX_CHARS = 1024
_BARE_SLASH = re.compile(rb"(?<!\\)(?:\\\\)*/")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What strict authentication is checked with."""

    api_key: str
    app_secret: str


@dataclass(frozen=True, slots=True)
class Contract:
    """Where Kochava's pages leave room, and the consumer has a setting: what to expect."""

    device_ua: Literal["encoded", "raw"] = "encoded"
    usertime: Literal["seconds", "milliseconds"] = "seconds"
    require_device_id: bool = True
    """Also when kochava_device_id is there."""
    custom_ids: frozenset[str] = frozenset({"custom"})
    """Keys of device_ids agreed with the account team; on any platform."""
    credentials: Credentials | None = None
    """Given: every request must be signed."""


class Checker:
    """Finds what is wrong with one request."""

    def __init__(self, contract: Contract | None = None) -> None:
        self.contract = contract or Contract()
        self._platforms = dict.fromkeys(self.contract.custom_ids, _ANY) | _IDS

    def check(self, payload: object, headers: Mapping[bytes, bytes], body: bytes) -> list[Finding]:
        """Return every finding, in the order of the payload; none when all is well.

        *headers* have lower-case names; *body* is what *payload* was read from.
        """
        found: list[Finding] = []
        content_type = headers.get(b"content-type", b"")
        if content_type != b"application/json" and not _JSON_TYPE.fullmatch(content_type):
            found.append(Finding("content_type", "header Content-Type"))
        if self.contract.credentials is not None:
            _check_signature(found, self.contract.credentials, headers, body)
        if type(payload) is not dict:
            found.append(Finding("not_object", ""))
            return found
        if payload.keys() != _TOP:
            compare_keys(found, "", payload, _TOP, _TOP)
        if (action := payload.get("action", "event")) != "event":
            found.append(Finding("null_value" if action is None else "wrong_action", "action"))
        check_text(found, payload, "kochava_app_id", "")
        check_text(found, payload, "kochava_device_id", "", may_be_empty=True)
        data = payload.get("data", ABSENT)
        if type(data) is dict:
            self._check_data(found, data, payload.get("kochava_device_id"), headers.get(b"user-agent"))
            if self.contract.credentials is not None:
                empty = (key for key, value in data.items() if value == {})
                found += [Finding("auth_empty_object", f"data.{key[:KEY_MAX_CHARS]}") for key in empty]
        elif data is not ABSENT:
            found.append(mistyped(data, "data"))
        return found

    def _check_data(
        self, found: list[Finding], data: dict[str, object], install: object, user_agent: bytes | None
    ) -> None:
        if not data.keys() <= _DATA_KNOWN or not data.keys() >= _DATA_NEEDED:
            compare_keys(found, "data.", data, _DATA_NEEDED, _DATA_KNOWN)
        check_text(found, data, "event_name", "data.")
        check_text(found, data, "app_version", "data.")
        self._check_usertime(found, data)
        _check_ip(found, data)
        self._check_device(found, data, user_agent)
        if (currency := data.get("currency", ABSENT)) is not ABSENT:
            if type(currency) is not str:
                found.append(mistyped(currency, "data.currency"))
            elif not _CURRENCY.fullmatch(currency):
                found.append(Finding("invalid_currency", "data.currency"))
        limit = data.get("device_limit_tracking", True)
        if type(limit) is not bool and not (type(limit) is str and limit in {"true", "false"}):
            found.append(mistyped(limit, "data.device_limit_tracking"))
        is_apple = self._check_ids(found, data, install)
        check_att(found, data, is_apple)
        check_gdpr(found, data)
        _check_event_data(found, data)

    def _check_usertime(self, found: list[Finding], data: dict[str, object]) -> None:
        usertime = data.get("usertime", ABSENT)
        if usertime is ABSENT:
            return
        if type(usertime) is not int:
            found.append(mistyped(usertime, "data.usertime"))
        elif usertime < 0:
            found.append(Finding("negative_value", "data.usertime"))
        elif (usertime >= FIRST_MILLISECOND) is not (self.contract.usertime == "milliseconds"):
            found.append(Finding("usertime_unit", "data.usertime"))

    def _check_device(self, found: list[Finding], data: dict[str, object], user_agent: bytes | None) -> None:
        version, agent = data.get("device_ver", ABSENT), data.get("device_ua", ABSENT)
        if type(version) is not str:
            if version is not ABSENT:
                found.append(mistyped(version, "data.device_ver"))
        elif version and not _is_composed(version):
            found.append(Finding("device_ver_not_composed", "data.device_ver"))
        if type(agent) is not str:
            if agent is not ABSENT:
                found.append(mistyped(agent, "data.device_ua"))
        elif not agent:
            if version == "":
                found.append(Finding("device_ver_missing", "data.device_ver"))
            if user_agent != b"Unknown":
                found.append(Finding("user_agent_not_unknown", "header User-Agent"))
        else:
            if self.contract.device_ua == "encoded" and not _is_encoded(agent):
                found.append(Finding("device_ua_not_encoded", "data.device_ua"))
            if not user_agent:
                found.append(Finding("user_agent_missing", "header User-Agent"))
            elif user_agent == b"Unknown":
                found.append(Finding("user_agent_unknown", "header User-Agent"))

    def _check_ids(self, found: list[Finding], data: dict[str, object], install: object) -> bool | None:
        """Return whether the device is Apple's, as far as its ids tell."""
        ids = data.get("device_ids", ABSENT)
        if type(ids) is not dict:
            if ids is not ABSENT:
                found.append(mistyped(ids, "data.device_ids"))
            return None
        count, platforms = 0, _ANY
        for key, value in ids.items():
            platform = self._platforms.get(key)
            if platform is not None:
                platforms &= platform
            else:
                code = "device_id_case" if key.lower() in self._platforms else "unknown_device_id"
                found.append(Finding(code, f"data.device_ids.{key[:KEY_MAX_CHARS]}"))
            if type(value) is not str:
                found.append(mistyped(value, f"data.device_ids.{key[:KEY_MAX_CHARS]}"))
            elif not (trimmed := value.strip()):
                found.append(Finding("empty_device_id", f"data.device_ids.{key[:KEY_MAX_CHARS]}"))
            elif not trimmed.strip("0-"):
                found.append(Finding("zero_device_id", f"data.device_ids.{key[:KEY_MAX_CHARS]}"))
            else:
                count += 1
                if trimmed != value:
                    found.append(Finding("untrimmed_device_id", f"data.device_ids.{key[:KEY_MAX_CHARS]}"))
        if not count and (self.contract.require_device_id or not install):
            found.append(Finding("no_device_identifier", "data.device_ids"))
        if not platforms:
            found.append(Finding("mixed_platforms", "data.device_ids"))
        if platforms in {0, _ANY}:
            return None
        return platforms == _APPLE


def _check_ip(found: list[Finding], data: dict[str, object]) -> None:
    address = data.get("origination_ip", ABSENT)
    if type(address) is not str:
        if address is not ABSENT:
            found.append(mistyped(address, "data.origination_ip"))
        return
    try:
        packed = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except (OSError, ValueError):  # ValueError: a character that C cannot hold
        found.append(Finding("invalid_ip", "data.origination_ip"))
        return
    if not any(packed):
        found.append(Finding("unspecified_ip", "data.origination_ip"))


def _is_composed(version: str) -> bool:
    model, _, rest = version.partition("-")  # a part may hold hyphens itself, so there may be more than two
    middle, _, last = rest.rpartition("-")
    return bool(model.strip() and middle.strip("- ") and last.strip())


def _is_encoded(agent: str) -> bool:
    # Only short ones are remembered, so that the cache is bounded in bytes, too.
    return _is_encoded_cached(agent) if len(agent) <= _CACHED_MAX_CHARS else _is_encoded_cached.__wrapped__(agent)


@lru_cache(10_000)  # devices share user agents
def _is_encoded_cached(agent: str) -> bool:
    if not _ENCODED.fullmatch(agent):
        return False
    try:
        unquote_to_bytes(agent).decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_event_data(found: list[Finding], data: dict[str, object]) -> None:
    properties = data.get("event_data", ABSENT)
    if properties is ABSENT:
        return
    if type(properties) is not dict:
        found.append(mistyped(properties, "data.event_data"))
        return
    if not _RESERVED.isdisjoint(properties):
        found += [Finding("reserved_key", f"data.event_data.{key}") for key in properties if key in _RESERVED]
    for key, value in properties.items():
        if type(value) in {dict, list}:
            found.append(Finding("nested_value", f"data.event_data.{key[:KEY_MAX_CHARS]}"))
        elif value is None:
            found.append(Finding("null_value", f"data.event_data.{key[:KEY_MAX_CHARS]}"))


def _check_signature(
    found: list[Finding], credentials: Credentials, headers: Mapping[bytes, bytes], body: bytes
) -> None:
    digest = sha1(body, usedforsecurity=False).hexdigest()
    token = hmac.digest(credentials.api_key.encode(), f"{credentials.app_secret}{digest}".encode(), "sha256").hex()
    for name, wanted in ((b"kochava-api-key", credentials.api_key), (b"kochava-auth-token", token)):
        given = headers.get(name)
        path = f"header {name.decode().title()}"
        if given is None:
            found.append(Finding("auth_missing", path))
        elif not hmac.compare_digest(given, wanted.encode()):
            found.append(Finding("auth_wrong", path))
    if _BARE_SLASH.search(body):
        found.append(Finding("auth_slash", ""))
    if not body.isascii():
        found.append(Finding("auth_not_ascii", ""))
