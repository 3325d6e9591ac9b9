"""The chart renders, is valid Kubernetes, and gives the program settings that it loads."""

import re
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings as hypothesis_settings, strategies as st

from consumer import __version__
from consumer.configuration import load
from consumer.settings import Settings
from tests.support import chart_reference, helm
from tests.support.helm import Refused, Values, kubernetes_problems, lint, merged, notes, render, values_of

SECRETS_FOLDER, CONFIG_FOLDER = "/run/secrets/kochava-consumer", "/etc/kochava-consumer"
DEFAULTS = yaml.safe_load((helm.CHART / "values.yaml").read_text("utf-8"))


def load_as_a_pod_would(values: Values, folder: Path) -> Settings:
    """Lay out what the pod mounts in *folder*, and load the settings from there with the pod's environment."""
    manifests = render(values)
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    keys = {
        secret["name"]: {*secret.get("settings", {}).values()} | {"ios-key", "ios-secret"}
        for secret in values.get("existingSecrets", [])
    }
    for mount in container["volumeMounts"]:
        volume, target = volumes[mount["name"]], folder / mount["mountPath"].lstrip("/")
        if mount["name"] == "config":
            for item in volume["configMap"]["items"]:
                file = target / item["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                text = manifests["ConfigMap"]["data"][item["key"]]
                file.write_text(text.replace(SECRETS_FOLDER, f"{folder}{SECRETS_FOLDER}"), "utf-8")
        elif "secret" in volume:
            target.mkdir(parents=True)
            for key in keys[volume["secret"]["secretName"]]:
                (target / key).write_text(f"value-of-{key}\n", "utf-8")
    environ = {
        variable["name"]: variable["value"].replace("/run/", f"{folder}/run/").replace("/etc/", f"{folder}/etc/")
        for variable in container["env"]
    }
    return load(None, environ)


def test_the_defaults_ask_for_what_is_missing_all_at_once() -> None:
    with pytest.raises(Refused) as refused:
        render({})
    for key in ("bootstrap_servers", "topics", "start"):
        assert f"config.kafka.{key} is required" in str(refused.value)


@pytest.mark.parametrize("values", [{}, values_of("minimal"), values_of("full")], ids=["default", "minimal", "full"])
def test_helm_lint_finds_nothing(values: Values) -> None:
    assert lint(values) == []


def test_helm_lint_would_find_something() -> None:
    assert lint({"replicaCount": "two"})


@pytest.mark.parametrize("version", helm.KUBERNETES)
@pytest.mark.parametrize("name", ["minimal", "full"])
def test_objects_are_what_kubernetes_takes(name: str, version: str) -> None:
    manifests = render(values_of(name))
    # no definition of PodMonitor is at hand; test_the_pod_monitor_reads_the_admin_port looks at it
    problems = [
        problem
        for kind, manifest in manifests.items()
        if kind != "PodMonitor"
        for problem in kubernetes_problems(manifest, version)
    ]
    assert problems == []


def test_the_validation_would_find_an_unknown_field() -> None:
    deployment = deepcopy(render(values_of("minimal"))["Deployment"])
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 43
    assert kubernetes_problems(deployment, helm.KUBERNETES[-1])


def test_which_objects_there_are() -> None:
    assert set(render(values_of("minimal"))) == {"ConfigMap", "Deployment", "PodDisruptionBudget"}
    assert set(render(values_of("full"))) == {"ConfigMap", "Deployment", "PodDisruptionBudget", "PodMonitor"}
    assert set(render(merged(values_of("minimal"), {"podDisruptionBudget": {"enabled": False}}))) == {
        "ConfigMap",
        "Deployment",
    }


# -- the settings


@pytest.mark.parametrize("name", ["minimal", "full"])
def test_the_file_holds_exactly_what_the_values_say(name: str) -> None:
    expected = merged(DEFAULTS["config"], values_of(name)["config"])
    if name == "full":
        expected["mapping"]["file"] = f"{CONFIG_FOLDER}/mapping.toml"
        expected["schemas"]["directory"] = f"{CONFIG_FOLDER}/schemas"
    rendered = tomllib.loads(render(values_of(name))["ConfigMap"]["data"]["config.toml"])
    assert rendered == without_empty_tables(expected)


def without_empty_tables(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    return {key: without_empty_tables(value) for key, value in tree.items() if value != {}}


TEXT = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]) | st.sampled_from("\n\t\"\\'#[]={}"), max_size=20)
SCALARS = TEXT | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e15, 1e15)


@hypothesis_settings(max_examples=40, deadline=None)
@given(client=st.dictionaries(TEXT.filter(bool), SCALARS, max_size=5), tiers=st.lists(TEXT, min_size=1, max_size=3))
def test_any_value_survives_the_way_into_the_file(client: dict[str, Any], tiers: list[str]) -> None:
    values = merged(values_of("minimal"), {"config": {"kafka": {"client": client}, "retry": {"tiers": tiers}}})
    rendered = tomllib.loads(render(values)["ConfigMap"]["data"]["config.toml"])
    assert rendered["kafka"].get("client", {}) == client
    assert rendered["retry"]["tiers"] == tiers


def test_the_program_loads_the_minimal_file(tmp_path: Path) -> None:
    settings = load_as_a_pod_would(values_of("minimal"), tmp_path)
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert settings.kochava.apps["com.example.game/ios"].guid == "koexample-game-ios-1a2b3c"
    assert settings.admin.listen == "0.0.0.0:9464"


