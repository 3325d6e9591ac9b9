"""Imports point one way (docs/architecture.md), and the core touches nothing of the outside world."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kafka import ROOT

PACKAGE = ROOT / "consumer"
# all that the core needs of others: values and functions, no clock, chance, network, thread or log
PURE = {"base64", "binascii", "collections", "dataclasses", "datetime", "decimal", "difflib", "email.utils", "enum",
        "functools", "hashlib", "hmac", "ipaddress", "itertools", "math", "orjson", "re", "struct", "typing",
        "urllib.parse", "uuid", "zlib"}  # fmt: skip
IMPURE_NAMES = {"uuid1", "uuid4", "now", "utcnow", "today"}

CORE = {"consumer.core", "consumer.errors"}
INNER = {*CORE, "consumer.ports", "consumer.telemetry", "consumer.envelope"}
PIPELINE = {
    f"consumer.{name}"
    for name in (
        "pipeline",
        "duplicates",
        "key_order",
        "delivery",
        "lanes",
        "forwarding",
        "settlement",
        "translate",
        "rebalance",
        "replay",
    )
}
COMPOSED = {*INNER, *PIPELINE, "consumer.adapters", "consumer.settings", "consumer.health", "consumer.watchdog"}
# who may import what; the longest name that fits decides, and a module that no name fits fails
MAY_IMPORT = {
    "consumer.errors": set(),
    "consumer.core": CORE,
    "consumer.ports": CORE,
    "consumer.envelope": {*CORE, "consumer.ports"},
    "consumer.telemetry": {"consumer.telemetry"},
    "consumer.health": set(),
    "consumer.watchdog": {"consumer.errors", "consumer.telemetry"},
    "consumer.secret_file": set(),
    "consumer.settings": {*CORE, "consumer.secret_file"},
    "consumer.configuration": {"consumer.settings", "consumer.secret_file", "consumer.errors"},
    **dict.fromkeys(PIPELINE, INNER | PIPELINE),
    "consumer.adapters": {*INNER, "consumer.settings", "consumer.secret_file", "consumer.health"},
    "consumer.parts": COMPOSED,
    "consumer.appraisal": {*COMPOSED, "consumer.parts"},
    "consumer.dead_letters": {*COMPOSED, "consumer.appraisal"},
    "consumer.redrive": {*COMPOSED, "consumer.dead_letters"},
    "consumer.app": {*COMPOSED, "consumer.parts"},
    "consumer.sandbox": {"consumer.sandbox", "consumer.errors"},
    "consumer.cli": {*COMPOSED, "consumer.parts", "consumer.app", "consumer.cli", "consumer.configuration",
                     "consumer.sandbox", "consumer.appraisal", "consumer.dead_letters", "consumer.redrive"},
    "consumer.__main__": {"consumer.cli", "consumer.errors"},
    "consumer": set(),
}  # fmt: skip
# the rooms of one adapter: its front may import those behind it, nobody else
FAMILIES = {
    "consumer.adapters.decoder_process": {"consumer.adapters.decoder_child"},
    "consumer.adapters.fast_transport": {"consumer.adapters.fast_connection", "consumer.adapters.fast_request"},
    "consumer.adapters.httpx_transport": {"consumer.adapters.httpx_connection"},
    "consumer.adapters.kafka_source": {
        "consumer.adapters.kafka_client",
        "consumer.adapters.kafka_commits",
        "consumer.adapters.kafka_pauses",
        "consumer.adapters.kafka_positions",
        "consumer.adapters.kafka_record",
    },
    "consumer.adapters.kafka_admin": {"consumer.adapters.kafka_client", "consumer.adapters.kafka_record"},
    "consumer.adapters.kafka_dead_letters": {"consumer.adapters.kafka_client", "consumer.adapters.kafka_record"},
    "consumer.adapters.kafka_redrive": {"consumer.adapters.kafka_client"},
    "consumer.adapters.kafka_forwarder": {"consumer.adapters.kafka_client"},
    "consumer.adapters.kafka_offsets": {"consumer.adapters.kafka_ages", "consumer.adapters.kafka_client"},
    "consumer.adapters.kafka_replay": {"consumer.adapters.kafka_offsets", "consumer.adapters.kafka_positions"},
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(name: str, source: str) -> Iterator[str]:
    """Each module that *source* imports: `from consumer import app` is `consumer.app`, relative ones are resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".") if name in PATHS and PATHS[name].stem == "__init__" else name.split(".")[:-1]
            base = ".".join([*package[: len(package) + 1 - node.level], *filter(None, [node.module])])
            start = base if node.level else node.module or ""
            for alias in node.names:
                inner = f"{start}.{alias.name}"
                yield inner if inner in PATHS else start


