"""The event between mapping and payload: a company's record translated into the parts that Kochava knows.

The mapping (data, one file per company) fills it; `core.payload` (code, Kochava's rules) turns it into a body. Nothing
in here has been judged yet: values are as the source has them, only in the type that their place asks for.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class InAppEvent:
    """One in-app event in neutral terms. `None` is always "the source does not say"."""

    event_id: str | None = None
    app: str | None = None
    platform: str | None = None
    """As the source spells it; compared in lower case."""
    name: str | None = None
    time_ms: int | None = None
    """When the user acted, epoch milliseconds."""
    install_id: str | None = None
    """Always the same for one app install: `kochava_device_id`."""
    ip: str | None = None
    user_agent: str | None = None
    model: str | None = None
    os_name: str | None = None
    os_version: str | None = None
    app_version: str | None = None
    currency: str | None = None
    ids: dict[str, str] = field(default_factory=dict)
    """Device identifiers by neutral name: advertising_id, vendor_id, android_id, udid, rida, or a custom key."""
    att_status: str | None = None
    """authorized, denied, notDetermined or restricted; anything else counts as unknown."""
    att_time_s: int | None = None
    att_duration_s: int | None = None
    gdpr_applies: bool | None = None
    tc_string: str | None = None
    ad_user_data: bool | None = None
    ad_personalization: bool | None = None
    limit_tracking: bool | None = None
    properties: dict[str, object] = field(default_factory=dict)
    """Flat after mapping: str, int, float, bool."""