def test_the_program_loads_the_full_file_and_finds_its_secrets(tmp_path: Path) -> None:
    settings = load_as_a_pod_would(values_of("full"), tmp_path)
    assert settings.kafka.client["fetch.max.bytes"] == 8388608
    assert settings.kochava.user_agent == 'say "kochava" \\ <consumer> & co'
    assert settings.delivery.max_in_flight_bytes == 64 << 20
    assert settings.mapping.file == Path(CONFIG_FOLDER, "mapping.toml")
    assert settings.kafka.sasl_password is not None
    assert settings.kafka.sasl_password.get_secret_value() == "value-of-password"
    assert settings.schemas.registry_password is not None
    assert settings.schemas.registry_password.get_secret_value() == "value-of-value"
    app = settings.kochava.apps["com.example.game/ios"]
    assert app.app_secret is not None
    assert app.app_secret.get_secret_value() == "value-of-ios-secret"


def test_files_of_the_values_are_mounted_unchanged() -> None:
    data = render(values_of("full"))["ConfigMap"]["data"]
    assert data["mapping.toml"] == values_of("full")["mappingFile"]
    assert data["order.v1.avsc"] == values_of("full")["schemaFiles"]["order.v1.avsc"]


def test_numbers_that_the_chart_repeats_are_the_program_s() -> None:
    delivery = Settings.model_fields["delivery"].annotation.model_fields
    for key, value in DEFAULTS["config"]["delivery"].items():
        assert delivery[key].default == value
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == __version__


def test_a_change_of_any_file_is_a_rollout_and_a_new_chart_is_not() -> None:
    def checksum(changes: Values) -> str:
        template = render(merged(values_of("full"), changes))["Deployment"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    changed = [
        {"config": {"log": {"level": "info"}}},
        {"mappingFile": "# another"},
        {"schemaFiles": {"order.v1.avsc": "{}"}},
    ]
    assert len({checksum({}), *map(checksum, changed)}) == 4
    assert checksum({"replicaCount": 3}) == checksum({})
    pod_labels = render(values_of("minimal"))["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert "helm.sh/chart" not in pod_labels


def test_the_example_of_the_docs_is_one_that_the_program_loads(tmp_path: Path) -> None:
    page = (helm.CHART.parents[1] / "docs" / "deploy.md").read_text("utf-8")
    example = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(example) == 1
    settings = load_as_a_pod_would(yaml.safe_load(example[0]), tmp_path)
    assert settings.kafka.client["security.protocol"] == "SASL_SSL"
    assert settings.kafka.sasl_password is not None


# -- what is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"replicaCont": 2}, "'replicaCont' not allowed"),
        ({"image": {"name": "x"}}, "'name' not allowed"),
        ({"config": {"kafka": {"bootstrap_server": "x"}}}, "'bootstrap_server' not allowed"),
        ({"config": {"kafak": {}}}, "'kafak' not allowed"),
        ({"config": {"kochava": {"apps": {"a/ios": {"guid": "x", "enabld": True}}}}}, "'enabld' not allowed"),
        ({"replicaCount": "2"}, "/replicaCount"),
        ({"config": {"delivery": {"drain_timeout_s": "25"}}}, "/config/delivery/drain_timeout_s"),
        ({"config": {"delivery": {"drain_timeout_s": None}}}, "'drain_timeout_s'"),
        ({"config": {"kafka": {"topics": "in-app-events"}}}, "/config/kafka/topics"),
        ({"config": {"delivery": {"transport": "curl"}}}, "/config/delivery/transport"),
        ({"image": {"digest": "sha256:short"}}, "/image/digest"),
        ({"maxSurge": 2}, "/maxSurge"),
        ({"schemaFiles": {"../a.avsc": "{}"}}, "../a.avsc"),
        ({"podLabels": {"app.kubernetes.io/name": "other"}}, "app.kubernetes.io/name"),
        ({"config": {"kafka": {"sasl_password": "x"}}}, "'sasl_password' not allowed"),
        ({"config": {"kafka": {"client": {"sasl.password": "x"}}}}, "sasl.password"),
        ({"config": {"kochava": {"apps": {"a/ios": {"guid": "x", "api_key": "y"}}}}}, "'api_key' not allowed"),
        ({"existingSecrets": [{"name": "a", "settings": {"kafka.group_id": "b"}}]}, "kafka.group_id"),
        ({"config": {"admin": {"listen": "127.0.0.1:9464"}}}, "config.admin.listen"),
        ({"config": {"admin": {"listen": ""}}}, "config.admin.listen"),
        ({"mappingFile": "a", "config": {"mapping": {"file": "b"}}}, "mappingFile"),
        ({"schemaFiles": {"a.avsc": "{}"}, "config": {"schemas": {"directory": "b"}}}, "schemaFiles"),
        ({"extraEnv": [{"name": "KOCHAVA_CONSUMER_DELIVERY__DRAIN_TIMEOUT_S", "value": "99"}]}, "extraEnv"),
        ({"podMonitor": {"enabled": True}}, "podMonitor.assumeApi"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_by_name(changes: Values, words: str) -> None:
    with pytest.raises(Refused) as refused:
        render(merged(values_of("minimal"), changes))
    assert words in str(refused.value)


# -- what is said twice


def test_the_values_schema_follows_the_settings() -> None:
    assert chart_reference.SCHEMA.read_text("utf-8") == chart_reference.schema_text(), (
        "run: python -m tests.support.chart_reference"
    )


def test_the_readme_follows_the_values() -> None:
    assert chart_reference.README.read_text("utf-8") == chart_reference.readme_text(), (
        "run: python -m tests.support.chart_reference"
    )


def test_every_value_is_described() -> None:
    described = chart_reference.descriptions()
    assert [name for name, _ in chart_reference.leaves(DEFAULTS) if not described.get(name)] == []


def test_notes_hold_no_secret_and_the_real_port() -> None:
    text = notes(values_of("full"))
    assert "9464:9500" in text
    assert "120 s" in text
    assert "password" not in text
