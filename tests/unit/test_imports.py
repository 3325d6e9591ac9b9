"""Imports point one way (docs/architecture.md), and the core touches nothing of the outside world."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kafka import ROOT

PACKAGE = ROOT / "consumer"
IMPURE = {"asyncio", "time", "random", "socket", "threading", "queue", "logging", "os", "subprocess", "structlog",
          "httpx", "confluent_kafka", "uvloop", "requests", "urllib.request", "secrets"}  # fmt: skip
VALUES = {"consumer.errors"}
PARTS = {
    "consumer.core": {"consumer.core", *VALUES},
    "consumer.ports": {"consumer.core"},
    "consumer.envelope": {"consumer.core", "consumer.ports"},
    "consumer.telemetry": {"consumer.telemetry", "consumer"},
    "consumer.health": set(),
    "consumer.settings": {"consumer.core", "consumer"},
    "consumer.configuration": {"consumer.settings", *VALUES},
    "consumer.sandbox": {"consumer.sandbox", *VALUES},
}
INNER = {"consumer.core", "consumer.ports", "consumer.errors", "consumer.telemetry", "consumer.envelope"}
PIPELINE = {
    f"consumer.{name}" for name in ("pipeline", "delivery", "forwarding", "settlement", "translate", "rebalance")
}
ADAPTER_FAMILIES = ("kafka", "fast", "avro", "schema", "httpx", "admin", "mapping", "clock", "tls", "shadow")


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def is_within(name: str, roots: set[str]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots - {"consumer"}) or (
        "consumer" in roots and name == "consumer"
    )


@pytest.mark.parametrize(("name", "path"), [*modules()], ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_one_way(name: str, path: Path) -> None:
    ours = {module for module in imports_of(path) if module == "consumer" or module.startswith("consumer.")}
    for part, allowed in PARTS.items():
        if is_within(name, {part}):
            assert all(is_within(module, allowed) for module in ours), f"{name} may import {allowed} only, not {ours}"
    if name in PIPELINE:
        assert all(is_within(module, INNER | PIPELINE) for module in ours), f"{name}: {ours}"
    if is_within(name, {"consumer.adapters"}):
        allowed = INNER | {"consumer.settings", "consumer.health"}
        family = next((f for f in ADAPTER_FAMILIES if name.startswith(f"consumer.adapters.{f}")), None)
        for module in ours - {"consumer"}:
            if module.startswith("consumer.adapters."):
                ours_too = family is not None and module.startswith(f"consumer.adapters.{family}")
                assert ours_too, f"{name} imports another adapter: {module}"
            else:
                assert is_within(module, allowed), f"{name} imports {module}"


@pytest.mark.parametrize(
    ("name", "path"),
    [each for each in modules() if each[0].startswith("consumer.core")],
    ids=lambda value: str(value)[-30:],
)
def test_the_core_is_pure(name: str, path: Path) -> None:
    assert not imports_of(path) & IMPURE, f"{name} reaches the outside world"
