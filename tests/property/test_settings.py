"""Whatever configuration: settings that hold every rule, or one refusal that names every mistake and tells no value.

Rules between keys are written here a second time; a configuration loads exactly when they hold.
"""

import io
import json
import math
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st

from consumer.__main__ import _run
from consumer.adapters.fast_request import Endpoint, RequestWriter
from consumer.cli.settings import example_toml
from consumer.configuration import load
from consumer.errors import ExitCode, SettingsError
from consumer.settings import Settings
from tests.support.configurations import (
    CANARY,
    SECTIONS,
    Configuration,
    Mistake,
    configurations,
    environment_text,
    is_secret,
    mistakes,
    variable,
)

relaxed = hypothesis_settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


def rendered(made: Configuration, folder: Path) -> tuple[Path, dict[str, str]]:
    def write_secret(secret: str) -> str:
        path = folder / f"secret-{abs(hash(secret))}"
        path.write_text(secret + "\n")
        return str(path)

    text, environ = made.render(write_secret)
    path = folder / "kochava.toml"
    path.write_text(text, "utf-8")
    return path, environ


def minimal() -> Configuration:
    return Configuration({
        "kafka": {"bootstrap_servers": "b:1", "group_id": "g", "topics": ["t"], "start": "latest"},
        "kochava": {"apps": {"game": {"guid": "g"}}},
    })  # fmt: skip


def tried(path: Path, environ: dict[str, str]) -> tuple[Settings | None, tuple[str, ...]]:
    try:
        return load(path, environ), ()
    except SettingsError as refused:
        return None, refused.problems


def rules_hold(made: Configuration) -> bool:
    """The rules between keys, as the reference and the house state them."""
    value = {
        "delivery.connect_timeout_s": 5, "delivery.request_timeout_s": 8, "delivery.retry_budget_s": 20,
        "delivery.drain_timeout_s": 25, "kafka.max_poll_interval_ms": 300_000, "kafka.session_timeout_ms": 45_000,
        "delivery.backoff_initial_s": 0.25, "delivery.backoff_max_s": 5, "delivery.connections": 512,
        "delivery.max_in_flight_records": 1024, "delivery.max_span_records": 100_000, "retry.topic_prefix": "",
        **made.leaves(),
    }  # fmt: skip
    prefix = value["retry.topic_prefix"] or f"{value['kafka.topics'][0]}.kochava"
    return (
        value["delivery.connect_timeout_s"] <= value["delivery.request_timeout_s"]
        and value["delivery.request_timeout_s"] < value["delivery.retry_budget_s"] < value["delivery.drain_timeout_s"]
        and value["delivery.drain_timeout_s"] * 1000 < value["kafka.max_poll_interval_ms"]
        and value["kafka.session_timeout_ms"] < value["kafka.max_poll_interval_ms"]
        and value["delivery.backoff_initial_s"] <= value["delivery.backoff_max_s"]
        and value["delivery.connections"]
        <= value["delivery.max_in_flight_records"]
        <= value["delivery.max_span_records"]
        and value.get("delivery.min_connections", 1) <= value["delivery.connections"]
        and not (value.get("delivery.burst") is not None and value.get("delivery.max_per_s") is None)
        and not ("delivery.proxy" in value and value.get("delivery.transport") == "fast")
        and ("schemas.registry_username" in value) == ("schemas.registry_password" in value)
        and not ("schemas.registry_token" in value and "schemas.registry_username" in value)
        and (value.get("schemas.wire") == "plain") == ("schemas.plain" in value)
        and not any(topic.startswith(f"{prefix}.") for topic in value["kafka.topics"])
    )


def check_nesting(settings: Settings) -> None:
    """What `docs/settings.md` promises of whatever loads, asked of the result."""
    delivery, kafka = settings.delivery, settings.kafka
    assert delivery.connect_timeout_s <= delivery.request_timeout_s < delivery.retry_budget_s < delivery.drain_timeout_s
    assert delivery.drain_timeout_s < kafka.max_poll_interval_ms / 1000
    assert delivery.drain_timeout_s + delivery.close_timeout_s < settings.watchdog_s < settings.grace_s
    for section in Settings.model_fields:
        for name, value in getattr(settings, section):
            assert not isinstance(value, float) or math.isfinite(value), f"{section}.{name}: a bound must bound"


