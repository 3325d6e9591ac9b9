"""A company's schema as unlike ours as can be: an enveloped event with everything that Avro has."""

from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Envelope",
    "namespace": "io.busy.v3",
    "fields": [
        {
            "name": "meta",
            "type": {
                "type": "record",
                "name": "Meta",
                "fields": [
                    {"name": "uid", "type": {"type": "fixed", "name": "Uid", "size": 16}},
                    {"name": "trace", "type": {"type": "string", "logicalType": "uuid"}},
                    {"name": "at_ns", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
                    {"name": "sent", "type": "string"},
                    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
                ],
            },
        },
        {
            "name": "who",
            "type": [
                "null",
                "string",
                {
                    "type": "record",
                    "name": "Device",
                    "fields": [
                        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["PHONE_A", "PHONE_I"]}},
                        {
                            "name": "ids",
                            "type": {
                                "type": "array",
                                "items": {
                                    "type": "record",
                                    "name": "DeviceId",
                                    "fields": [
                                        {"name": "type", "type": "string"},
                                        {"name": "raw", "type": ["bytes", "string"]},
                                    ],
                                },
                            },
                        },
                        {"name": "addresses", "type": {"type": "array", "items": {"type": "array", "items": "string"}}},
                        {"name": "agent", "type": ["string", "null"]},
                    ],
                },
            ],
        },
        {"name": "consent", "type": {"type": "map", "values": ["null", "string", "int"]}},
        {
            "name": "body",
            "type": [
                {
                    "type": "record",
                    "name": "Sale",
                    "fields": [
                        {
                            "name": "money",
                            "type": {
                                "type": "record",
                                "name": "Money",
                                "fields": [
                                    {
                                        "name": "units",
                                        "type": {
                                            "type": "fixed",
                                            "name": "Units",
                                            "size": 12,
                                            "logicalType": "decimal",
                                            "precision": 28,
                                            "scale": 9,
                                        },
                                    },
                                    {"name": "code", "type": "string"},
                                ],
                            },
                        },
                        {"name": "refunded", "type": ["null", "Money"]},
                        {"name": "gift", "type": "boolean"},
                    ],
                },
                {"type": "record", "name": "Step", "fields": [{"name": "name", "type": "string"}]},
                "null",
            ],
        },
    ],
}

MAPPING = """
[[type]]
records = ["io.busy.v3.Envelope", "io.busy.v2.Envelope"]

event_id = { path = "meta.uid", as = "uuid" }
app = { constant = "busy" }
platform = { path = "who<Device>.kind", lookup = "kinds", otherwise = "reject" }
name = { first = [
  { constant = "Purchase", when = { path = "body<Sale>", exists = true } },
  { path = "body<io.busy.v3.Step>.name", lookup = "names" },
] }
time = { first = ["meta.at_ns", "meta.sent"] }
install_id = { join = [{ constant = "busy" }, "meta.trace"], separator = ":" }
ip = { first = ["who.addresses[0][1]", "who.addresses[0][0]"] }
user_agent = "who.agent"
currency = { first = ["body.money.code", "body.refunded.code"] }
att_status = { path = "consent.tracking", as = "lower", lookup = "tracking", otherwise = "drop" }
gdpr_applies = "consent.gdpr"
ad_user_data = { path = "consent.ads", lookup = "yes_no", otherwise = "reject" }
ad_personalization = { path = "consent.ads", lookup = "yes_no", otherwise = "reject" }

[type.ids]
vendor_id = 'who.ids[type="IDFV"].raw<string>'
android_id = { path = 'who.ids[type="SSAID"].raw<bytes>', as = "hex" }

[type.properties]
from = ["body<Sale>"]
separator = "_"
rename = { money_units = "sum", money_code = "currency" }
drop = ["refunded_*"]

[type.properties.add]
day = "meta.day"
refund = { path = "body.refunded.units", as = ["number", "text"] }

[[type.filter]]
when = { all = [{ part = "name", prefix = "internal." }, { not = { path = "consent.force", equals = 1 } }] }
reason = "internal_step"

[lookup.kinds]
PHONE_A = "android"
PHONE_I = "ios"
[lookup.names]
finish = "Tutorial Complete"
[lookup.tracking]
granted = "authorized"
[lookup.yes_no]
Y = true
N = false
"""


def datum(**changes: Any) -> dict[str, Any]:
    """Return a sale on a phone."""
    return {
        "meta": {
            "uid": bytes(range(16)),
            "trace": UUID(int=7),
            "at_ns": 1719830400123456789,
            "sent": "2024-07-01T10:40:00Z",
            "day": date(2024, 7, 1),
        },
        "who": {
            "kind": "PHONE_I",
            "ids": [{"type": "SSAID", "raw": b"\xff\x01"}, {"type": "IDFV", "raw": "599F9C00"}],
            "addresses": [["10.0.0.1", "203.0.113.7"]],
            "agent": "Busy/3",
        },
        "consent": {"tracking": "Granted", "gdpr": 1, "ads": "Y"},
        "body": {
            "money": {"units": Decimal("12345678901234567.123456789"), "code": "jpy"},
            "refunded": None,
            "gift": True,
        },
        **changes,
    }
