"""From a TOML file and the environment to `Settings`, with every problem listed at once.

pydantic judges the values. What it doesn't do is in here: unknown keys answered with the nearest known one (in the
environment, too, where a typo would otherwise be ignored), secrets from files, and where each value came from.
"""

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from consumer.errors import SettingsError
from consumer.secret_file import SecretFile, UnusableSecretError
from consumer.settings import CONFIG_VARIABLE, PREFIX, SECRET_PROPERTIES, Settings

Tree = dict[str, Any]


@dataclass(slots=True)
class Loaded:
    """Settings and where each value came from, by dotted key; what is not in `sources` is a default."""

    settings: Settings
    sources: dict[str, str] = field(default_factory=dict)


def load(config: Path | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of *config* (else of the file that the environment names) and *environ*.

    Raises:
        SettingsError: with every problem; none of them holds a value.
    """
    return load_with_sources(config, environ).settings


def load_with_sources(config: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Do as `load`, and say where each value came from."""
    problems: list[str] = []
    sources: dict[str, str] = {}
    tree: Tree = {}
    path = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if path is not None:
        tree = _read_toml(path, problems)
        problems += [_unknown(key, known, "key") for key, known in _unknown_keys(tree, Settings, "")]
        _resolve_secret_files(tree, Settings, "", problems)
        sources.update(dict.fromkeys(_leaves(tree, Settings, ""), path.name))
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable != CONFIG_VARIABLE:
            _apply_variable(variable, environ[variable], tree, problems, sources)
    tree.setdefault("kafka", {})  # so that each of its required keys is named
    settings = _judge(tree, problems)
    if settings is None or problems:
        raise SettingsError(list(dict.fromkeys(problems)))
    return Loaded(settings, sources)


def _judge(tree: Tree, problems: list[str]) -> Settings | None:
    """Validate *tree* as far as it goes.

    Rules over several keys are judged only where each key is well, so the bad ones are taken out and the rest is judged
    again, until nothing new comes up.
    """
    told = {problem.partition(":")[0] for problem in problems}
    rounds = 0
    while True:
        try:
            settings = Settings.model_validate(tree)
        except ValidationError as error:
            rounds += 1
            for location, text in _explain(error):
                key = _dotted(location)
                if not any(key == other or key.startswith(f"{other}.") for other in told):
                    problems.append(text)
                _take_out(tree, location)
                told.add(key)
            if rounds > 4:
                return None
        else:
            return settings if rounds == 0 else None


_PLACEHOLDERS: Tree = {"bootstrap_servers": "-", "group_id": "-", "topics": ["-"], "start": "earliest"}


def _take_out(tree: Tree, location: tuple[int | str, ...]) -> None:
    """Let what is wrong at *location* be as if it was not written; what is required gets something harmless."""
    if not location:
        return
    section, *rest = location
    if section == "kafka":
        branch = tree.setdefault("kafka", {}) if isinstance(tree.get("kafka", {}), dict) else {}
        tree["kafka"] = {**_PLACEHOLDERS, **branch} if rest else dict(_PLACEHOLDERS)
        if rest and rest[0] in _PLACEHOLDERS:
            tree["kafka"][rest[0]] = _PLACEHOLDERS[str(rest[0])]
        elif rest:
            tree["kafka"].pop(rest[0], None)
    elif section == "kochava" and (not rest or rest[0] == "apps"):
        branch = tree.get("kochava") if rest else None
        kept = {key: value for key, value in branch.items() if key != "apps"} if isinstance(branch, dict) else {}
        tree["kochava"] = {**kept, "unknown_app": "hold"}  # without apps, dead_letter would be a problem of our making
    elif rest and isinstance(tree.get(str(section)), dict):
        tree[str(section)].pop(str(rest[0]), None)
    else:
        tree.pop(str(section), None)


def _read_toml(path: Path, problems: list[str]) -> Tree:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror}); check --config")
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{path}: not TOML: {error}")
    except UnicodeDecodeError:
        problems.append(f"{path}: not TOML: not UTF-8")
    except (ValueError, RecursionError):  # a number of 5,000 digits, a list in a list in a list
        problems.append(f"{path}: not TOML that can be read: too long a number, or nested too deeply")
    return {}


# -- the environment


def _apply_variable(variable: str, text: str, tree: Tree, problems: list[str], sources: dict[str, str]) -> None:
    path = variable.removeprefix(PREFIX).lower().split("__")
    from_file = False
    found = _field_at(path)
    if found is None and path[-1].endswith("_file"):
        path, from_file = [*path[:-1], path[-1].removesuffix("_file")], True
        found = _field_at(path)
        if found is not None and not _is_secret(found):
            found = None
    if found is None:
        known = [f"{PREFIX}{key.upper().replace('.', '__')}" for key in _known_keys(Settings, "")]
        problems.append(_unknown(variable, known, "variable"))
        return
    if from_file:
        secret = _read_secret(variable, text, problems)
        if secret is None:
            return
        value: Any = secret
    else:
        value = _decode(variable, text, found, problems)
    branch = tree
    for part in path[:-1]:
        branch = branch.setdefault(part, {})
        if not isinstance(branch, dict):  # the file has a value where a section belongs: refused as such
            return
    branch[path[-1]] = value
    if isinstance(value, dict):
        _resolve_secret_files(tree, Settings, "", problems)
    sources[".".join(path)] = f"{variable} (file)" if from_file else variable


