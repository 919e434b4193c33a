"""What `deploy/` says, and what is wrong with it: each check gives sentences, so that planted faults can be seen by them."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
import yaml

from tastemaker.cli.app import VERBS, build
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings_file import ENVIRONMENT_PREFIX, known_keys, load_settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
KUBECTL = shutil.which("kubectl")

# The fields of the KubeRay API, version 1 (its reference documentation), where the operator would drop a misspelt one in silence.
RAY_SERVICE = {
    "serviceUnhealthySecondThreshold", "deploymentUnhealthySecondThreshold", "serveService", "upgradeStrategy", "serveConfigV2",
    "rayClusterConfig", "excludeHeadPodFromServeSvc",
}  # fmt: skip
RAY_CLUSTER = {
    "suspend", "managedBy", "autoscalerOptions", "headServiceAnnotations", "enableInTreeAutoscaling", "gcsFaultToleranceOptions",
    "headGroupSpec", "rayVersion", "workerGroupSpecs",
}  # fmt: skip
RAY_HEAD = {"template", "headService", "enableIngress", "rayStartParams", "serviceType"}
RAY_WORKERS = {
    "suspend", "groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds", "rayStartParams", "template",
    "scaleStrategy", "numOfHosts",
}  # fmt: skip
RAY_AUTOSCALER = {
    "resources", "image", "imagePullPolicy", "securityContext", "idleTimeoutSeconds", "upscalingMode", "version", "env", "envFrom",
    "volumeMounts",
}  # fmt: skip
RAY_START = {
    "num-cpus",
    "num-gpus",
    "memory",
    "object-store-memory",
    "resources",
    "labels",
    "dashboard-host",
    "include-dashboard",
    "block",
}
# The fields of Ray Serve's configuration, which Ray itself does not check.
SERVE = {
    "proxy_location", "http_options", "grpc_options", "logging_config", "applications", "target_capacity", "controller_options",
    "tracing_config",
}  # fmt: skip
SERVE_HTTP = {
    "host", "port", "root_path", "request_timeout_s", "keep_alive_timeout_s", "ssl_keyfile", "ssl_certfile", "ssl_keyfile_password",
    "ssl_ca_certs",
}  # fmt: skip
SERVE_APPLICATION = {
    "name", "route_prefix", "import_path", "runtime_env", "host", "port", "deployments", "args", "logging_config",
    "autoscaling_policy", "external_scaler_enabled",
}  # fmt: skip
SERVICE_MONITOR = {"selector", "endpoints", "namespaceSelector", "jobLabel", "targetLabels", "podTargetLabels", "sampleLimit"}
ENDPOINT = {
    "port",
    "path",
    "interval",
    "scrapeTimeout",
    "authorization",
    "scheme",
    "tlsConfig",
    "params",
    "relabelings",
    "metricRelabelings",
}
Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    """The documents of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def rendered(overlay: str) -> list[Document]:
    """What `kubectl apply -k` would send; without kubectl the base's own files."""
    if KUBECTL is not None:
        command = [KUBECTL, "kustomize", str(KUBERNETES / overlay)]
        return [
            one for one in yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout) if one
        ]
    found = []
    for folder in ("base", overlay):
        listed = documents(KUBERNETES / folder / "kustomization.yaml")[0]["resources"]
        found += [one for name in listed if name.endswith(".yaml") for one in documents(KUBERNETES / folder / name)]
    return copy.deepcopy(found)


def pods(found: list[Document]) -> Iterator[tuple[str, Document]]:
    """Every pod template with a name for sentences."""
    for one in found:
        name = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield name, one["spec"]["template"]
        elif one["kind"] == "RayService":
            cluster = one["spec"]["rayClusterConfig"]
            yield f"{name} head", cluster["headGroupSpec"]["template"]
            yield from ((f"{name} {group['groupName']}", group["template"]) for group in cluster["workerGroupSpecs"])


