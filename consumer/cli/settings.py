"""`kochava-consumer settings`: what is in force, where it came from, and a file to begin with."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from rich.table import Table

from consumer.cli.options import config_option
from consumer.cli.output import console
from consumer.configuration import load_with_sources
from consumer.settings import SECRET_PROPERTIES, Settings

MASK = "********"
_USER_OF_A_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")

EXAMPLES: dict[str, str] = {
    "kafka.bootstrap_servers": '"127.0.0.1:9092"',
    "kafka.group_id": '"kochava"',
    "kafka.topics": '["in-app-events"]',
    "kafka.start": '"latest"',
}
EXAMPLE_TABLES = """
[kafka.client]
# "security.protocol" = "SASL_SSL"
# "sasl.mechanism" = "SCRAM-SHA-512"
# "sasl.username" = "kochava-consumer"
# "sasl.password_file" = "/run/secrets/kafka-password"

[kochava.apps."com.example.game/ios"]   # app and platform beats app alone
guid = "koexample-game-ios-1a2b3c"

[kochava.apps."com.example.game/android"]
guid = "koexample-game-android-4d5e6f"
# enabled = false                       # its events are held, not sent, not lost
# api_key_file = "/run/secrets/kochava-api-key"         # strict authentication
# app_secret_file = "/run/secrets/kochava-app-secret"
"""
REFERENCE_HEAD = """\
# Settings

One TOML file (`--config FILE` or `KOCHAVA_CONSUMER_CONFIG`). Each key can also be set from the environment, which beats
the file: `kafka.group_id` is `KOCHAVA_CONSUMER_KAFKA__GROUP_ID`. Lists are separated by commas, tables are one JSON
object. Secrets can be read from files: `<key>_file` in TOML, `..._FILE` in the environment. Sizes may be written as
`"32MiB"`. Unknown keys are refused. This page is made by `kochava-consumer settings --markdown`."""


@click.command(short_help="Show the effective settings and where each came from; --example to begin.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--example", is_flag=True, help="Print a commented file to start from.")
@click.option("--markdown", is_flag=True, help="Print the reference (docs/settings.md).")
def command(config: Path | None, *, as_json: bool, example: bool, markdown: bool) -> None:
    """Show every setting, its value and where it came from; secrets are masked.

    Exits with 3 and lists every problem if `run` would refuse them.
    """
    if example:
        click.echo(example_toml(), nl=False)
        return
    if markdown:
        click.echo(reference(), nl=False)
        return
    loaded = load_with_sources(config, os.environ)
    rows = [(key, value, loaded.sources.get(key, "default")) for key, value in effective(loaded.settings)]
    if as_json:
        click.echo(json.dumps({key: {"value": value, "from": source} for key, value, source in rows}, indent=2))
        return
    table = Table("key", "value", "from", box=None, pad_edge=False)
    for key, value, source in rows:
        table.add_row(key, json.dumps(value), source, style="dim" if source == "default" else None)
    console().print(table)


def effective(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each key and its value, as JSON has it, secrets masked."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from effective(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _shown(value)


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, BaseModel):
        return dict(effective(value))
    if isinstance(value, dict):
        return {key: MASK if key in SECRET_PROPERTIES else _shown(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, str):
        return _USER_OF_A_URL.sub(MASK, value)  # a proxy's may hold a password
    return value if value is None or isinstance(value, int | float | bool) else str(value)


def example_toml() -> str:
    """Return a file that loads as it is, every default as a comment."""
    lines = ["# kochava-consumer settings. What is commented out is the default.", ""]
    for section, info in Settings.model_fields.items():
        model = info.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        lines.append(f"[{section}]")
        for name, field in model.model_fields.items():
            key = f"{section}.{name}"
            if get_origin(field.annotation) is dict:
                continue
            lines.append(f"# {field.description}")
            lines.append(
                f"{name} = {EXAMPLES[key]}" if key in EXAMPLES else f"# {name}{_suffix(field)} = {_default(field)}"
            )
        lines.append("")
    return "\n".join(lines) + EXAMPLE_TABLES


def _suffix(field: FieldInfo) -> str:
    return "_file" if SecretStr in get_args(field.annotation) else ""


def _default(field: FieldInfo) -> str:
    default = field.default
    if default is None or default is PydanticUndefined:
        return '""'
    if isinstance(default, bool):
        return str(default).lower()
    return json.dumps(list(default) if isinstance(default, tuple) else default)


def reference() -> str:
    """Return the reference of all keys as Markdown."""
    lines = [REFERENCE_HEAD]
    for section, info in Settings.model_fields.items():
        model = info.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        lines += ["", f"## [{section}]", "", "| key | default | meaning |", "|---|---|---|"]
        lines += [_row(name, field) for name, field in model.model_fields.items()]
        for name, field in model.model_fields.items():
            entry = get_args(field.annotation)[1] if get_origin(field.annotation) is dict else None
            if isinstance(entry, type) and issubclass(entry, BaseModel):
                lines += ["", f'### [{section}.{name}."..."]', "", "| key | default | meaning |", "|---|---|---|"]
                lines += [_row(inner, of) for inner, of in entry.model_fields.items()]
    return "\n".join(lines) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    if field.is_required():
        default = "required"
    elif field.default is None or get_origin(field.annotation) is dict:
        default = "-"
    else:
        default = f"`{_default(field)}`"
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    words = f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{name}{_suffix(field)}` | {default} | {meaning}{words} |"
