"""Each test gets a topic, a group and a folder of its own on the one real broker."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.canary_setup import make_registry, wire
from tests.support.kafka import RealKafka
from tests.support.processes import SandboxProcess, Setup, sandbox
from tests.support.registry import Registry
from tests.support.secure_kafka import SecureKafka

MakeSetup = Callable[..., Setup]


@pytest.fixture
def kochava(tmp_path: Path) -> Iterator[SandboxProcess]:
    with sandbox(tmp_path / "sandbox") as process:
        yield process


@pytest.fixture(params=["classic", "consumer"])
def group_protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def setup(kafka: RealKafka, kochava: SandboxProcess, tmp_path: Path, request: pytest.FixtureRequest) -> Setup:
    """Settings for this test, with the protocol of `group_protocol` if the test asks for it."""
    protocol = request.getfixturevalue("group_protocol") if "group_protocol" in request.fixturenames else "classic"
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:80]
    return Setup(kafka, tmp_path, name, f"{kochava.url}/track/json", group_protocol=protocol)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with make_registry() as registry:
        yield registry


@pytest.fixture
def wired(setup: Setup, kafka: SecureKafka, registry: Registry, tmp_path: Path) -> Setup:
    """Settings with a marker for every secret."""
    wire(setup, kafka, registry, tmp_path)
    return setup