def _decode(variable: str, text: str, info: FieldInfo, problems: list[str]) -> Any:
    """Turn a variable's text into what the field takes: JSON for tables, commas or JSON for lists."""
    kind = get_origin(info.annotation)
    if kind is dict or (kind is tuple and text.lstrip().startswith("[")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):  # not JSON, a number of 5,000 digits, nested too deeply
            problems.append(f"{variable}: not JSON; the whole table is given as one JSON object")
            return {} if kind is dict else ()
    return [part.strip() for part in text.split(",") if part.strip()] if kind is tuple else text


def _field_at(path: list[str]) -> FieldInfo | None:
    model: type[BaseModel] = Settings
    for index, part in enumerate(path):
        info = model.model_fields.get(part)
        if info is None:
            return None
        if index == len(path) - 1:
            return info if _section_of(info) is None else None
        section = _section_of(info)
        if section is None:
            return None
        model = section
    return None


# -- the file


def _resolve_secret_files(branch: Tree, model: type[BaseModel], prefix: str, problems: list[str]) -> None:
    """Replace each `<secret>_file` by what the file holds."""
    for name, info in model.model_fields.items():
        section, of_many = _section_of(info), _table_of(info)
        value = branch.get(name)
        if section is not None and isinstance(value, dict):
            _resolve_secret_files(value, section, f"{prefix}{name}.", problems)
        elif of_many is not None and isinstance(value, dict):
            for key, entry in value.items():
                if isinstance(entry, dict):
                    _resolve_secret_files(entry, of_many, f'{prefix}{name}."{key}".', problems)
        elif _is_secret(info) and f"{name}_file" in branch:
            _take_file(branch, name, prefix, problems)
    if model is Settings.model_fields["kafka"].annotation and isinstance(branch.get("client"), dict):
        for name in sorted(SECRET_PROPERTIES):
            if f"{name}_file" in branch["client"]:
                _take_file(branch["client"], name, f"{prefix}client.", problems)


def _take_file(branch: Tree, name: str, prefix: str, problems: list[str]) -> None:
    path = branch.pop(f"{name}_file")
    if name in branch:
        problems.append(f"{prefix}{name} and {prefix}{name}_file exclude one another: remove one")
    secret = _read_secret(f"{prefix}{name}_file", str(path), problems)
    branch[name] = secret if secret is not None else ""


def _read_secret(key: str, path: str, problems: list[str]) -> SecretFile | None:
    try:
        return SecretFile(Path(path))
    except UnusableSecretError as error:
        problems.append(f"{key}: {error}")
        return None


def _unknown_keys(branch: Tree, model: type[BaseModel], prefix: str) -> Iterator[tuple[str, list[str]]]:
    known = set(model.model_fields) | {f"{name}_file" for name, info in model.model_fields.items() if _is_secret(info)}
    for name, value in [*branch.items()]:
        if name not in known:
            del branch[name]
            yield f"{prefix}{name}", [f"{prefix}{other}" for other in sorted(known)]
            continue
        info = model.model_fields.get(name)
        section, of_many = (_section_of(info), _table_of(info)) if info else (None, None)
        if section is not None and isinstance(value, dict):
            yield from _unknown_keys(value, section, f"{prefix}{name}.")
        elif of_many is not None and isinstance(value, dict):
            for key, entry in value.items():
                if isinstance(entry, dict):
                    yield from _unknown_keys(entry, of_many, f'{prefix}{name}."{key}".')


# -- about the models


def _section_of(info: FieldInfo) -> type[BaseModel] | None:
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _table_of(info: FieldInfo) -> type[BaseModel] | None:
    """Return the model of the entries, where *info* is a table of many."""
    arguments = get_args(info.annotation) if get_origin(info.annotation) is dict else ()
    kind = arguments[1] if arguments else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _is_secret(info: FieldInfo) -> bool:
    return info.annotation is SecretStr or SecretStr in get_args(info.annotation)


def _known_keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, info in model.model_fields.items():
        section = _section_of(info)
        if section is not None:
            yield from _known_keys(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
            if _is_secret(info):
                yield f"{prefix}{name}_file"


def _leaves(branch: Tree, model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, value in branch.items():
        info = model.model_fields.get(name)
        section = _section_of(info) if info else None
        if section is not None and isinstance(value, dict):
            yield from _leaves(value, section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


# -- words


def _unknown(key: str, known: Iterable[str], what: str) -> str:
    near = get_close_matches(key, known, n=1, cutoff=0.6)
    return f"{key}: unknown {what}; " + (
        f"did you mean {near[0]}?" if near else "see kochava-consumer settings --example"
    )


def _explain(error: ValidationError) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Yield where each problem is, and a sentence."""
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        location = problem["loc"]
        key = _dotted(location)
        if problem["type"] == "missing":
            yield location, f"{key}: required; see kochava-consumer settings --example"
            continue
        for line in problem["msg"].removeprefix("Value error, ").splitlines():
            # a rule over several keys names them itself
            named = line.startswith(tuple(f"{name}." for name in Settings.model_fields))
            yield location, line if named else f"{key}: {line}"


def _dotted(location: tuple[int | str, ...]) -> str:
    parts = [f'"{part}"' if isinstance(part, str) and ("/" in part or "." in part) else str(part) for part in location]
    return ".".join(parts)
