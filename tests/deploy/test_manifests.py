"""Kubernetes: every field, option, variable and reference is one that somebody reads; a planted fault of each kind is seen."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import (
    DEPLOY,
    ENDPOINT,
    KUBECTL,
    KUBERNETES,
    ROOT,
    SERVE,
    SERVE_APPLICATION,
    SERVE_HTTP,
    SERVICE_MONITOR,
    Document,
    changed,
    documents,
    pods,
    rendered,
    unknown,
    wrong_command,
    wrong_environment,
    wrong_pods,
    wrong_ray,
    wrong_references,
    wrong_scaling,
)

from live_service import Service, serving
from tastemaker.schema.settings_file import load_settings
from tastemaker.serving.routes import TABLE
from toy_bundle import write_workspace

OURS = ("RayService", "ServiceMonitor", "PrometheusRule")
"""Kinds that Kubernetes itself does not know."""


@pytest.fixture(scope="module")
def base() -> list[Document]:
    return rendered("base")


@pytest.fixture(scope="module")
def ray() -> list[Document]:
    return rendered("ray")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    workspace = tmp_path_factory.mktemp("deploy") / "space"
    write_workspace(workspace)
    with serving(workspace) as found:
        yield found


def strictly(found: list[Document]) -> list[str]:
    """Kinds whose every field Kubernetes takes; raises where it does not take one."""
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed: pip install '.[dev]'")
    for one in found:
        if one["kind"] not in OURS:
            validate.validate(one, "1.33", strict=True)
    for name, pod in pods(found):
        if name.startswith("RayService"):
            validate.validate(
                {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": pod["spec"]}, "1.33", strict=True
            )
    return [one["kind"] for one in found if one["kind"] not in OURS]


@pytest.mark.parametrize("overlay", ["base", "ray"])
def test_kubernetes_takes_every_field(overlay: str) -> None:
    taken = strictly(rendered(overlay))
    assert {"Service", "ConfigMap"} <= set(taken), taken


@pytest.mark.parametrize("overlay", ["base", "ray"])
def test_pods_run_what_the_command_line_knows(overlay: str) -> None:
    found = rendered(overlay)
    assert [*wrong_pods(found), *wrong_references(found)] == []


def test_ray_reads_every_field(ray: list[Document]) -> None:
    [service] = [one for one in ray if one["kind"] == "RayService"]
    assert wrong_ray(service) == []
    if KUBECTL:
        assert {one["metadata"]["name"] for one in ray if one["kind"] in ("StatefulSet", "HorizontalPodAutoscaler")} == {"learner"}


def test_ray_is_given_an_application_that_is_there(ray: list[Document]) -> None:
    [service] = [one for one in ray if one["kind"] == "RayService"]
    [application] = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    module, _, name = application["import_path"].partition(":")
    path = ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        pytest.skip(f"{module} is not there yet")
    assert re.search(rf"^(async )?def {name}\b|^{name}\b.*=", path.read_text(), re.MULTILINE), f"{module} has no {name}"


def test_the_fields_of_ray_serve_are_those_of_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("the extra `ray` is not installed")
    schema = pytest.importorskip("ray.serve.schema", reason="ray is installed without serve")
    assert set(schema.ServeDeploySchema.model_fields) >= SERVE - {"tracing_config"}
    assert set(schema.HTTPOptionsSchema.model_fields) >= SERVE_HTTP
    assert set(schema.ServeApplicationSchema.model_fields) >= SERVE_APPLICATION - {"external_scaler_enabled"}


def environment_of(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.partition("=")[::2] for line in lines)


def test_settings_of_the_pods_are_settings() -> None:
    settings = load_settings(KUBERNETES / "base" / "tastemaker.toml", (), {})
    assert (settings.serving.host, settings.serving.state) == ("0.0.0.0", "redis://redis:6379/0")
    assert wrong_environment(environment_of(KUBERNETES / "ray" / "ray.env")) == []


def test_every_variable_of_ours_in_any_file_is_a_setting() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.suffix != ".json":
            for name in set(re.findall(r"\bTASTEMAKER_[A-Z_]+\b", path.read_text())):
                assert not any("names no setting" in one for one in wrong_environment({name: "1"})), (path.name, name)


def test_the_service_scales_by_what_it_tells(base: list[Document], service: Service) -> None:
    service.recommend(user_id="u1", k=3)
    told = service.raw("GET", "/metrics")[2].decode()
    [adapter] = documents(KUBERNETES / "monitoring" / "adapter-values.yaml")
    routes = {row.name for row in TABLE}
    assert wrong_scaling(base, adapter, told, routes) == []
    assert wrong_scaling(changed(base, "HorizontalPodAutoscaler", _other_metric), adapter, told, routes)
    adapter["rules"]["custom"][0]["seriesQuery"] = 'tastemaker_request_second_sum{pod!=""}'
    assert wrong_scaling(base, adapter, told, routes)
    adapter["rules"]["custom"][0]["metricsQuery"] = 'sum(rate(x{route=~"recomend"}[2m]))'
    assert any("recomend" in one for one in wrong_scaling(base, adapter, told, routes))


def test_probes_ask_for_what_the_service_has(service: Service) -> None:
    for path in ("/readyz", "/healthz"):
        assert service.raw("GET", path)[0] == 200


def test_the_operator_is_given_the_rules_of_the_service() -> None:
    [rule] = documents(KUBERNETES / "monitoring" / "prometheusrule.yaml")
    assert rule["spec"] == yaml.safe_load((DEPLOY / "prometheus" / "tastemaker.rules.yml").read_text())
    [monitor] = documents(KUBERNETES / "monitoring" / "servicemonitor.yaml")
    assert unknown(monitor["spec"], SERVICE_MONITOR, "ServiceMonitor") == []
    [endpoint] = monitor["spec"]["endpoints"]
    assert unknown(endpoint, ENDPOINT, "endpoints") == []
    headless = next(one for one in documents(KUBERNETES / "base" / "server.yaml") if one["metadata"]["name"] == "tastemaker-pods")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= headless["metadata"]["labels"].items()
    assert endpoint["port"] in {port["name"] for port in headless["spec"]["ports"]}


def test_secrets_that_pods_need_are_told_how_to_be_made(base: list[Document], ray: list[Document]) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    needed = set(re.findall(r"'secretName': '([^']+)'|'secretKeyRef': \{[^}]*'name': '([^']+)'", str(base + ray)))
    needed |= {("prometheus-key", "")}
    for names in needed:
        name = "".join(names)
        assert f"create secret generic {name} " in page, name


def _pod(one: Document) -> Any:
    return one["spec"]["template"]["spec"]


def _server(one: Document) -> Any:
    return next(item for item in _pod(one)["containers"])


def _other_metric(one: Document) -> None:
    one["spec"]["metrics"][0]["pods"]["metric"]["name"] = "tastemaker_list_under_way"


FAULTS: dict[str, tuple[str, Callable[[Document], Any]]] = {
    "an option": ("StatefulSet", lambda one: _server(one).update(args=["serve", "/workspace", "--worker", "2"])),
    "a value of an option": ("StatefulSet", lambda one: _server(one).update(args=["serve", "/workspace", "--workers", "many"])),
    "a verb": ("StatefulSet", lambda one: _server(one).update(args=["server", "/workspace"])),
    "a variable": ("StatefulSet", lambda one: _server(one).update(env=[{"name": "TASTEMAKER_SERVING_DEADLINE", "value": "9"}])),
    "a section": ("StatefulSet", lambda one: _server(one).update(env=[{"name": "TASTEMAKER_SERVNG_PORT", "value": "9"}])),
    "a value of a variable": ("StatefulSet", lambda one: _server(one).update(env=[{"name": "TASTEMAKER_SERVING_PORT", "value": "x"}])),
    "links of services": ("StatefulSet", lambda one: _pod(one).pop("enableServiceLinks")),
    "root": ("StatefulSet", lambda one: _pod(one)["securityContext"].pop("runAsNonRoot")),
    "a writable root": ("StatefulSet", lambda one: _server(one)["securityContext"].pop("readOnlyRootFilesystem")),
    "no limit": ("StatefulSet", lambda one: _server(one)["resources"].pop("limits")),
    "a volume": ("StatefulSet", lambda one: _server(one)["volumeMounts"][0].update(name="workspaces")),
    "a probe's path": ("StatefulSet", lambda one: _server(one)["livenessProbe"]["httpGet"].update(path="/health")),
    "a label": ("StatefulSet", lambda one: one["spec"]["template"]["metadata"]["labels"].clear()),
    "a target": ("HorizontalPodAutoscaler", lambda one: one["spec"]["scaleTargetRef"].update(kind="Deployment")),
    "a selector": ("PodDisruptionBudget", lambda one: one["spec"]["selector"].update(matchLabels={"app": "tastemaker"})),
    "a selector of a service": ("Service", lambda one: one["spec"]["selector"].update({"app.kubernetes.io/component": "serve"})),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(base: list[Document], fault: str) -> None:
    kind, change = FAULTS[fault]
    found = changed(base, kind, change)
    assert [*wrong_pods(found), *wrong_references(found)], fault


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("StatefulSet", lambda one: _server(one).update(readynessProbe={"httpGet": {"path": "/readyz", "port": 8000}})),
        ("HorizontalPodAutoscaler", lambda one: one["spec"].update(maxReplica=9)),
        ("PodDisruptionBudget", lambda one: one["spec"].update(minUnavailable=1)),
        ("Service", lambda one: one["spec"]["ports"][0].update(targetport=1)),
    ],
)
def test_kubernetes_would_not_take_a_misspelt_field(base: list[Document], kind: str, change: Callable[[Document], Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed: pip install '.[dev]'")
    with pytest.raises(validate.ValidationError):
        strictly(changed(base, kind, change))


RAY_FAULTS: dict[str, Callable[[Document], Any]] = {
    "of the service": lambda one: one["spec"].update(excludeHeadPodFromServeService=True),
    "of the cluster": lambda one: one["spec"]["rayClusterConfig"].update(enableInTreeAutoScaling=True),
    "of the head": lambda one: one["spec"]["rayClusterConfig"]["headGroupSpec"].update(rayStartParam={}),
    "of the workers": lambda one: one["spec"]["rayClusterConfig"]["workerGroupSpecs"][0].update(maxReplica=3),
    "of the start": lambda one: one["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"].update(num_cpus="0"),
    "of the autoscaler": lambda one: one["spec"]["rayClusterConfig"]["autoscalerOptions"].update(idleTimeoutSecond=3),
    "of serve": lambda one: one["spec"].update(serveConfigV2="applications: []\nhttp_option: {port: 8000}"),
    "of an application": lambda one: one["spec"].update(serveConfigV2="applications: [{name: a, importpath: b}]"),
    "of http": lambda one: one["spec"].update(serveConfigV2="applications: []\nhttp_options: {timeout_s: 8}"),
}


@pytest.mark.parametrize("fault", RAY_FAULTS)
def test_a_misspelt_field_is_seen(ray: list[Document], fault: str) -> None:
    [service] = [one for one in changed(ray, "RayService", RAY_FAULTS[fault]) if one["kind"] == "RayService"]
    assert wrong_ray(service), fault


def test_commands_are_really_parsed() -> None:
    assert wrong_command(["serve", "/workspace", "--workers", "2"]) is None
    assert wrong_command(["keys", "add", "/workspace", "--scope", "read"]) is None
    assert wrong_command(["keys", "ad", "/workspace"])
    assert wrong_command(["serve"])