@relaxed
@given(configurations())
def test_a_configuration_loads_exactly_when_the_rules_between_its_keys_hold(folder: Path, made: Configuration) -> None:
    path, environ = rendered(made, folder)
    settings, problems = tried(path, environ)
    assert rules_hold(made) == (settings is not None), problems
    assert CANARY not in str(problems)
    if settings is None:
        return
    check_nesting(settings)
    # what loads can be worked with: nothing is left to be found out at the first event
    RequestWriter(Endpoint.parse(settings.kochava.endpoint), settings.kochava.user_agent)
    for key, value in made.leaves().items():
        section, _, name = key.partition(".")
        loaded = getattr(getattr(settings, section), name)
        if is_secret(key):
            assert loaded.get_secret_value() == value
        elif isinstance(value, str | bool | int | float) and isinstance(loaded, type(value)):
            assert loaded == value


@relaxed
@given(configurations(), st.lists(mistakes(), min_size=1, max_size=4, unique_by=lambda mistake: mistake.key))
def test_every_mistake_is_named_and_no_value_is_told(folder: Path, made: Configuration, wrong: list[Mistake]) -> None:
    for mistake in wrong:
        mistake.apply(made)
    path, environ = rendered(made, folder)
    with pytest.raises(SettingsError) as caught:
        load(path, environ)
    assert caught.value.exit_code is ExitCode.SETTINGS
    found = caught.value.problems
    assert len(set(found)) == len(found)
    assert CANARY not in str(caught.value)
    for mistake in wrong:
        assert any(problem.startswith(mistake.says) for problem in found), (mistake.says, found)


NUMBERS = {
    f"{section}.{name}": node
    for section, properties in SECTIONS.items()
    for name, node in properties.items()
    if node.get("type") in {"integer", "number"}
}


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "1 parsec"])
def test_a_number_that_bounds_nothing_is_refused(folder: Path, value: float | str) -> None:
    for key, node in NUMBERS.items():
        if value == node.get("minimum"):  # where it means "off"
            continue
        made = minimal()
        section, _, name = key.partition(".")
        made.tree.setdefault(section, {})[name] = value
        settings, problems = tried(*rendered(made, folder))
        assert settings is None, key
        assert problems[0].startswith(f"{key}: "), problems


