"""Writer schemas from a folder of `.avsc` files; the rules for it are in schemas/README.md."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from fastavro.schema import fingerprint, to_parsing_canonical_form

from consumer.core.schema_guard import MAX_SCHEMA_BYTES, SchemaText
from consumer.core.wire_format import ByFingerprint, ById, SchemaReference
from consumer.errors import SettingsError

ID_ATTRIBUTE = "confluent.id"
"""In a schema file: the number under which records name it, where there is no registry to ask."""


def builtin_schemas() -> Path:
    """Return the folder of our own schemas: beside the code in a wheel, beside the package in a checkout."""
    inside = Path(str(files("consumer"))) / "schemas"
    return inside if inside.is_dir() else Path(str(files("consumer"))).parent / "schemas"


class SchemaDirectory:
    """All schemas of a folder, by their numbers and fingerprints. Read once, at the start."""

    def __init__(self, path: Path) -> None:
        """Read every `.avsc` file in *path*.

        Raises:
            SettingsError: everything that is wrong with them, at once.
        """
        self.by_id: dict[SchemaReference, SchemaText] = {}
        self.by_fingerprint: dict[SchemaReference, SchemaText] = {}
        self._problems: list[str] = []
        if not path.is_dir():
            raise SettingsError([f"schemas.directory {path}: no such folder"])
        for file in sorted(path.glob("*.avsc")):
            self._add(file)
        if not self.by_fingerprint and not self._problems:
            self._problems.append(f"schemas.directory {path}: has no .avsc file")
        if self._problems:
            raise SettingsError(self._problems)

    @property
    def references(self) -> Mapping[SchemaReference, SchemaText]:
        """Everything by which a record may name a schema of this folder."""
        return {**self.by_id, **self.by_fingerprint}

    def _add(self, file: Path) -> None:
        try:
            text = read_schema_file(file)
            document = json.loads(text.text)
            mark = bytes.fromhex(fingerprint(to_parsing_canonical_form(document), "CRC-64-AVRO"))
        except SettingsError as error:
            self._problems.extend(error.problems)
            return
        except Exception as error:  # noqa: BLE001  fastavro says "not a schema" in many ways
            self._problems.append(f"schema {file.name}: not an Avro schema: {type(error).__name__}: {error}")
            return
        self.by_fingerprint[ByFingerprint(mark)] = text
        number = document.get(ID_ATTRIBUTE) if isinstance(document, dict) else None
        if number is None:
            return
        if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**31:
            self._problems.append(f'schema {file.name}: "{ID_ATTRIBUTE}" must be a number from 1 to 2147483647')
        elif ById(number) in self.by_id:
            self._problems.append(f'schema {file.name}: "{ID_ATTRIBUTE}" {number} is also in another file')
        else:
            self.by_id[ById(number)] = text


def read_schema_file(file: Path) -> SchemaText:
    """Read one file; whether it is a schema shows when it is loaded.

    Raises:
        SettingsError: it cannot be read, or is too large to be one.
    """
    try:
        size = file.stat().st_size
        if size > MAX_SCHEMA_BYTES:
            raise SettingsError([f"schema {file.name}: {size} bytes, at most {MAX_SCHEMA_BYTES}"])
        return SchemaText(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError([f"schema {file}: {error.strerror or error}"]) from None
    except UnicodeDecodeError:
        raise SettingsError([f"schema {file.name}: not UTF-8"]) from None
