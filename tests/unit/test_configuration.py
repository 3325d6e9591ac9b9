"""Settings: every refusal, all problems at once, and no value of anybody's in them."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from consumer.cli.settings import example_toml, reference
from consumer.configuration import load, load_with_sources
from consumer.errors import ExitCode, SettingsError
from consumer.settings import OWNED_PROPERTIES, Settings
from tests.support.kafka import ROOT

MINIMAL = """
[kafka]
bootstrap_servers = "broker:9092"
group_id = "kochava"
topics = ["in-app-events"]
start = "latest"
[kochava.apps."com.example.game/ios"]
guid = "ko-1"
"""


def problems(path: Path, text: str, **environ: str) -> list[str]:
    path = path / "kochava.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(path, environ)
    assert caught.value.exit_code is ExitCode.SETTINGS
    return list(caught.value.problems)


def loaded(path: Path, text: str = MINIMAL, **environ: str) -> Settings:
    path = path / "kochava.toml"
    path.write_text(text)
    return load(path, environ)


def test_a_small_file_is_enough_and_names_our_topics(tmp_path: Path) -> None:
    settings = loaded(tmp_path)
    assert settings.topic_prefix == "in-app-events.kochava"
    assert settings.retry.tiers == ("30s", "5m", "1h")
    assert settings.delivery.max_in_flight_bytes == 32 * 1024 * 1024
    assert (settings.watchdog_s, settings.grace_s) == (35, 43)


def test_the_environment_beats_the_file_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "kochava.toml"
    path.write_text(MINIMAL)
    environ = {
        "KOCHAVA_CONSUMER_CONFIG": str(path),
        "KOCHAVA_CONSUMER_KAFKA__GROUP_ID": "other",
        "KOCHAVA_CONSUMER_KAFKA__TOPICS": "a, b",
        "KOCHAVA_CONSUMER_RETRY__TIERS": '["1s", "2s"]',
        "KOCHAVA_CONSUMER_KOCHAVA__APPS": json.dumps({"game": {"guid": "g", "enabled": False}}),
        "UNRELATED": "x",
    }
    found = load_with_sources(None, environ)
    assert found.settings.kafka.group_id == "other"
    assert found.settings.kafka.topics == ("a", "b")
    assert found.settings.retry.tiers == ("1s", "2s")
    assert not found.settings.kochava.apps["game"].enabled
    assert found.sources["kafka.group_id"] == "KOCHAVA_CONSUMER_KAFKA__GROUP_ID"
    assert found.sources["kafka.start"] == "kochava.toml"
    assert "delivery.connections" not in found.sources


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    text = """
[kafka]
bootstrap_server = "broker:9092"
group_id = ""
topics = []
start = "2026-11-01T00:00:00"
[kafka.client]
"auto.offset.reset" = "latest"
[kochava]
endpoint = "http://example.com/"
[kochava.apps."game/ios"]
guid = "g"
api_key = "k"
[delivery]
request_timeout_s = 30
max_in_flight_bytes = "lots"
[retry]
tiers = ["5m", "30s"]
"""
    found = problems(tmp_path, text, KOCHAVA_CONSUMER_KAFKA__GROUPID="x")
    for part in (
        "kafka.bootstrap_server: unknown key; did you mean kafka.bootstrap_servers?",
        "KOCHAVA_CONSUMER_KAFKA__GROUPID: unknown variable; did you mean KOCHAVA_CONSUMER_KAFKA__GROUP_ID?",
        "kafka.bootstrap_servers: required",
        "kafka.group_id: ",
        "kafka.topics: ",
        "kafka.start: a time needs a zone",
        'kafka.client."auto.offset.reset" is ours',
        "kochava.endpoint: plain http",
        'kochava.apps."game/ios": api_key and app_secret go together',
        "delivery.request_timeout_s must be below delivery.retry_budget_s",
        "delivery.max_in_flight_bytes: write a size",
        "retry.tiers must grow",
    ):
        assert any(problem.startswith(part) for problem in found), part
    assert len(found) == 12, found


@pytest.mark.parametrize(
    ("table", "line", "says"),
    [
        ("delivery", "retry_budget_s = 26", "delivery.retry_budget_s must be below delivery.drain_timeout_s"),
        ("delivery", "drain_timeout_s = 300", "must be below kafka.max_poll_interval_ms"),
        (
            "delivery",
            "connect_timeout_s = 9",
            "delivery.connect_timeout_s must not be above delivery.request_timeout_s",
        ),
        ("delivery", "connections = 2000", "delivery.connections must not be above delivery.max_in_flight_records"),
        ("delivery", "max_span_records = 10", "delivery.max_span_records must not be below"),
        ("delivery", 'transport = "fast"\nproxy = "http://proxy:3128"', 'delivery.transport = "httpx"'),
        ("kochava", 'endpoint = "http://kochava.example/x"', "plain http"),
        ("kochava", 'endpoint = "https://user:word@kochava.example/x"', "must not hold a user or password"),
        ("kochava", 'endpoint = "https://10.0.0.1/x"', "private address"),
        ("kochava", 'endpoint = "control.kochava.com"', "write a URL"),
        ("schemas", 'registry_url = "http://registry:8081"', "plain http"),
        ("schemas", 'registry_username = "u"', "go together"),
        ("schemas", 'wire = "plain"', "schemas.plain"),
        ("admin", 'listen = "9464"', "write host:port"),
        ("dead_letter", "max_share = 2", "dead_letter.max_share"),
        ("log", 'level = "loud"', "log.level"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, table: str, line: str, says: str) -> None:
    found = problems(tmp_path, f"{MINIMAL}\n[{table}]\n{line}\n")
    assert any(says in problem for problem in found), found


@pytest.mark.parametrize("name", sorted(OWNED_PROPERTIES))
def test_a_client_property_that_we_own_is_refused_by_name(tmp_path: Path, name: str) -> None:
    assert any(name in problem for problem in problems(tmp_path, f'{MINIMAL}\n[kafka.client]\n"{name}" = "x"\n'))


@pytest.mark.parametrize(
    "lines",
    [
        '"enable.ssl.certificate.verification" = false', '"enable.ssl.certificate.verification" = 0',
        '"enable.ssl.certificate.verification" = "F"', '"enable.ssl.certificate.verification" = "FALSE"',
        '"ssl.endpoint.identification.algorithm" = "None"', '"enable.sasl.oauthbearer.unsecure.jwt" = "t"',
        '"security.protocol" = "sasl_plaintext"\n"sasl.mechanisms" = "PLAIN"',
    ],
)  # fmt: skip
def test_insecure_client_properties_need_to_be_meant(tmp_path: Path, lines: str) -> None:
    """In every spelling that librdkafka takes."""
    text = f"{MINIMAL}[kafka.client]\n{lines}\n"
    (problem,) = problems(tmp_path, text)
    assert "allow_insecure" in problem
    meant = loaded(tmp_path, text.replace("[kafka]", "[kafka]\nallow_insecure = true"))
    assert meant.kafka.insecure[0] in lines, "and run says so"
    assert loaded(tmp_path).kafka.insecure == ()


def test_no_apps_would_dead_letter_everything(tmp_path: Path) -> None:
    text = MINIMAL.partition("[kochava.apps")[0]
    assert "every event would be a dead letter" in problems(tmp_path, text)[0]
    assert loaded(tmp_path, text + '[kochava]\nunknown_app = "hold"\n').kochava.apps == {}


def test_an_own_topic_among_the_sources_is_refused(tmp_path: Path) -> None:
    text = MINIMAL.replace('["in-app-events"]', '["in-app-events", "in-app-events.kochava.held"]')
    assert "topic of our own" in problems(tmp_path, text)[0]


def test_secrets_come_from_files_and_are_never_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secret").write_text("CANARY-secret\n")
    file = tmp_path / "secret"
    text = MINIMAL.replace('guid = "ko-1"', f'guid = "ko-1"\napi_key_file = "{file}"\napp_secret_file = "{file}"')
    text += f'[kafka.client]\n"sasl.password_file" = "{file}"\n'
    text += '[schemas]\nregistry_url = "https://r"\nregistry_username = "u"\n'
    settings = loaded(tmp_path, text, KOCHAVA_CONSUMER_SCHEMAS__REGISTRY_PASSWORD_FILE=str(file))
    assert settings.kafka.client_properties() == {"sasl.password": "CANARY-secret"}
    app = settings.kochava.apps["com.example.game/ios"]
    assert app.api_key is not None
    assert app.api_key.get_secret_value() == "CANARY-secret"
    assert settings.schemas.registry_password is not None
    from click.testing import CliRunner

    from consumer.cli import root

    for arguments in (["settings"], ["settings", "--json"]):
        environ = {"KOCHAVA_CONSUMER_CONFIG": str(tmp_path / "kochava.toml"),
                   "KOCHAVA_CONSUMER_SCHEMAS__REGISTRY_PASSWORD": "CANARY-direct"}  # fmt: skip
        done = CliRunner().invoke(root, arguments, env=environ, catch_exceptions=False)
        assert "CANARY" not in done.output
        assert "********" in done.output
    wrong = text.replace("[schemas]", '[schemas]\nwire = "CANARY-wire"')
    assert not any("CANARY" in problem for problem in problems(tmp_path, wrong))
    assert "CANARY" not in repr(settings.kochava)


def test_secret_files_inside_of_tables_in_the_environment_are_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("CANARY-secret\n")
    file = str(tmp_path / "secret")
    client = {"sasl.username": "me", "sasl.password_file": file}
    apps = {"game": {"guid": "g", "api_key_file": file, "app_secret_file": file}}
    settings = loaded(
        tmp_path,
        MINIMAL,
        KOCHAVA_CONSUMER_KAFKA__CLIENT=json.dumps(client),
        KOCHAVA_CONSUMER_KOCHAVA__APPS=json.dumps(apps),
    )
    assert settings.kafka.client_properties() == {"sasl.username": "me", "sasl.password": "CANARY-secret"}
    assert settings.kochava.apps["game"].api_key is not None
    assert "CANARY" not in repr(settings)


def test_a_password_that_came_from_a_file_is_known_to_have(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("CANARY-secret\n")
    file = tmp_path / "secret"
    user = f'{MINIMAL}[kafka.client]\n"sasl.username" = "me"\n'
    by_property = loaded(tmp_path, f'{user}"sasl.password_file" = "{file}"\n')
    by_variable = loaded(tmp_path, user, KOCHAVA_CONSUMER_KAFKA__SASL_PASSWORD_FILE=str(file))
    for settings in (by_property, by_variable):
        assert settings.kafka.password_file is not None
        assert settings.kafka.password_file.path == file
    assert loaded(tmp_path, user, KOCHAVA_CONSUMER_KAFKA__SASL_PASSWORD="x").kafka.password_file is None
    both = loaded(tmp_path, f'{user}"sasl.password_file" = "{file}"\n', KOCHAVA_CONSUMER_KAFKA__SASL_PASSWORD="x")
    assert both.kafka.password_file is None, "the setting beats the property, and it has no file"
    assert both.kafka.client_properties()["sasl.password"] == "x"


def test_an_empty_secret_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    file = str(tmp_path / "secret")
    found = problems(tmp_path, MINIMAL, KOCHAVA_CONSUMER_KAFKA__SASL_PASSWORD_FILE=file)
    assert found == ["KOCHAVA_CONSUMER_KAFKA__SASL_PASSWORD_FILE: the file is empty"]


def test_the_password_of_a_proxy_is_not_shown(tmp_path: Path) -> None:
    from consumer.cli.settings import effective

    settings = loaded(tmp_path, KOCHAVA_CONSUMER_DELIVERY__PROXY="http://user:CANARY-word@proxy:8080")
    assert dict(effective(settings))["delivery.proxy"] == "http://********@proxy:8080"


def test_a_secret_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = problems(tmp_path, MINIMAL, KOCHAVA_CONSUMER_KAFKA__SASL_PASSWORD_FILE="/nowhere/secret")
    assert found == ["KOCHAVA_CONSUMER_KAFKA__SASL_PASSWORD_FILE: the file cannot be read (No such file or directory)"]


def test_the_example_loads_as_it_is_and_the_reference_is_current(tmp_path: Path) -> None:
    assert loaded(tmp_path, example_toml()).kafka.topics == ("in-app-events",)
    assert (ROOT / "docs" / "settings.md").read_text() == reference(), "make docs"


def test_the_readmes_configuration_loads(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    assert loaded(tmp_path, readme.split("```toml\n")[1].partition("```")[0]).kafka.group_id == "kochava"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
sections = st.dictionaries(
    st.sampled_from([*Settings.model_fields, "other"]),
    st.dictionaries(st.sampled_from(["topics", "client", "apps", "tiers", "listen", "endpoint", "x"]), values) | values,
)


@given(sections)
@hypothesis_settings(max_examples=150, deadline=None)
def test_any_environment_of_tables_loads_or_is_refused(tree: dict[str, object]) -> None:
    environ = {}
    for section, table in tree.items():
        for key, value in table.items() if isinstance(table, dict) else [("x", table)]:
            environ[f"KOCHAVA_CONSUMER_{section}__{key}".upper()] = json.dumps(value)
    with pytest.raises(SettingsError):
        load(None, environ)
