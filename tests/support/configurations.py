"""Configurations made from the JSON schema of the settings: valid ones, and mistakes to put into them.

The schema says types, bounds and choices; what it cannot say (a URL, a size, what goes together) is in `PLAIN` below,
or is decided by the rules in `tests/property/test_settings.py`. Every value that must not be told holds `CANARY`.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from consumer.settings import OWNED_PROPERTIES, PREFIX, Settings

CANARY = "CANARY"
SCHEMA = Settings.model_json_schema()
SECTIONS: dict[str, dict[str, Any]] = {
    name: SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]["properties"] for name, node in SCHEMA["properties"].items()
}
REQUIRED = tuple(SCHEMA["$defs"]["Kafka"]["required"])
APP = SCHEMA["$defs"]["App"]

words = st.text("abcxyz-_ .,=#'\"[]\\é€\U0001f600", min_size=1, max_size=8)
secrets = words.map(lambda word: f"{CANARY}{word}{CANARY}")
ascii_secrets = st.text("abc019+/=", max_size=8).map(lambda word: f"{CANARY}{word}")

PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "kafka.start": st.sampled_from(["earliest", "latest", "2026-11-01T00:00:00Z", "2026-11-01 12:00:00+01:00"]),
    "kafka.client": st.dictionaries(
        st.sampled_from(["client.rack", "security.protocol", "socket.timeout.ms", "sasl.username"]),
        words | st.integers(1, 9) | st.booleans(), max_size=3,
    ),
    "schemas.registry_url": st.sampled_from(["https://registry:8081", "http://127.0.0.1:8081", "https://[::1]/x"]),
    "schemas.registry_token": ascii_secrets,
    "kochava.endpoint": st.sampled_from(["https://control.kochava.com/track/json", "http://localhost:8080/?a=b"]),
    "kochava.user_agent": st.sampled_from(["us/1", "us/1 (team)"]),
    "kochava.default_currency": st.sampled_from(["EUR", "usd"]),
    "kochava.apps": st.dictionaries(
        st.sampled_from(["game", "game/ios", "com.example.game/android"]),
        st.fixed_dictionaries({"guid": words}, optional={"enabled": st.booleans()})
        | st.fixed_dictionaries({"guid": words, "api_key": ascii_secrets, "app_secret": secrets}),
        max_size=2,
    ),
    "delivery.proxy": st.just("http://proxy:3128"),
    "retry.tiers": st.sampled_from([["1s"], ["30s", "5m"], ["500ms", "2d"]]),
    "retry.topic_prefix": st.sampled_from(["ours", "in.app"]),
    "admin.listen": st.sampled_from(["0.0.0.0:9464", "[::1]:1", ""]),
}  # fmt: skip
NEAR = {
    "connect_timeout_s": 5, "request_timeout_s": 8, "retry_budget_s": 20, "drain_timeout_s": 25,
    "max_poll_interval_ms": 300_000, "session_timeout_ms": 45_000, "backoff_initial_s": 0.25, "backoff_max_s": 5,
    "connections": 512, "max_in_flight_records": 1024, "max_span_records": 100_000,
}  # fmt: skip
"""Numbers with neighbours that they must keep below or above: drawn from around the defaults, so that both happens."""


def valid(key: str, node: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values of *key* that the schema's *node* allows."""
    if key in PLAIN:
        return PLAIN[key]
    if "anyOf" in node:
        return valid(key, next(branch for branch in node["anyOf"] if branch != {"type": "null"}))
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if node.get("format") == "password":
        return secrets
    match node["type"]:
        case "boolean":
            return st.booleans()
        case "integer" | "number":
            return _numbers(key.rpartition(".")[2], node)
        case "array":
            return st.lists(words.map(str.strip).filter(bool), min_size=node.get("minItems", 0), max_size=3)
    return words


