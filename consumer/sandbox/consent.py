"""The checker's rules about consent: App Tracking Transparency on Apple devices, and Google's signals of the DMA."""

from consumer.sandbox.findings import ABSENT, FIRST_MILLISECOND, Finding, check_text, compare_keys, mistyped

_ATT = frozenset({"att", "att_time", "att_duration", "att_detail"})
_ATT_DETAILS = frozenset({"authorized", "denied", "notDetermined", "restricted"})
_GDPR_FLAGS = ("gdpr_applies", "ad_user_data", "ad_personalization")
_GDPR = frozenset({*_GDPR_FLAGS, "tc_string"})


def check_att(found: list[Finding], data: dict[str, object], is_apple: bool | None) -> None:
    path = "data.app_tracking_transparency"
    block = data.get("app_tracking_transparency", ABSENT)
    if block is ABSENT:
        if is_apple:
            found.append(Finding("att_missing", path))
        return
    if is_apple is False:
        found.append(Finding("att_not_apple", path))
    if type(block) is not dict:
        found.append(mistyped(block, path))
        return
    if "att" not in block or not block.keys() <= _ATT:
        compare_keys(found, f"{path}.", block, frozenset({"att"}), _ATT)
    att = block.get("att", ABSENT)
    if att is not ABSENT and type(att) is not bool:
        found.append(mistyped(att, f"{path}.att"))
    for key in ("att_time", "att_duration"):
        number = block.get(key, 0)
        if type(number) is not int:
            found.append(mistyped(number, f"{path}.{key}"))
        elif number < 0:
            found.append(Finding("negative_value", f"{path}.{key}"))
        elif number >= FIRST_MILLISECOND:  # both are in seconds, whatever usertime is in
            found.append(Finding("usertime_unit", f"{path}.{key}"))
    detail = block.get("att_detail", ABSENT)
    if detail is ABSENT:
        return
    if type(detail) is not str:
        found.append(mistyped(detail, f"{path}.att_detail"))
    elif detail not in _ATT_DETAILS:
        found.append(Finding("att_detail", f"{path}.att_detail"))
    elif type(att) is bool and att is not (detail == "authorized"):
        found.append(Finding("att_contradiction", f"{path}.att"))


def check_gdpr(found: list[Finding], data: dict[str, object]) -> None:
    path = "data.gdpr_privacy_consent"
    block = data.get("gdpr_privacy_consent", ABSENT)
    if block is ABSENT:
        return
    if type(block) is not dict:
        found.append(mistyped(block, path))
        return
    if not block.keys() <= _GDPR:
        compare_keys(found, f"{path}.", block, frozenset(), _GDPR)
    for key in _GDPR_FLAGS:
        flag = block.get(key, 0)
        if type(flag) is not int or not 0 <= flag <= 1:
            found.append(Finding("null_value" if flag is None else "gdpr_flag", f"{path}.{key}"))
    if "tc_string" in block:
        check_text(found, block, "tc_string", f"{path}.")
    elif "ad_user_data" not in block or "ad_personalization" not in block:
        found.append(Finding("gdpr_incomplete", path))
