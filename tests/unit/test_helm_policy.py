"""What every pod of the chart must be: restricted, with time to drain, watched by the right probes, without secrets."""

import json
import math
import re
import tomllib
from typing import Any

import pytest

from consumer.adapters.admin_server import PATHS
from consumer.settings import Settings
from tests.support import helm
from tests.support.helm import Refused, Values, merged, render, values_of

EACH = pytest.mark.parametrize("name", ["minimal", "full"])


def deployment(values: Values) -> dict[str, Any]:
    return dict(render(values)["Deployment"]["spec"])


def pod(values: Values) -> dict[str, Any]:
    return dict(deployment(values)["template"]["spec"])


@EACH
def test_pods_fit_the_restricted_standard(name: str) -> None:
    of = pod(values_of(name))
    security = of["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == 65532  # the image's
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in of["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(of)
    assert all({"configMap", "secret", "emptyDir"} & set(volume) for volume in of["volumes"])


@EACH
def test_pods_have_no_token_and_no_stray_environment(name: str) -> None:
    of = pod(values_of(name))
    assert of["automountServiceAccountToken"] is False
    assert of["enableServiceLinks"] is False


@EACH
def test_the_only_place_to_write_is_tmp(name: str) -> None:
    of = pod(values_of(name))
    scratch = {volume["name"] for volume in of["volumes"] if "emptyDir" in volume}
    mounts = of["containers"][0]["volumeMounts"]
    assert [mount["mountPath"] for mount in mounts if not mount.get("readOnly")] == ["/tmp"]
    assert [mount["name"] for mount in mounts if mount["mountPath"] == "/tmp"] == [*scratch]


@EACH
def test_memory_is_reserved_and_the_processor_is_not_capped(name: str) -> None:
    resources = pod(values_of(name))["containers"][0]["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert set(resources["limits"]) == {"memory"}


# -- time to end


@pytest.mark.parametrize(
    ("drain_s", "close_s", "own_s", "grace_s"),
    [
        (25, 8, None, 43),
        (25, 8, 43, 43),
        (25, 8, 300, 300),
        (25.5, 8, None, 44),  # rounded up
        (60.5, 10, None, 81),
        (0.2, 0.1, None, 11),
    ],
)
def test_the_grace_period_outlasts_the_programs_own_deadlines(
    drain_s: float, close_s: float, own_s: int | None, grace_s: int
) -> None:
    delivery = {"drain_timeout_s": drain_s, "close_timeout_s": close_s, "retry_budget_s": drain_s / 2}
    delivery |= {"request_timeout_s": drain_s / 4, "connect_timeout_s": drain_s / 4}
    values = merged(values_of("minimal"), {"config": {"delivery": delivery}, "terminationGracePeriodSeconds": own_s})
    manifests = render(values)
    given_s = manifests["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    settings = Settings.model_validate(tomllib.loads(manifests["ConfigMap"]["data"]["config.toml"]))
    assert given_s == grace_s
    assert given_s >= math.ceil(settings.grace_s) > settings.watchdog_s


@pytest.mark.parametrize("own_s", [1, 42])
def test_a_grace_period_that_would_cut_the_drain_is_refused(own_s: int) -> None:
    with pytest.raises(Refused, match=f"is {own_s}, but .* is 43"):
        render(merged(values_of("minimal"), {"terminationGracePeriodSeconds": own_s}))


# -- rollouts


@pytest.mark.parametrize(("name", "surge"), [("minimal", 0), ("full", 1)])
def test_rollouts_replace_one_pod_at_a_time(name: str, surge: int) -> None:
    of = deployment(values_of(name))
    assert of["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1}}
    startup = of["template"]["spec"]["containers"][0]["startupProbe"]
    assert of["progressDeadlineSeconds"] > startup["periodSeconds"] * startup["failureThreshold"]


def test_evictions_take_one_pod_at_a_time() -> None:
    assert render(values_of("minimal"))["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


# -- probes and metrics


@pytest.mark.parametrize(("name", "port"), [("minimal", 9464), ("full", 9500)])
def test_probes_ask_what_the_program_answers_where_it_listens(name: str, port: int) -> None:
    container = pod(values_of(name))["containers"][0]
    assert container["ports"] == [{"name": "admin", "containerPort": port}]
    probes = {
        "startupProbe": "/startupz",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    for probe, path in probes.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "admin"}
        assert path in PATHS


def test_a_start_may_take_a_rebalance() -> None:
    startup = pod(values_of("minimal"))["containers"][0]["startupProbe"]
    max_poll_interval_s = Settings.model_fields["kafka"].annotation.model_fields["max_poll_interval_ms"].default / 1000
    assert startup["periodSeconds"] * startup["failureThreshold"] > 2 * max_poll_interval_s


def test_the_pod_monitor_reads_the_admin_port() -> None:
    monitor = render(values_of("full"))["PodMonitor"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"] == {
        "selector": render(values_of("full"))["Deployment"]["spec"]["selector"],
        "podMetricsEndpoints": [{"port": "admin", "path": "/metrics", "interval": "30s"}],
    }
    assert "/metrics" in PATHS


# -- names and labels


@EACH
def test_selectors_are_name_and_instance_only(name: str) -> None:
    manifests = render(values_of(name))
    expected = {
        "app.kubernetes.io/name": "events" if name == "full" else "kochava-consumer",
        "app.kubernetes.io/instance": helm.RELEASE,
    }
    of = manifests["Deployment"]["spec"]
    selectors = [
        of["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"],
        *(constraint["labelSelector"] for constraint in of["template"]["spec"]["topologySpreadConstraints"]),
    ]
    assert selectors == [{"matchLabels": expected}] * len(selectors)
    assert expected.items() <= of["template"]["metadata"]["labels"].items()


@EACH
def test_objects_have_the_standard_labels_and_names(name: str) -> None:
    for manifest in render(values_of(name)).values():
        metadata = manifest["metadata"]
        assert metadata["namespace"] == helm.NAMESPACE
        assert metadata["name"] == ("demo-events" if name == "full" else "demo-kochava-consumer")
        assert {
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/version",
            "app.kubernetes.io/component",
            "app.kubernetes.io/part-of",
            "app.kubernetes.io/managed-by",
            "helm.sh/chart",
        } <= set(metadata["labels"])


def test_long_names_are_cut() -> None:
    manifests = render(merged(values_of("minimal"), {"fullnameOverride": "x" * 63}))
    assert manifests["Deployment"]["metadata"]["name"] == "x" * 63
    long = render(merged(values_of("minimal"), {"nameOverride": "y" * 62}))
    assert all(len(manifest["metadata"]["name"]) <= 63 for manifest in long.values())


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, "kochava-consumer:0.1.0"),
        ({"tag": "1.2.3"}, "kochava-consumer:1.2.3"),
        ({"tag": "1.2.3", "digest": f"sha256:{'0' * 64}"}, f"kochava-consumer@sha256:{'0' * 64}"),
    ],
)
def test_the_image(image: Values, expected: str) -> None:
    assert pod(merged(values_of("minimal"), {"image": image}))["containers"][0]["image"] == expected


@pytest.mark.parametrize(("shadow", "arguments"), [(False, ["run"]), (True, ["run", "--shadow"])])
def test_what_runs(shadow: bool, arguments: list[str]) -> None:
    assert pod(merged(values_of("minimal"), {"shadow": shadow}))["containers"][0]["args"] == arguments


# -- secrets


def test_no_object_holds_a_secret_only_where_it_is() -> None:
    manifests = render(values_of("full"))
    assert "Secret" not in manifests
    variables = {
        variable["name"]: variable["value"]
        for variable in manifests["Deployment"]["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    secret = re.compile("PASSWORD|TOKEN|SECRET|API_KEY")
    assert [name for name in variables if secret.search(name) and not name.endswith("_FILE")] == []
    assert variables["KOCHAVA_CONSUMER_KAFKA__SASL_PASSWORD_FILE"] == (
        "/run/secrets/kochava-consumer/kafka-credentials/password"
    )
    keys = re.findall(r"^\s*\"?([\w.]+)\"? = ", manifests["ConfigMap"]["data"]["config.toml"], re.MULTILINE)
    assert keys
    assert [key for key in keys if secret.search(key.upper()) and not key.endswith("_file")] == []


def test_secret_files_are_for_the_pods_group_alone() -> None:
    of = pod(values_of("full"))
    secrets = [volume["secret"] for volume in of["volumes"] if "secret" in volume]
    assert [secret["secretName"] for secret in secrets] == [
        "kafka-credentials",
        "registry-password",
        "kochava-credentials",
    ]
    assert {secret["defaultMode"] for secret in secrets} == {0o440}
    assert of["securityContext"]["fsGroup"] == 65532


def test_what_people_add_is_there() -> None:
    of = json.dumps(render(values_of("full"))["Deployment"])
    for mark in (
        "registry-credentials", '"TZ"', "configMapRef", "kafka-ca", "kubernetes.io/os", '"batch"', "podAntiAffinity",
        '"important"', "reloader.stakater.com/auto", '"team"', '"serviceAccountName"',
    ):  # fmt: skip
        assert mark in of