def _numbers(name: str, node: dict[str, Any]) -> st.SearchStrategy[Any]:
    is_whole = node["type"] == "integer"
    if name in NEAR:
        factors = st.sampled_from([0.25, 0.5, 1, 1, 1, 1.5, 3, 14])
        return factors.map(lambda factor: (int if is_whole else float)(NEAR[name] * factor) or 1)
    most = node.get("maximum", 10**6)
    whole = st.integers(1, int(most))
    sizes = st.sampled_from(["1MiB", "512 KB", "7"]) if "gt" in node else st.nothing()  # only sizes say it this way
    return (whole if is_whole else whole | st.floats(0.001, most)) | sizes


VALUES = {
    section: {name: valid(f"{section}.{name}", node) for name, node in properties.items()}
    for section, properties in SECTIONS.items()
}
NAMES = {section: st.sets(st.sampled_from(sorted(properties)), max_size=4) for section, properties in SECTIONS.items()}


@dataclass
class Configuration:
    """A tree of settings, and which of its leaves come from the environment or from a secret's file."""

    tree: dict[str, Any]
    from_environment: frozenset[str] = frozenset()
    from_file: frozenset[str] = frozenset()
    environment: dict[str, str] = field(default_factory=dict)
    """Variables beside those of `from_environment`."""

    def leaves(self) -> dict[str, Any]:
        return {
            f"{section}.{name}": value
            for section, table in self.tree.items()
            if isinstance(table, dict)
            for name, value in table.items()
        }

    def render(self, write_secret: Callable[[str], str]) -> tuple[str, dict[str, str]]:
        """Return the TOML text and the environment; *write_secret* puts a secret into a file and returns its path."""
        lines, environ = [], dict(self.environment)
        for section, table in self.tree.items():
            if not isinstance(table, dict):
                lines.insert(0, f"{section} = {toml(table)}")
                continue
            lines.append(f"[{json.dumps(section)}]")
            for name, value in table.items():
                key, suffix, shown = f"{section}.{name}", "", value
                if key in self.from_file:
                    suffix, shown = "_file", write_secret(value)
                if key in self.from_environment:
                    environ[variable(key) + suffix.upper()] = environment_text(shown)
                else:
                    lines.append(f"{toml_key(name + suffix)} = {toml(shown)}")
        return "\n".join(lines), environ


def variable(key: str) -> str:
    return PREFIX + key.upper().replace(".", "__")


def environment_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def toml_key(name: str) -> str:
    return toml(name)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_key(key)} = {toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(entry) for entry in value) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf"
    return json.dumps(value, ensure_ascii=False)


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    """Draw one that breaks no rule of a single key; rules between keys may be broken."""
    tree: dict[str, Any] = {}
    for section in SECTIONS:
        needed = REQUIRED if section == "kafka" else ()
        names = draw(NAMES[section]) | set(needed)
        if names:
            tree[section] = {name: draw(VALUES[section][name]) for name in sorted(names)}
    kochava = tree.setdefault("kochava", {})
    if not kochava.get("apps") and kochava.get("unknown_app", "dead_letter") == "dead_letter":
        kochava["apps"] = {"game": {"guid": "g"}}
    made = Configuration(tree)
    secret = [key for key in made.leaves() if is_secret(key)]
    made.from_file = frozenset(draw(st.sets(st.sampled_from(secret)))) if secret else frozenset()
    made.from_environment = frozenset(draw(st.sets(st.sampled_from(sorted(made.leaves())), max_size=5)))
    return made


def is_secret(key: str) -> bool:
    section, _, name = key.partition(".")
    return any(
        branch.get("format") == "password" for branch in SECTIONS.get(section, {}).get(name, {}).get("anyOf", [])
    )


# -- mistakes


@dataclass
class Mistake:
    """What was put in at `key`; some problem must begin with `says`."""

    key: str
    says: str
    apply: Callable[[Configuration], None]


def _set(section: str, name: str, value: Any) -> Callable[[Configuration], None]:
    def apply(made: Configuration) -> None:
        table = made.tree.setdefault(section, {})
        if isinstance(table, dict):
            table[name] = value
            key = f"{section}.{name}"
            made.from_environment -= {key}
            made.from_file -= {key}

    return apply


