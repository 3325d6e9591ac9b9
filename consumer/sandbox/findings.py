"""The words of the checker: every finding it can have, and the questions that it asks of many keys."""

from typing import NamedTuple

FINDINGS = {
    "not_json": "the body isn't UTF-8 JSON",
    "not_object": "the body isn't a JSON object",
    "content_type": "the Content-Type isn't application/json",
    "missing_key": "a mandatory key isn't there",
    "unknown_key": "a key that the contract doesn't have, or has elsewhere",
    "null_value": "null is never sent; a mandatory key without a value is the empty string",
    "wrong_type": "a value of another JSON type than the contract's",
    "wrong_action": "the action isn't the literal `event`",
    "empty_value": "an empty string where the key should have a value or be left out",
    "no_device_identifier": "device_ids holds no identifier",
    "unknown_device_id": "a key of device_ids that no platform has",
    "device_id_case": "keys of device_ids are lower case",
    "empty_device_id": "an empty identifier is left out",
    "zero_device_id": "an all-zero identifier is left out",
    "untrimmed_device_id": "white space around an identifier",
    "mixed_platforms": "device_ids of different platforms in one event",
    "invalid_ip": "origination_ip isn't one IPv4 or IPv6 literal",
    "unspecified_ip": "origination_ip is 0.0.0.0 or ::",
    "device_ua_not_encoded": "device_ua isn't percent-encoded once by RFC 3986",
    "device_ver_missing": "without device_ua, device_ver must be composed",
    "device_ver_not_composed": "device_ver isn't <model>-<os>-<os version>",
    "user_agent_missing": "no User-Agent header",
    "user_agent_not_unknown": "without device_ua, the header must be `User-Agent: Unknown`",
    "user_agent_unknown": "with a device_ua, the User-Agent header is the sender's own",
    "usertime_unit": "usertime isn't in the expected unit",
    "negative_value": "a time or duration below zero",
    "invalid_currency": "currency isn't three upper-case letters",
    "att_missing": "an event of an Apple device without app_tracking_transparency",
    "att_not_apple": "app_tracking_transparency on a device that isn't Apple's",
    "att_detail": "att_detail isn't one of the four known words",
    "att_contradiction": "att is true for `authorized` only",
    "gdpr_flag": "a consent flag that isn't the number 0 or 1",
    "gdpr_incomplete": "consent without tc_string or both ad_user_data and ad_personalization",
    "nested_value": "event_data isn't flat",
    "reserved_key": "a key of event_data that Kochava keeps for itself",
    "auth_missing": "a header of strict authentication isn't there",
    "auth_wrong": "a header of strict authentication doesn't fit the key, the secret and the body",
    "auth_slash": "a signed body writes every slash as \\/",
    "auth_not_ascii": "a signed body is ASCII only",
    "auth_empty_object": "a signed body holds no empty object",
}
"""Every code, and what it means."""

FIRST_MILLISECOND = 100_000_000_000
"""Seconds stay below this until the year 5138; milliseconds are above it since March 1973."""
KEY_MAX_CHARS = 64
"""An unknown key is quoted no longer than this."""


class Finding(NamedTuple):
    """One thing that is wrong: a code of `FINDINGS`, and where."""

    code: str
    path: str

    def __str__(self) -> str:
        return f"{self.code} {self.path}".rstrip()


ABSENT = object()


def mistyped(value: object, path: str) -> Finding:
    return Finding("null_value" if value is None else "wrong_type", path)


def compare_keys(
    found: list[Finding], prefix: str, there: dict[str, object], needed: frozenset[str], known: frozenset[str]
) -> None:
    found += [Finding("missing_key", prefix + key) for key in sorted(needed - there.keys())]
    found += [Finding("unknown_key", prefix + key[:KEY_MAX_CHARS]) for key in there if key not in known]


def check_text(
    found: list[Finding], there: dict[str, object], key: str, prefix: str, *, may_be_empty: bool = False
) -> None:
    value = there.get(key, ABSENT)
    if type(value) is not str:
        if value is not ABSENT:
            found.append(mistyped(value, prefix + key))
    elif not may_be_empty and not value.strip():
        found.append(Finding("empty_value", prefix + key))
