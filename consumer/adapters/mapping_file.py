"""Reads mapping files: the built-in one, or a company's own."""

import tomllib
from importlib.resources import files
from pathlib import Path

from consumer.core.mapping import MappingSpec
from consumer.errors import MappingError


def load(path: Path | None) -> MappingSpec:
    """Return the mapping of *path*, or the built-in one.

    Raises:
        MappingError: it cannot be read, or is wrong by itself.
    """
    try:
        text = (files("consumer") / "mapping.toml").read_text("utf-8") if path is None else path.read_text("utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise MappingError([f"mapping.file {path}: cannot be read ({error.strerror})"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "not UTF-8"
        raise MappingError([f"mapping.file {path}: not TOML: {reason}"]) from None
    try:
        return MappingSpec.parse(data)
    except MappingError as error:
        raise MappingError([f"mapping.file {path or '(built-in)'}: {problem}" for problem in error.problems]) from None