def command(*arguments: str, environ: dict[str, str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    clean = patch.dict("os.environ", {"PATH": "", "COLUMNS": "200", **environ}, clear=True)
    with clean, patch.object(sys, "argv", ["kochava-consumer", *arguments]), redirect_stdout(out), redirect_stderr(err):
        code = _run()
    return code, out.getvalue(), err.getvalue()


@hypothesis_settings(relaxed, max_examples=40)
@given(configurations(), st.lists(mistakes(), max_size=2, unique_by=lambda mistake: mistake.key))
def test_the_command_shows_what_is_in_force_or_says_what_is_wrong(
    folder: Path, made: Configuration, wrong: list[Mistake]
) -> None:
    for mistake in wrong:
        mistake.apply(made)
    path, environ = rendered(made, folder)
    code, out, err = command("settings", "--json", "--config", str(path), environ=environ)
    assert CANARY not in out + err
    assert "Traceback" not in err
    if code == ExitCode.SETTINGS:
        assert out == ""
        assert err
        assert all(line.startswith("error: ") for line in err.splitlines())
        return
    assert (code, err, wrong) == (ExitCode.OK, "", [])
    shown = json.loads(out)
    for key in made.leaves():
        given_by = f"{variable(key)}{' (file)' if key in made.from_file else ''}"
        if key in made.from_environment and key in made.from_file:
            given_by = f"{variable(key)}_FILE (file)"
        assert shown[key]["from"] == (given_by if key in made.from_environment else "kochava.toml")


@relaxed
@given(
    st.sampled_from(["kafka", "kochava", "delivery", "schemas", "log"]),
    st.sampled_from([5, CANARY, [1], True, [{"x": CANARY}]]),
    st.dictionaries(st.sampled_from(["kafka.group_id", "delivery.connections", "kochava.apps", "log.level"]),
                    st.sampled_from(["{}", "1", "[", "9" * 5000, "[" * 9, "\udcff"]), max_size=3),
)  # fmt: skip
def test_a_section_that_is_no_table_is_named_whatever_the_environment_adds(
    folder: Path, section: str, value: Any, environment: dict[str, str]
) -> None:
    made = Configuration({section: value}, environment={variable(key): text for key, text in environment.items()})
    path, environ = rendered(made, folder)
    with pytest.raises(SettingsError) as caught:
        load(path, environ)
    assert any(problem.startswith(f"{section}") for problem in caught.value.problems), caught.value.problems
    assert CANARY not in str(caught.value)


@relaxed
@given(st.one_of(st.text(max_size=60), st.sampled_from(["a = " + "9" * 5000, "a = " + "[" * 5000, "a = 1e99999"])))
def test_any_text_as_a_file_is_refused_in_words(folder: Path, text: str) -> None:
    path = folder / "any.toml"
    path.write_text(text, "utf-8", "surrogatepass")
    with pytest.raises(SettingsError):
        load(path, {})


urls = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["https", "http", "ftp", "HTTPS", ""]),
        st.sampled_from(["://", ":/", ""]),
        st.sampled_from(["", f"u:{CANARY}@", f"{CANARY}@", f"u:{CANARY}\u2100@", "@"]),
        st.sampled_from(
            ["kochava.example", "[::1]", "[", "[::1", "10.0.0.1", "exämple.com", "a b", "\u2100", "x" * 70, ""]
        ),
        st.sampled_from(["", ":443", ":99999", ":x", ":-1", ":"]),
        st.sampled_from(["", "/", "/ä", "/a b", "/x#f", "?q=1", "/\n", "/\x00"]),
    ),
)


@relaxed
@given(st.sampled_from(["kochava.endpoint", "schemas.registry_url", "delivery.proxy"]), urls)
def test_any_url_is_refused_by_its_key_or_can_be_connected_to(folder: Path, key: str, url: str) -> None:
    made = minimal()
    section, _, name = key.partition(".")
    made.tree.setdefault(section, {})[name] = url
    path, environ = rendered(made, folder)
    settings, problems = tried(path, environ)
    assert CANARY not in str(problems)
    if settings is None:
        assert all(problem.startswith(key) for problem in problems), problems
        return
    loaded = getattr(getattr(settings, section), name)
    endpoint = Endpoint.parse(re.sub("//.*@", "//", loaded) if key == "delivery.proxy" else loaded)
    assert endpoint.host
    assert CANARY not in loaded or key == "delivery.proxy"


def test_the_example_with_every_default_written_out_is_the_example(folder: Path) -> None:
    """Excludes: a default that is shown and isn't the one in force."""
    example = example_toml()
    keys, table, tables = example.partition("[kafka.client]")
    written_out, count = re.subn(r'^# (\w+ = (?!"").+)$', r"\1", keys, flags=re.MULTILINE)
    assert count > 50
    loaded = []
    for text in (example, written_out + table + tables):
        (folder / "example.toml").write_text(text)
        loaded.append(load(folder / "example.toml", {}))
    assert loaded[0].model_dump() == loaded[1].model_dump()


def test_the_example_says_the_same_from_the_environment(folder: Path) -> None:
    (folder / "example.toml").write_text(example_toml())
    from_file = load(folder / "example.toml", {})
    dumped = from_file.model_dump(mode="json", exclude_unset=True)
    environ = {
        variable(f"{section}.{name}"): environment_text(value)
        for section, table in dumped.items()
        for name, value in table.items()
    }
    assert load(None, environ) == from_file