def _remove(section: str, name: str) -> Callable[[Configuration], None]:
    return lambda made: made.tree[section].pop(name, None)


def _unreadable_token(made: Configuration) -> None:
    _set("schemas", "registry_token", None)(made)
    made.tree["schemas"] = {**made.tree["schemas"], "registry_token_file": "/nowhere/at/all"}
    del made.tree["schemas"]["registry_token"]


def _put_variable(name: str, value: str) -> Callable[[Configuration], None]:
    return lambda made: made.environment.update({name: value})


def wrong_values(key: str, node: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values that *key* never takes."""
    odd: list[Any] = [{"x": CANARY}, [[CANARY]]]
    node = next((branch for branch in node.get("anyOf", [node]) if branch != {"type": "null"}), node)
    if key == "kafka.start":
        odd += [f"{CANARY}T00:00", "2026-11-01T00:00:00", 7.5]
    elif "enum" in node:
        odd += [node["enum"][0] + CANARY, node["enum"][0].upper() + " ", 3]
    elif node["type"] in {"integer", "number"}:
        odd += [-1, CANARY, math.nan, math.inf, "1 parsec", "" if "gt" in node else [1]]
        odd += [0] if node.get("minimum") != 0 else []
    elif node["type"] == "boolean":
        odd += [CANARY, 2, 0.5]
    elif node["type"] == "array":
        odd += [[], CANARY, 1]
    elif node["type"] == "object":
        odd = [CANARY, [CANARY], 1]
    else:
        odd += [1, True, 1.5]
    return st.sampled_from(odd)


def _typo(name: str, at: int) -> str:
    """Leave out one letter, or say one twice."""
    at %= len(name)
    return name[:at] + name[at + 1 :] if at % 2 else name[:at] + name[at] + name[at:]


@st.composite
def mistakes(draw: st.DrawFn) -> Mistake:
    section = draw(st.sampled_from(sorted(SECTIONS)))
    name = draw(st.sampled_from(sorted(SECTIONS[section])))
    key = f"{section}.{name}"
    match draw(st.integers(0, 9)):
        case 0 | 1 | 2:
            value = draw(wrong_values(key, SECTIONS[section][name]))
            return Mistake(key, key, _set(section, name, value))
        case 3:
            typo = _typo(name, draw(st.integers(0, 30)))
            if typo in SECTIONS[section] or typo.removesuffix("_file") in SECTIONS[section]:
                typo = "no_such_key"
            return Mistake(f"{section}.{typo}", f"{section}.{typo}: unknown key", _set(section, typo, CANARY))
        case 4:
            unknown = variable(f"{section}.{name}X")
            return Mistake(unknown, f"{unknown}: unknown variable", _put_variable(unknown, CANARY))
        case 5:
            needed = draw(st.sampled_from(REQUIRED))
            return Mistake(f"kafka.{needed}", f"kafka.{needed}: required", _remove("kafka", needed))
        case 6:
            owned = draw(st.sampled_from(sorted(OWNED_PROPERTIES)))
            return Mistake(
                "kafka.client", f'kafka.client."{owned}" is ours', _set("kafka", "client", {owned: CANARY})
            )  # fmt: skip
        case 7:
            return Mistake(
                "schemas.registry_token", "schemas.registry_token_file: the file cannot be read",
                _unreadable_token,
            )  # fmt: skip
        case 8:  # a rule between keys is judged where each key is well
            rule = "delivery.request_timeout_s must be below delivery.retry_budget_s"
            return Mistake("delivery.request_timeout_s", rule, _set("delivery", "request_timeout_s", 10_000_000))
        case _:
            app = {"guid": "g", "api_key": CANARY}
            return Mistake("kochava.apps", 'kochava.apps."a/b": api_key', _set("kochava", "apps", {"a/b": app}))
