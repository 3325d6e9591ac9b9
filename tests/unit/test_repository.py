"""What is in the repository, and in the wheel that is made of it."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.kafka import ROOT

# written apart, so that this file doesn't hold what it looks for
NEEDLES = [
    "py" + "pi.org", "python" + "hosted", "registry." + "npmjs", "repo1." + "maven", "proxy." + "golang",
    "deb." + "debian", "/wo" + "rk/", "/fa" + "rm/", "farm-" + "bench", "farm-" + "studio", "/tmp/" + "brief",
    "iss" + "ue 3",
]  # fmt: skip


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:  # an unpacked archive has no history
        made = {".venv", ".venv-bench", ".cache"}
        return [path for path in ROOT.rglob("*") if path.is_file() and not made.intersection(path.parts)]
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("needle", NEEDLES)
def test_no_file_names_a_registry_or_a_path_of_one_machine(needle: str) -> None:
    found = [path for path in tracked() if needle in path.read_text("utf-8", "ignore")]
    assert found == []


def silent_skips(source: str) -> list[int]:
    """Return the lines that leave a test out, or let it fail, and don't say why."""
    found = []
    tree = ast.parse(source)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            reasons = {each.arg for each in node.keywords if isinstance(each.value, ast.Constant) and each.value.value}
            name, said = node.func.attr, "reason" in reasons
            if name == "skip":
                said |= bool(node.args)
            if name in {"skip", "skipif", "xfail", "importorskip"} and not said:
                found.append(node.lineno)
        elif isinstance(node, ast.Attribute) and node.attr in {"skip", "xfail"} and id(node) not in called:
            found.append(node.lineno)
    return found


def test_no_test_is_left_out_silently() -> None:
    found = {path.name: silent_skips(path.read_text()) for path in (ROOT / "tests").rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    ["@pytest.mark.skip\ndef test(): ...", "@pytest.mark.skip()\ndef test(): ...", "pytest.skip()",
     "@pytest.mark.skipif(True)\ndef test(): ...", "@pytest.mark.xfail\ndef test(): ...", "pytest.importorskip('x')"],
)  # fmt: skip
def test_a_silent_skip_is_found(line: str) -> None:
    assert silent_skips(line)


def test_every_dependency_is_pinned_by_hash() -> None:
    for name in ("requirements.lock", "requirements-dev.lock", "requirements-bench.lock", "requirements-build.lock"):
        text = (ROOT / name).read_text()
        packages = re.findall(r"^([a-z0-9][\w.-]*)==", text, re.MULTILINE)
        assert packages
        for block in re.split(r"\n(?=[a-z0-9])", text.strip()):
            assert "--hash=sha256:" in block, block[:80]
        assert "index-url" not in text


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_schemas_mapping_and_sandbox_and_runs_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    for name in ("schemas/in_app_event.v1.avsc", "schemas/in_app_event.v2.avsc", "mapping.toml", "py.typed",
                 "sandbox/server.py", "sandbox/mock_cluster.py"):  # fmt: skip
        assert f"consumer/{name}" in names
    assert not [name for name in names if name.startswith("tests")]
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "consumer", *arguments],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import consumer; print(consumer.__file__)"],
        cwd=empty, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert str(tmp_path / "site") in where
    assert "sandbox" in run("--help")
    (empty / "kochava.toml").write_text(run("settings", "--example"))
    assert "in-app-events" in run("settings", "--config", "kochava.toml")
    assert "0 lost" in re.sub(r" +", " ", run("demo", "--events", "1000"))
