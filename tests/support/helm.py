"""The chart, rendered and linted by Helm's own code, which helm-python-sdk carries: no program is to be installed."""

import json
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import yaml
from helm_python.errors import HelmError

CHART = Path(__file__).parents[2] / "helm" / "kochava-consumer"
RELEASE, NAMESPACE = "demo", "events"
KUBERNETES = ("1.27", "1.31", "1.37")

Values = dict[str, Any]
Manifests = dict[str, dict[str, Any]]


class Refused(Exception):
    """Helm, or the chart, does not take these values."""


def values_of(name: str) -> Values:
    """Return a file of values from the chart's `ci` folder, as Helm reads it: times stay text."""
    return dict(helm_python.values_from_yaml((CHART / "ci" / f"{name}-values.yaml").read_text("utf-8")))


def merged(values: Values, changes: Values) -> Values:
    """Return *values* with *changes* on top, as `--set` would put them there."""
    result = dict(values)
    for key, change in changes.items():
        old = result.get(key)
        result[key] = merged(old, change) if isinstance(change, dict) and isinstance(old, dict) else change
    return result


def render(values: Values) -> Manifests:
    """Return the objects by kind.

    Raises:
        Refused: with what Helm says.
    """
    manifests = {}
    for path, text in _render(values).items():
        document = None if path.endswith(".txt") else yaml.load(text, _StrictLoader)
        if document:
            assert document["kind"] not in manifests
            manifests[document["kind"]] = document
    return manifests


def notes(values: Values) -> str:
    return next(text for path, text in _render(values).items() if path.endswith("NOTES.txt"))


def lint(values: Values) -> list[str]:
    """Return what `helm lint` finds, information left out."""
    findings = helm_python.lint(str(CHART), values)
    return [json.dumps(finding) for finding in findings["messages"] if finding["severity"] > 1]


def kubernetes_problems(manifest: dict[str, Any], version: str) -> list[str]:
    """Validate *manifest* against the API's own schemas, unknown fields refused."""
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{manifest['kind']}: {'.'.join(map(str, error.path))}: {error.message}"]
    return []


def _render(values: Values) -> dict[str, str]:
    try:
        with helm_python.Chart.load(CHART) as chart:
            chart.validate_schema(values)
            return chart.render(values, name=RELEASE, namespace=NAMESPACE)
    except HelmError as error:
        raise Refused(str(error)) from None


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is there twice: the API server would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice: {keys}"
        return super().construct_mapping(node, deep)