def is_within(name: str, roots: set[str]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def wrong_imports(name: str, source: str) -> list[str]:
    """Return what *name* imports against the rules."""
    fits = [part for part in MAY_IMPORT if is_within(name, {part}) and (part != "consumer" or name == part)]
    assert fits, f"{name} has no rule: say in MAY_IMPORT what it may import"
    allowed = MAY_IMPORT[max(fits, key=len)] | FAMILIES.get(name, set())
    found = {module for module in imports_of(name, source) if is_within(module, {"consumer"})}
    return sorted(module for module in found - {"consumer"} if not is_within(module, allowed))


def impurities(name: str, source: str) -> list[str]:
    """Return what the core's *name* touches of the outside world."""
    tree = ast.parse(source)
    modules = {module for module in imports_of(name, source) if not is_within(module, {"consumer"})}
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return sorted({m for m in modules if not is_within(m, PURE)} | names & IMPURE_NAMES | calls & {"open", "print"})


@pytest.mark.parametrize("name", PATHS)
def test_imports_point_one_way(name: str) -> None:
    wrong = wrong_imports(name, PATHS[name].read_text())
    assert not wrong, f"{PATHS[name].relative_to(ROOT)} may not import {', '.join(wrong)}"


@pytest.mark.parametrize("name", [name for name in PATHS if is_within(name, {"consumer.core"})])
def test_the_core_is_pure(name: str) -> None:
    impure = impurities(name, PATHS[name].read_text())
    assert not impure, f"{PATHS[name].relative_to(ROOT)} reaches the outside world by {', '.join(impure)}"


@pytest.mark.parametrize(
    ("name", "line", "wrong"),
    [
        ("consumer.core.offsets", "from consumer import pipeline", "consumer.pipeline"),
        ("consumer.core.offsets", "from ..adapters import clock", "consumer.adapters.clock"),
        ("consumer.settings", "from consumer import app", "consumer.app"),
        ("consumer.pipeline", "import consumer.adapters.clock", "consumer.adapters.clock"),
        ("consumer.pipeline", "from consumer.settings import Settings", "consumer.settings"),
        ("consumer.adapters.clock", "def f():\n    from consumer.adapters import tls", "consumer.adapters.tls"),
        ("consumer.adapters.kafka_record", "from . import kafka_source", "consumer.adapters.kafka_source"),
        ("consumer.adapters", "from . import tls", "consumer.adapters.tls"),
        ("consumer.adapters.httpx_transport", "from consumer.adapters.fast_request import x",
         "consumer.adapters.fast_request"),
        ("consumer.app", "from consumer.cli import run", "consumer.cli.run"),
        ("consumer.sandbox.checker", "from consumer.core import payload", "consumer.core.payload"),
        ("consumer.sandbox.demo", "import consumer.adapters.kafka_admin", "consumer.adapters.kafka_admin"),
        ("consumer.telemetry.logs", "from consumer import settings", "consumer.settings"),
    ],
)  # fmt: skip
def test_a_wrong_import_is_found(name: str, line: str, wrong: str) -> None:
    assert wrong_imports(name, line) == [wrong]


def test_a_module_without_a_rule_is_found() -> None:
    with pytest.raises(AssertionError, match="novelty has no rule"):
        wrong_imports("consumer.novelty", "")


@pytest.mark.parametrize(
    "line",
    [*(f"import {module}" for module in ("asyncio", "asyncio.events", "time", "random", "socket", "threading",
                                         "os.path", "logging", "structlog", "httpx", "confluent_kafka", "secrets")),
     "from urllib import request", "from urllib.request import urlopen", "from time import monotonic",
     "from uuid import uuid4", "moment = datetime.now(UTC)", "open('a')"],
)  # fmt: skip
def test_an_impure_line_is_found(line: str) -> None:
    assert impurities("consumer.core.offsets", line)


def test_the_standard_library_is_named_as_it_is() -> None:
    assert {module.split(".")[0] for module in PURE} - set(sys.stdlib_module_names) == {"orjson"}
