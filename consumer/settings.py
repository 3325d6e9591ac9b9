"""Every knob, typed, with its unit. From one TOML file and the environment; refused with every problem at once.

The environment beats the file. Secrets may come from files (`<key>_file`, `..._FILE`). Nothing in here prints a value:
a problem names the key and says what to do.
"""

import re
from datetime import datetime
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from consumer import __version__
from consumer.core.duration import parse_duration_s
from consumer.secret_file import SecretFile

M = TypeVar("M")

PREFIX = "KOCHAVA_CONSUMER_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"

_SIZE = re.compile(r"(\d+)\s*(B|KB|MB|GB|KiB|MiB|GiB)?")
_PRINTABLE = re.compile(r"[!-~]*")
_UNITS = {None: 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _size(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError('write a size such as "32MiB", or a number of bytes')
    return int(match[1]) * _UNITS[match[2]]


def _moment(value: object) -> object:
    if isinstance(value, datetime):
        moment = value
    elif value in ("earliest", "latest"):  # a tuple: anything may stand here, also what has no hash
        return value
    else:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            raise ValueError('write "earliest", "latest" or an ISO time such as 2026-11-01T00:00:00Z') from None
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone: add Z, or an offset such as +01:00")
    return moment


def _tier(label: str) -> str:
    seconds = parse_duration_s(label)
    if not seconds:
        raise ValueError('write a delay such as "30s", "5m" or "1h"')
    return label


Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
PerSecond = Annotated[float, Field(ge=0.001, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Start = Annotated[Literal["earliest", "latest"] | datetime, BeforeValidator(_moment)]
Tier = Annotated[str, AfterValidator(_tier)]


def _header_text(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and not _PRINTABLE.fullmatch(secret.get_secret_value()):
        raise ValueError("it is sent in a header, so it must be printable ASCII on one line")
    return secret


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


OWNED_PROPERTIES = {
    "bootstrap.servers": "set kafka.bootstrap_servers",
    "metadata.broker.list": "set kafka.bootstrap_servers",
    "group.id": "set kafka.group_id",
    "group.protocol": "set kafka.group_protocol",
    "session.timeout.ms": "set kafka.session_timeout_ms",
    "heartbeat.interval.ms": "it follows from kafka.session_timeout_ms",
    "max.poll.interval.ms": "set kafka.max_poll_interval_ms",
    "auto.commit.interval.ms": "set kafka.auto_commit_interval_ms",
    "statistics.interval.ms": "set kafka.statistics_interval_ms",
    "enable.auto.commit": "the commit rule depends on it",
    "auto.commit.enable": "the commit rule depends on it",
    "enable.auto.offset.store": "the commit rule depends on it",
    "auto.offset.reset": "it must stay error: any other value skips records in silence; set kafka.start",
    "isolation.level": "aborted records must not be sent",
    "partition.assignment.strategy": "it must stay cooperative-sticky",
    "enable.partition.eof": "the reader doesn't expect it",
    "enable.idempotence": "a record must reach the retry topic once",
    "acks": "a record must be on all in-sync replicas before it is settled",
    "request.required.acks": "a record must be on all in-sync replicas before it is settled",
    "allow.auto.create.topics": "topics are made by kochava-consumer topics --create",
    "message.max.bytes": "it must be above what the source topic can hold",
    "batch.size": "it keeps batches below what the broker takes",
}
"""librdkafka properties that are ours, and why, or what to set instead."""

_INSECURE = {
    "enable.ssl.certificate.verification": {"false", "f", "0"},  # as librdkafka reads a boolean
    "ssl.endpoint.identification.algorithm": {"none"},
    "enable.sasl.oauthbearer.unsecure.jwt": {"true", "t", "1"},
}
SECRET_PROPERTIES = frozenset({
    "sasl.password", "ssl.key.password", "ssl.key.pem", "ssl.keystore.password", "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.config",
    "sasl.oauthbearer.assertion.private.key.passphrase", "sasl.oauthbearer.assertion.private.key.pem",
})  # fmt: skip


class Kafka(_Section):
    bootstrap_servers: str = Field(min_length=1, description="Brokers to begin with, host:port, separated by commas.")
    group_id: str = Field(min_length=1, description="The consumer group. Its offsets are the only state there is.")
    topics: tuple[str, ...] = Field(min_length=1, description="Source topics, by name.")
    start: Start = Field(
        description="Where a group without any commit starts: earliest, latest, or an ISO time with a zone. "
        "Partitions that appear later start at their beginning."
    )
    group_protocol: Literal["classic", "consumer"] = Field(
        "classic", description='"consumer" is KIP-848, for brokers from 4.0 on.'
    )
    client: dict[str, str | int | float | bool | SecretStr] = Field(
        default_factory=dict,
        description="Any other librdkafka property; secrets also as `<property>_file`. JSON in the environment.",
    )
    sasl_password: SecretStr | None = Field(
        None, description="librdkafka's sasl.password. Its file is followed while the process runs."
    )
    allow_insecure: bool = Field(
        False, description="Permit properties that switch TLS verification off, and a password in the clear."
    )
    session_timeout_ms: Count = Field(
        45_000, description="How long a dead member keeps its partitions (classic protocol), milliseconds."
    )
    max_poll_interval_ms: Count = Field(300_000, description="Longer than the drain, milliseconds.")
    auto_commit_interval_ms: Count = Field(
        1_000, description="How often what settled is committed: bounds what a crash sends again, milliseconds."
    )
    statistics_interval_ms: Count = Field(
        10_000,
        le=60_000,
        description="How often lag, and whether the client knows brokers, is looked at, milliseconds.",
    )
    committed_budget_s: Seconds = Field(
        60, description="How long to wait for committed offsets before stopping, seconds."
    )
    batch_max_records: Count = Field(500, description="Records of one read.")
    batch_max_wait_ms: Count = Field(50, description="How long one read waits for a first record, milliseconds.")

    def client_properties(self) -> dict[str, Any]:
        """Return the people's own librdkafka properties, secrets read."""
        given = {**self.client, **({"sasl.password": self.sasl_password} if self.sasl_password is not None else {})}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in given.items()
        }

    @property
    def password_file(self) -> SecretFile | None:
        """Where the password for SASL comes from, if it is a file."""
        password = self.sasl_password or self.client.get("sasl.password")
        return password if isinstance(password, SecretFile) and "sasl.username" in self.client else None

    @property
    def insecure(self) -> tuple[str, ...]:
        """Properties by which somebody could listen in, or pass for a broker."""
        client = {name: str(value).lower() for name, value in self.client.items()}
        found = [name for name, value in client.items() if value in _INSECURE.get(name, set())]
        mechanism = client.get("sasl.mechanism", client.get("sasl.mechanisms"))
        if client.get("security.protocol") == "sasl_plaintext" and mechanism == "plain":
            found.append("security.protocol")
        return tuple(found)

    @model_validator(mode="after")
    def _properties_are_allowed(self) -> Self:
        problems = []
        for name, value in self.client.items():
            if name in OWNED_PROPERTIES:
                problems.append(f'kafka.client."{name}" is ours: {OWNED_PROPERTIES[name]}')
            elif name.endswith("_cb"):
                problems.append(f'kafka.client."{name}": callbacks are ours')
            elif name == "debug" and {"all", "msg", "fetch", "protocol"} & {
                part.strip() for part in str(value).split(",")
            }:
                problems.append('kafka.client."debug": msg, fetch, protocol and all would log records; use broker,cgrp')
        if not self.allow_insecure:
            problems += [
                f'kafka.client."{name}" '
                + ("sends the password in the clear" if name == "security.protocol" else "switches a check off")
                + ": set kafka.allow_insecure = true to mean it"
                for name in self.insecure
            ]
        if self.session_timeout_ms >= self.max_poll_interval_ms:
            problems.append("kafka.session_timeout_ms must be below kafka.max_poll_interval_ms")
        return _raise(self, problems)


class Schemas(_Section):
    registry_url: str | None = Field(None, description="A Confluent-compatible schema registry.")
    registry_username: str | None = Field(None, description="Basic authentication at the registry.")
    registry_password: SecretStr | None = Field(None, description="Basic authentication at the registry.")
    registry_token: SecretStr | None = Field(None, description="Bearer authentication at the registry.")
    ca_file: Path | None = Field(None, description="Certificate authorities of the registry, PEM.")
    request_timeout_s: Seconds = Field(10, description="One request to the registry, seconds.")
    allow_insecure: bool = Field(False, description="Permit a registry over plain http beyond loopback.")
    directory: Path | None = Field(
        None, description="A folder of .avsc files instead of, or beside, a registry; by default the built-in ones."
    )
    wire: Literal["confluent", "single_object", "plain"] = Field(
        "confluent", description="How a record names its schema: Confluent's id, Avro's fingerprint, or not at all."
    )
    plain: Path | None = Field(None, description='The .avsc of all records, with wire = "plain".')
    max_record_bytes: Bytes = Field(1 << 20, description="Larger values are dead letters, bytes.")
    max_schema_bytes: Bytes = Field(1 << 20, description="Larger schemas are refused, bytes.")
    unknown_id_confirm_s: Seconds = Field(
        30, description="An id must be unknown for so long before its records are dead letters, seconds."
    )
    cache_schemas: Count = Field(1_000, description="Schemas kept in memory.")
    allow_recursive: bool = Field(
        False, description="Take schemas with types that contain themselves; their records are decoded in a child."
    )

    _token_fits = field_validator("registry_token")(_header_text)

    @model_validator(mode="after")
    def _one_way_to_read(self) -> Self:
        problems = []
        if self.registry_url is not None:
            problems += url_problems("schemas.registry_url", self.registry_url, insecure=self.allow_insecure)
        if (self.registry_username is None) != (self.registry_password is None):
            problems.append("schemas.registry_username and schemas.registry_password go together: set both or neither")
        if self.registry_token is not None and self.registry_username is not None:
            problems.append("schemas.registry_token and schemas.registry_username exclude one another: remove one")
        if (self.wire == "plain") != (self.plain is not None):
            problems.append('schemas.plain and schemas.wire = "plain" go together: set both or neither')
        return _raise(self, problems)


class Mapping_(_Section):  # noqa: N801 - Mapping is a type of the standard library
    file: Path | None = Field(None, description="The mapping file; by default the built-in one, which fits schemas/.")
    event_id: str | None = Field(
        None, description="Where the event id is, instead of where the mapping file says; sent as event_data.event_id."
    )
    other_types: Literal["ignore", "dead_letter"] = Field(
        "ignore", description="What becomes of record types that the mapping doesn't name."
    )


class App(_Section):
    guid: str = Field(min_length=1, description="The App GUID that Kochava gave this app on this platform.")
    enabled: bool = Field(True, description="false: its events are held, not sent, not lost.")
    max_per_s: PerSecond | None = Field(None, description="Requests per second for this app, of this process.")
    burst: Count | None = Field(None, description="Requests at once within max_per_s; by default a tenth of a second.")
    api_key: SecretStr | None = Field(None, description="Strict authentication: the API key.")
    app_secret: SecretStr | None = Field(None, description="Strict authentication: the app secret.")

    _key_fits = field_validator("api_key")(_header_text)

    @model_validator(mode="after")
    def _key_and_secret(self) -> Self:
        problems = []
        if (self.api_key is None) != (self.app_secret is None):
            problems.append("api_key and app_secret go together: set both or neither")
        if self.burst is not None and self.max_per_s is None:
            problems.append("burst says how many of max_per_s may come at once: set max_per_s, too")
        return _raise(self, problems)


class Kochava(_Section):
    endpoint: str = Field("https://control.kochava.com/track/json", description="Where events are posted.")
    allow_insecure: bool = Field(False, description="Permit plain http beyond loopback, and private addresses.")
    ca_file: Path | None = Field(None, description="Certificate authorities of the endpoint, PEM; else the machine's.")
    user_agent: str = Field(
        f"kochava-consumer/{__version__}", pattern=r"^[!-~]([ -~]*[!-~])?$", description="Our own User-Agent."
    )
    unknown_app: Literal["dead_letter", "filter", "hold"] = Field(
        "dead_letter", description="What becomes of events of apps that are not listed."
    )
    require_device_id: bool = Field(
        True, description="Refuse events without any device id; false: a kochava_device_id will do."
    )
    device_ver: Literal["empty", "composed"] = Field("empty", description="device_ver when the user agent is known.")
    device_ua: Literal["encoded", "raw"] = Field("encoded", description="Percent-encode the user agent, or not.")
    usertime: Literal["seconds", "milliseconds"] = Field("seconds", description="Unit of usertime.")
    reserved_keys: Literal["drop", "reject"] = Field("drop", description="Reserved keys in event_data.")
    max_event_keys: Literal["warn", "reject"] = Field("warn", description="More than 16 keys in event_data.")
    default_currency: str | None = Field(
        None, pattern=r"^[A-Za-z]{3}$", description="ISO 4217 code for events that name none; by default none is sent."
    )
    apps: dict[str, App] = Field(
        default_factory=dict,
        description='By "<app>/<platform>" or "<app>"; the first beats the second. JSON in the environment.',
    )

    @model_validator(mode="after")
    def _endpoint_and_apps(self) -> Self:
        problems = url_problems("kochava.endpoint", self.endpoint, insecure=self.allow_insecure)
        if not self.apps and self.unknown_app == "dead_letter":
            problems.append(
                "kochava.apps is empty and kochava.unknown_app is dead_letter: every event would be a dead letter. "
                'Add [kochava.apps."<app>/<platform>"] with its guid'
            )
        problems += [
            f'kochava.apps."{key}": write "<app>/<platform>" or "<app>"'
            for key in self.apps
            if not key.strip("/") or key.count("/") > 1 or key.startswith("/") or key.endswith("/")
        ]
        return _raise(self, problems)


class Delivery(_Section):
    transport: Literal["fast", "httpx"] = Field("fast", description="The HTTP client; httpx for what is unusual.")
    proxy: str | None = Field(None, description="An HTTP proxy; chooses httpx.")
    max_in_flight_records: Count = Field(1_024, description="Records in memory.")
    max_in_flight_bytes: Bytes = Field(32 << 20, description="Bytes of records in memory.")
    max_span_records: Count = Field(
        100_000, description="Offsets between a stalled record and the last one read, per partition."
    )
    connections: Count = Field(512, description="Connections to the endpoint, and requests on their way.")
    adaptive_concurrency: bool = Field(
        True, description="Find out how many requests the endpoint takes; else as many as there are connections."
    )
    min_connections: Count = Field(8, description="Requests on their way that are always allowed.")
    max_per_s: PerSecond | None = Field(None, description="Requests per second, of all apps and of this process.")
    burst: Count | None = Field(None, description="Requests at once within max_per_s; by default a tenth of a second.")
    slow_app_share: Share = Field(
        0.125, description="Share of the requests on their way for an app that answers slowly while others don't."
    )
    retry_share: Share = Field(
        0.2, description="Further tries of an app, of its first ones; beyond it, failing events go to the retry tiers."
    )
    order: Literal["none", "key"] = Field(
        "none", description="key: events of one key are sent one after another (not across our topics)."
    )
    connect_timeout_s: Seconds = Field(5, description="Name, connection and TLS together, seconds.")
    request_timeout_s: Seconds = Field(8, description="One request, waiting for a connection included, seconds.")
    idle_timeout_s: Seconds = Field(15, description="An unused connection is closed after, seconds.")
    max_connection_age_s: Seconds = Field(300, description="A connection is closed after, seconds.")
    max_attempts: Count = Field(4, description="Tries before a record goes to the next retry tier.")
    backoff_initial_s: Seconds = Field(
        0.25, description="The longest first pause between tries (full jitter), seconds."
    )
    backoff_max_s: Seconds = Field(5, description="The longest pause between tries, seconds.")
    retry_after_cap_s: Seconds = Field(3_600, description="The most that a Retry-After is believed, seconds.")
    retry_budget_s: Seconds = Field(20, description="All tries of a record before the next retry tier, seconds.")
    drain_timeout_s: Seconds = Field(25, description="What is on its way may end, when partitions leave, seconds.")
    close_timeout_s: Seconds = Field(8, description="Committing and leaving the group, seconds.")

    @model_validator(mode="after")
    def _bounds_nest(self) -> Self:
        rules = [
            (
                self.connect_timeout_s <= self.request_timeout_s,
                "connect_timeout_s must not be above",
                "request_timeout_s",
            ),
            (self.request_timeout_s < self.retry_budget_s, "request_timeout_s must be below", "retry_budget_s"),
            (self.retry_budget_s < self.drain_timeout_s, "retry_budget_s must be below", "drain_timeout_s"),
            (self.backoff_initial_s <= self.backoff_max_s, "backoff_initial_s must not be above", "backoff_max_s"),
            (
                self.min_connections <= self.connections or "min_connections" not in self.model_fields_set,
                "min_connections must not be above",
                "connections",
            ),
            (self.connections <= self.max_in_flight_records, "connections must not be above", "max_in_flight_records"),
            (
                self.max_span_records >= self.max_in_flight_records,
                "max_span_records must not be below",
                "max_in_flight_records",
            ),
        ]
        problems = [f"delivery.{what} delivery.{than}" for holds, what, than in rules if not holds]
        if self.burst is not None and self.max_per_s is None:
            problems.append("delivery.burst says how many of delivery.max_per_s may come at once: set that, too")
        if self.proxy is not None and _host_of(self.proxy) is None:
            problems.append("delivery.proxy: write a URL such as http://host:3128")
        if self.proxy is not None and self.transport == "fast" and "transport" in self.model_fields_set:
            problems.append(
                'delivery.proxy needs delivery.transport = "httpx": the fast one goes straight to the endpoint'
            )
        return _raise(self, problems)


class Breaker(_Section):
    window_answers: Count = Field(100, description="Last answers that decide.")
    min_answers: Count = Field(20, description="Answers before it may open on failing ones.")
    failing_share: Share = Field(0.5, description="Share of failing answers that opens it.")
    unconfirmed_window: Count = Field(1_000, description="Last answers that decide over unconfirmed ones.")
    unconfirmed_share: Share = Field(0.01, description="Share of 2xx answers that we do not understand that opens it.")
    probe_initial_s: Seconds = Field(1, description="First probe after opening; the pause doubles, seconds.")
    probe_max_s: Seconds = Field(30, description="The longest pause between probes, seconds.")


class Lane(_Section):
    waiting_records: Count = Field(64, description="Records of a refused app that wait in memory.")
    waiting_s: Seconds = Field(20, description="How long they wait before they are held, seconds.")
    probe_initial_s: Seconds = Field(5, description="First probe after a 401 or 403; the pause doubles, seconds.")
    probe_max_s: Seconds = Field(60, description="The longest pause between probes, seconds.")
    held_sweep_s: Seconds = Field(60, description="How often the held topic is read, less often in vain, seconds.")


class Retry(_Section):
    tiers: tuple[Tier, ...] = Field(("30s", "5m", "1h"), min_length=1, description="Delays of the retry topics.")
    topic_prefix: str = Field(
        "", description="Our topics are <prefix>.retry.<tier>, .held, .dead-letter.  [default: <first topic>.kochava]"
    )

    @model_validator(mode="after")
    def _tiers_grow(self) -> Self:
        delays = [parse_duration_s(tier) or 0 for tier in self.tiers]
        if any(later <= earlier for earlier, later in pairwise(delays)):
            raise ValueError("retry.tiers must grow, such as 30s, 5m, 1h")
        return self


class DeadLetter(_Section):
    max_share: Share = Field(0.05, description="More dead letters than this among the last records stop reading.")
    window_records: Count = Field(10_000, description="The last records that decide.")
    min_dead_letters: Count = Field(100, description="Fewer dead letters than these never stop reading.")


class Dedup(_Section):
    window_records: int = Field(
        0,
        ge=0,
        description="An event whose id is among the last so many delivered from its partition is filtered; 0: off.",
    )


class Admin(_Section):
    listen: str = Field("127.0.0.1:9464", description="host:port of probes and metrics; empty for none.")

    @model_validator(mode="after")
    def _is_an_address(self) -> Self:
        host, colon, port = self.listen.rpartition(":")
        if self.listen and not (colon and host and port.isdecimal() and int(port) < 65_536):
            raise ValueError("admin.listen: write host:port, such as 127.0.0.1:9464 or [::1]:9464, or nothing for none")
        return self


class Log(_Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lines below it are left out.")
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: for people on a terminal, else JSON.")
    progress_interval_s: Seconds = Field(10, description="How often the progress line comes, seconds.")


class Settings(_Section):
    """The whole configuration. Made by `consumer.configuration.load`, which reads files and environment."""

    kafka: Kafka
    schemas: Schemas = Field(default={}, validate_default=True)
    mapping: Mapping_ = Field(default={}, validate_default=True)
    kochava: Kochava = Field(default={}, validate_default=True)
    delivery: Delivery = Field(default={}, validate_default=True)
    breaker: Breaker = Field(default={}, validate_default=True)
    lane: Lane = Field(default={}, validate_default=True)
    retry: Retry = Field(default={}, validate_default=True)
    dead_letter: DeadLetter = Field(default={}, validate_default=True)
    dedup: Dedup = Field(default={}, validate_default=True)
    admin: Admin = Field(default={}, validate_default=True)
    log: Log = Field(default={}, validate_default=True)

    @property
    def topic_prefix(self) -> str:
        return self.retry.topic_prefix or f"{self.kafka.topics[0]}.kochava"

    @property
    def watchdog_s(self) -> float:
        """By when the process ends, once it was told to."""
        return self.delivery.drain_timeout_s + self.delivery.close_timeout_s + 2

    @property
    def grace_s(self) -> float:
        """The least terminationGracePeriodSeconds of its pod."""
        return self.delivery.drain_timeout_s + self.delivery.close_timeout_s + 10

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        problems = []
        if self.delivery.drain_timeout_s * 1000 >= self.kafka.max_poll_interval_ms:
            problems.append(
                f"delivery.drain_timeout_s ({self.delivery.drain_timeout_s:g} s) must be below "
                f"kafka.max_poll_interval_ms ({self.kafka.max_poll_interval_ms} ms): a drain stops polling"
            )
        if any(topic.startswith(f"{self.topic_prefix}.") for topic in self.kafka.topics):
            problems.append("kafka.topics holds a topic of our own (retry.topic_prefix): it is read anyway; remove it")
        return _raise(self, problems)


def _raise(model: M, problems: list[str]) -> M:
    if problems:
        raise ValueError("\n".join(problems))
    return model


def _host_of(url: str) -> str | None:
    """Return the host of an http or https URL that can be asked as it stands, else None."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
        authority = host if ":" in host else host.encode("idna").decode("ascii")
    except ValueError:  # not passed on: it may quote a password
        return None
    asked = f"{authority}{port}{parts.path}{parts.query}"
    is_whole = url.startswith(f"{parts.scheme}://") and not parts.fragment and not re.search(r"[\s\x00-\x1f]", url)
    return host if host and parts.scheme in {"http", "https"} and is_whole and _PRINTABLE.fullmatch(asked) else None


def url_problems(key: str, url: str, *, insecure: bool) -> list[str]:
    """Say what is wrong with an endpoint: an operator's typo must not send events in the clear."""
    host = _host_of(url)
    if host is None:
        return [f"{key}: write a URL such as https://host/path, in printable ASCII and without a fragment"]
    parts = urlsplit(url)
    if parts.username is not None:
        return [f"{key}: a URL must not hold a user or password; there are settings for them"]
    is_loopback = host == "localhost"
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if address is not None:
        is_loopback = address.is_loopback
        if not insecure and not is_loopback and (address.is_private or address.is_link_local):
            return [f"{key}: {host} is a private address; set allow_insecure = true beside it to mean it"]
    if parts.scheme == "http" and not is_loopback and not insecure:
        return [f"{key}: plain http would send events in the clear; use https, or set allow_insecure = true beside it"]
    return []
