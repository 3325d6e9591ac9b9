"""Parts that the process and the commands share: registry, decoder, mapping, translator, as settings describe them."""

from collections.abc import Callable, Mapping
from typing import Any

from consumer.adapters.avro_decoder import AvroDecoder, parse
from consumer.adapters.decoder_process import DecoderProcess
from consumer.adapters.mapping_file import load as load_mapping
from consumer.adapters.schema_directory import SchemaDirectory, builtin_schemas, read_schema_file
from consumer.adapters.schema_source import SchemaRegistry
from consumer.adapters.tls import client_context
from consumer.core.mapping import MappingSpec, compile_mapping
from consumer.core.payload import PayloadRules, StrictAuth
from consumer.core.schema_guard import SchemaText
from consumer.core.wire_format import Configured, SchemaReference
from consumer.errors import MappingError, SettingsError
from consumer.ports import Clock
from consumer.settings import App as AppSettings, Settings
from consumer.telemetry import Repeated, log
from consumer.translate import App, Translator


def make_registry(settings: Settings, clock: Clock) -> SchemaRegistry | None:
    """Build the registry client, if settings name a registry."""
    schemas = settings.schemas
    if schemas.registry_url is None:
        return None
    basic = None
    if schemas.registry_username is not None and schemas.registry_password is not None:
        basic = (schemas.registry_username, schemas.registry_password.get_secret_value())
    repeated = Repeated()

    def on_state(reference: object, available: bool, reason: str) -> None:
        if available:
            log.info("schema.fetched", schema=str(reference))
        elif count := repeated.due(f"{reference} {reason}", clock.monotonic()):
            log.warning("schema.unavailable", schema=str(reference), reason=reason, count=count)

    return SchemaRegistry(
        schemas.registry_url,
        clock=clock,
        on_state=on_state,
        basic=basic,
        bearer=schemas.registry_token.get_secret_value() if schemas.registry_token else None,
        tls=client_context(schemas.ca_file) if schemas.registry_url.startswith("https:") else None,
        timeout_s=schemas.request_timeout_s,
        confirm_s=schemas.unknown_id_confirm_s,
        max_answer_bytes=schemas.max_schema_bytes,
    )


def known_schemas(settings: Settings) -> Mapping[SchemaReference, SchemaText]:
    """Read the schemas that need no registry. Beside a registry, numbers are the registry's alone."""
    schemas = settings.schemas
    if schemas.plain is not None:
        return {Configured(): read_schema_file(schemas.plain)}
    directory = SchemaDirectory(schemas.directory or builtin_schemas())
    return directory.references if schemas.registry_url is None else directory.by_fingerprint


def make_decoder(settings: Settings, clock: Clock, registry: SchemaRegistry | None) -> AvroDecoder:
    """Build the decoder that *settings* describe; `map` and `check` use it, too."""
    return AvroDecoder(
        settings.schemas.wire,
        clock=clock,
        known=known_schemas(settings),
        source=registry,
        apart=_make_process_apart(clock) if settings.schemas.allow_recursive else None,
        max_record_bytes=settings.schemas.max_record_bytes,
        max_schemas=settings.schemas.cache_schemas,
    )


def _make_process_apart(clock: Clock) -> DecoderProcess:
    repeated = Repeated()

    def died(reason: str) -> None:
        if count := repeated.due(reason, clock.monotonic()):
            log.warning("decoder.died", reason=reason, count=count)

    return DecoderProcess(died)


def load_spec(settings: Settings) -> MappingSpec:
    """Read the mapping, and hold it against every schema that is known without a registry.

    Raises:
        MappingError: with every path that a schema doesn't have.
        SettingsError: duplicates shall be told by an event id, and no type of the mapping has one.
    """
    spec = load_mapping(settings.mapping.file)
    has_ids = settings.mapping.event_id is not None or any("event_id" in entry for entry in spec.types.values())
    if settings.dedup.window_records and not has_ids:
        raise SettingsError(["dedup.window_records needs an event id: give the mapping one, or set mapping.event_id"])
    if settings.schemas.registry_url is None:
        for text in known_schemas(settings).values():
            parsed: Any = parse(text)[0]
            for schema in parsed if isinstance(parsed, list) else [parsed]:
                if isinstance(schema, dict):
                    compile_mapping(spec, schema, event_id=settings.mapping.event_id)
    return spec


def make_translator(
    settings: Settings,
    decoder: AvroDecoder,
    on_misfit: Callable[[MappingError], None],
    *,
    spec: MappingSpec | None = None,
    kind: Callable[..., Translator] = Translator,
) -> Translator:
    """Build the translator; the mapping is read here unless *spec* is given, and compiled when a schema is first seen.

    *kind* makes it of the same arguments: a replay has one of its own.
    """
    kochava = settings.kochava
    return kind(
        decoder=decoder,
        mapping=load_spec(settings) if spec is None else spec,
        on_misfit=on_misfit,
        event_id=settings.mapping.event_id,
        other_types=settings.mapping.other_types,
        apps={app_key(key): App(app.guid, enabled=app.enabled, auth=_auth(app)) for key, app in kochava.apps.items()},
        unknown_app=kochava.unknown_app,
        rules=PayloadRules(
            require_device_id=kochava.require_device_id,
            device_ver=kochava.device_ver,
            device_ua=kochava.device_ua,
            usertime=kochava.usertime,
            reserved_keys=kochava.reserved_keys,
            max_event_keys=kochava.max_event_keys,
            default_currency=kochava.default_currency,
        ),
    )


def tell_misfit(error: MappingError) -> None:
    """Log that a schema which came with the data lacks what the mapping asks for."""
    for problem in error.problems:  # names of fields and of our own file, nothing of an event
        log.error("mapping.misfit", problem=problem)


def app_key(key: str) -> str:
    """Platforms are compared in lower case."""
    app, slash, platform = key.rpartition("/")
    return f"{app}/{platform.lower()}" if slash else key


def _auth(app: AppSettings) -> StrictAuth | None:
    if app.api_key is None or app.app_secret is None:
        return None
    return StrictAuth(app.api_key.get_secret_value(), app.app_secret.get_secret_value())