def containers(pod: Document) -> list[Document]:
    """All containers of a pod template, the first ones too."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def wrong_command(words: list[str]) -> str | None:
    """Why the command line would refuse these arguments; None: it takes them."""
    if not words or words[0] not in VERBS:
        return f"no verb is called {words[:1]}"
    command: Any = typer.main.get_command(build(words[0]))
    context, rest = None, ["tastemaker", *words]
    try:
        while True:
            name, rest = rest[0], rest[1:]
            context = command.make_context(name, list(rest), parent=context)
            if not hasattr(command, "resolve_command"):
                return None
            _, command, after = command.resolve_command(context, rest)
            rest = [rest[0], *after]
    except Exception as error:
        return f"{' '.join(words)}: {type(error).__name__} {getattr(error, 'message', error)}"


def wrong_environment(variables: dict[str, str]) -> list[str]:
    """Variables with our prefix that name no setting, or hold what it can't be."""
    wrong = []
    for name, value in variables.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("_")
        if f"{section}.{key}" not in known_keys():
            wrong.append(f"{name} names no setting")
            continue
        try:
            load_settings(None, (), {name: value})
        except SettingsError as error:
            wrong.append(f"{name}={value}: {error}")
    return wrong


def unknown(found: Document, known: set[str], where: str) -> list[str]:
    return [f"{where}: no field is called {name}" for name in found if name not in known]


def wrong_ray(service: Document) -> list[str]:
    """Fields of a RayService, its cluster and its Serve configuration that nobody reads."""
    spec = service["spec"]
    cluster, serve = spec.get("rayClusterConfig", {}), yaml.safe_load(spec.get("serveConfigV2", "{}"))
    head = cluster.get("headGroupSpec", {})
    wrong = unknown(spec, RAY_SERVICE, "RayService") + unknown(cluster, RAY_CLUSTER, "rayClusterConfig")
    wrong += unknown(cluster.get("autoscalerOptions", {}), RAY_AUTOSCALER, "autoscalerOptions") + unknown(
        head, RAY_HEAD, "headGroupSpec"
    )
    wrong += unknown(head.get("rayStartParams", {}), RAY_START, "rayStartParams")
    for group in cluster.get("workerGroupSpecs", []):
        wrong += unknown(group, RAY_WORKERS, "workerGroupSpecs") + unknown(
            group.get("rayStartParams", {}), RAY_START, "rayStartParams"
        )
    wrong += unknown(serve, SERVE, "serveConfigV2") + unknown(serve.get("http_options", {}), SERVE_HTTP, "http_options")
    for application in serve.get("applications", []):
        wrong += unknown(application, SERVE_APPLICATION, "applications")
        wrong += wrong_environment(application.get("runtime_env", {}).get("env_vars", {}))
    return wrong


