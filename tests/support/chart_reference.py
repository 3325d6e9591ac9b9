"""What the chart says twice, made from where it is said first; the tests compare.

`values.schema.json` gets `config` from the program's own settings: a key that the program refuses, Helm refuses.
README.md gets its table from the comments (`# --`) in values.yaml. To write both:
`python -m tests.support.chart_reference`.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

from consumer.settings import SECRET_PROPERTIES, App, Settings
from tests.support.helm import CHART

SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
VALUES = CHART / "values.yaml"
TABLE_HEAD = "| value | default | meaning |\n|---|---|---|\n"

REQUIRED = {"delivery": ["drain_timeout_s", "close_timeout_s"], "admin": ["listen"]}
"""Keys that templates compute with: `null` must not take them out of config."""

Schema = dict[str, Any]


def schema_text() -> str:
    """Return values.schema.json, with what follows from the settings brought up to date."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    schema["properties"]["config"] = config_schema()
    settings = schema["properties"]["existingSecrets"]["items"]["properties"]["settings"]
    settings["propertyNames"] = {"enum": sorted(secret_settings())}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def config_schema() -> Schema:
    """Return the schema of `config`: each table and key of the program's file. A secret is only taken by file name."""
    tables = {name: _table(_model(info), name) for name, info in Settings.model_fields.items()}
    for name, keys in REQUIRED.items():
        tables[name]["required"] = keys
    return _object("The settings of the program, table by table: docs/settings.md", tables) | {
        "required": ["kafka", *REQUIRED]
    }


def secret_settings() -> Iterator[str]:
    """Yield the dotted names of settings that can be read from a file named by the environment."""
    for table, info in Settings.model_fields.items():
        for key, field in _model(info).model_fields.items():
            if _is_secret(field):
                yield f"{table}.{key}"


def _table(model: type[BaseModel], title: str) -> Schema:
    generated = model.model_json_schema()["properties"]
    keys = {}
    for name, field in model.model_fields.items():
        if _is_secret(field):
            keys[f"{name}_file"] = {"type": "string", "description": f"File that holds it. {field.description}"}
        else:
            keys[name] = {"description": field.description, **_value(name, field, generated[name])}
    return _object(f"[{title}]", keys)


def _value(name: str, field: FieldInfo, generated: Schema) -> Schema:
    if name == "apps":
        return {"type": "object", "additionalProperties": _table(App, 'kochava.apps."app/platform"')}
    if name == "client":
        scalar = {"type": ["string", "number", "boolean"]}
        return {
            "type": "object",
            "propertyNames": {"not": {"enum": sorted(SECRET_PROPERTIES)}},
            "additionalProperties": scalar,
        }
    if name == "start":
        return {"type": "string"}
    kept = {key: value for key, value in generated.items() if key not in {"title", "default", "description", "anyOf"}}
    for alternative in generated.get("anyOf", []):  # "or nothing": null is left out of the file anyway
        kept |= alternative if alternative["type"] != "null" else {}
    if field.is_required():  # values.yaml has it empty; the template says which are missing, all at once
        kept.pop("minLength", None)
        kept.pop("minItems", None)
    if kept["type"] == "integer" and any(isinstance(mark, BeforeValidator) for mark in field.metadata):
        return {"type": ["integer", "string"]}  # a size such as 32MiB
    kept.pop("format", None)
    return kept


def _object(description: str, properties: Schema) -> Schema:
    return {"type": "object", "description": description, "additionalProperties": False, "properties": properties}


def _model(info: FieldInfo) -> type[BaseModel]:
    assert isinstance(info.annotation, type)
    assert issubclass(info.annotation, BaseModel)
    return info.annotation


def _is_secret(field: FieldInfo) -> bool:
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


# -- the table of values


def descriptions() -> dict[str, str]:
    """Return what values.yaml says above each value, by dotted name."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in VALUES.read_text("utf-8").splitlines():
        text = line.strip()
        if text.startswith("# --"):
            comment = [text.removeprefix("# --").strip()]
        elif text.startswith("#") and comment:
            comment.append(text.removeprefix("#").strip())
        elif match := re.match(r"( *)([A-Za-z0-9_]+):", line):
            indent = len(match[1])
            path = [(depth, name) for depth, name in path if depth < indent] + [(indent, match[2])]
            if comment:
                found[".".join(name for _, name in path)] = " ".join(comment)
            comment = []
        else:
            comment = []
    return found


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value that can be set, by dotted name."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def readme_text() -> str:
    """Return README.md with its table brought up to date."""
    head = README.read_text("utf-8").partition(TABLE_HEAD)[0]
    meaning = descriptions()
    rows = []
    for name, value in leaves(yaml.safe_load(VALUES.read_text("utf-8"))):
        words = meaning.get(name, "").replace("|", "\\|")
        rows.append(f"| `{name}` | `{json.dumps(value)}` | {words} |\n")
    return head + TABLE_HEAD + "".join(rows)


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), "utf-8")
    README.write_text(readme_text(), "utf-8")