def wrong_pods(found: list[Document]) -> list[str]:
    """Commands, variables, rights, probes and references of pods that can't be right."""
    wrong = []
    have = {(one["kind"], one["metadata"]["name"]): one for one in found}
    for name, pod in pods(found):
        spec, ports = pod["spec"], set()
        if spec.get("enableServiceLinks") is not False:
            wrong.append(f"{name}: addresses of services would be read as settings; enableServiceLinks must be false")
        if not spec.get("securityContext", {}).get("runAsNonRoot"):
            wrong.append(f"{name}: may run as root")
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        owner = have.get(("StatefulSet", name.removeprefix("StatefulSet ")), {"spec": {}})
        volumes |= {claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates", [])}
        for volume in spec.get("volumes", []):
            for kind, key, field in (
                ("ConfigMap", "configMap", "name"),
                ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
            ):
                if key in volume and KUBECTL and (kind, volume[key][field]) not in have:
                    wrong.append(f"{name}: no {kind} is called {volume[key][field]}")
        for one in containers(pod):
            where = f"{name}/{one['name']}"
            closed = one.get("securityContext", {})
            if not (
                closed.get("readOnlyRootFilesystem")
                and closed.get("allowPrivilegeEscalation") is False
                and closed.get("capabilities", {}).get("drop") == ["ALL"]
            ):
                wrong.append(f"{where}: its file system or its rights are open")
            if "memory" not in one.get("resources", {}).get("limits", {}):
                wrong.append(f"{where}: no limit of memory")
            wrong += [
                f"{where}: no volume is called {mount['name']}"
                for mount in one.get("volumeMounts", [])
                if mount["name"] not in volumes
            ]
            wrong += [
                f"{where}: {sentence}"
                for sentence in wrong_environment({item["name"]: item.get("value", "") for item in one.get("env", [])})
            ]
            ports |= {port["name"] for port in one.get("ports", [])}
            if one["image"].startswith("tastemaker") and "command" not in one and "ray" not in one["image"]:
                sentence = wrong_command(one.get("args", []))
                wrong += [f"{where}: {sentence}"] if sentence else []
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = one.get(probe, {}).get("httpGet", {})
                if asked and asked["path"] not in ("/readyz", "/healthz"):
                    wrong.append(f"{where}: {probe} asks for {asked['path']}, which the service does not have")
                if isinstance(asked.get("port"), str) and asked["port"] not in {port["name"] for port in one.get("ports", [])}:
                    wrong.append(f"{where}: {probe} asks port {asked['port']}")
    return wrong


def wrong_references(found: list[Document]) -> list[str]:
    """Services, budgets, policies and scalers that select or name what is not there."""
    wrong = []
    labels = [pod["metadata"].get("labels", {}) for _, pod in pods(found) if "metadata" in pod]
    named = {(one["kind"], one["metadata"]["name"]) for one in found}

    def selects(asked: dict[str, str]) -> bool:
        return any(asked.items() <= has.items() for has in labels)

    for one in found:
        where, spec = f"{one['kind']} {one['metadata']['name']}", one.get("spec", {})
        if one["kind"] == "Service" and not selects(spec["selector"]):
            wrong.append(f"{where} selects no pod")
        if one["kind"] in ("PodDisruptionBudget", "StatefulSet", "Deployment") and not selects(spec["selector"]["matchLabels"]):
            wrong.append(f"{where} selects no pod")
        if (
            one["kind"] == "NetworkPolicy"
            and not selects(spec["podSelector"].get("matchLabels", {}))
            and "server" not in str(spec["podSelector"])
        ):
            wrong.append(f"{where} selects no pod")
        if (
            one["kind"] == "HorizontalPodAutoscaler"
            and (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]) not in named
        ):
            wrong.append(f"{where} scales nothing")
        if (
            one["kind"] == "StatefulSet"
            and one["metadata"]["name"] == "tastemaker"
            and ("Service", spec["serviceName"]) not in named
        ):
            wrong.append(f"{where}: no service is called {spec['serviceName']}")
    return wrong


def wrong_scaling(found: list[Document], adapter: Document, told: str, routes: set[str]) -> list[str]:
    """Metrics of the autoscaler that the adapter does not make, and series of the adapter that `/metrics` (`told`) has not."""
    made = {rule["name"]["as"] for rule in adapter["rules"]["custom"]}
    wrong = []
    for one in found:
        if one["kind"] == "HorizontalPodAutoscaler":
            asked = [metric["pods"]["metric"]["name"] for metric in one["spec"]["metrics"] if metric["type"] == "Pods"]
            wrong += [f"the adapter makes no {name}" for name in asked if name not in made]
            wrong += [] if asked else ["the autoscaler reads no metric of ours"]
    for rule in adapter["rules"]["custom"]:
        series = rule["seriesQuery"].partition("{")[0]
        if not re.search(rf"^{series}[{{ ]", told, re.MULTILINE):
            wrong.append(f"/metrics has no {series}")
        named = re.search(r'route=~"([^"]+)"', rule["metricsQuery"])
        wrong += [f"no route is called {name}" for name in (named.group(1).split("|") if named else []) if name not in routes]
    return wrong


def changed(found: list[Document], kind: str, change: Callable[[Document], Any]) -> list[Document]:
    """A copy with a fault planted into the first document of a kind."""
    copied = copy.deepcopy(found)
    change(next(one for one in copied if one["kind"] == kind))
    return copied
