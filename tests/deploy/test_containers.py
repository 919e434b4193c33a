"""Dockerfile, Compose, Grafana's and Prometheus' files: linters where they are installed, and what no linter knows."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import DEPLOY, ROOT, wrong_command, wrong_environment

DOCKERFILE = DEPLOY / "Dockerfile"
PROMTOOL = shutil.which("promtool")


def tool(name: str) -> str:
    """A program of this environment or of the machine; skips the test where there is none."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install '.[dev]'")
    return found


def run(*words: str, text: str | None = None, folder: Path = DEPLOY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, input=text, capture_output=True, text=True, timeout=60, check=False, cwd=folder)


def stages() -> dict[str, list[list[str]]]:
    """Instructions of each stage, as lists of words, continued lines joined."""
    found: dict[str, list[list[str]]] = {}
    lines = re.sub(r"\\\n", " ", "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")))
    for line in filter(None, map(str.strip, lines.splitlines())):
        words = line.split()
        if words[0] == "FROM":
            found[words[-1]] = []
        if found:
            found[list(found)[-1]].append(words)
    return found


def last(stage: str, instruction: str) -> str:
    """What an instruction says last, in a stage or those that it begins with."""
    told = [" ".join(words[1:]) for words in stages()[stage] if words[0] == instruction]
    if told:
        return told[-1]
    begins = stages()[stage][0][1]
    return last(begins, instruction) if begins in stages() else ""


def heavy(extras: str) -> set[str]:
    """What a list of extras, as in `.[redis,traces]`, brings of what only learning needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting, seen, found = re.findall(r"[\w-]+", extras), set[str](), set[str]()
    requirements = list(project["dependencies"])
    while waiting:
        extra = waiting.pop()
        if extra not in seen:
            seen.add(extra)
            requirements += project["optional-dependencies"][extra]
            waiting += [
                name
                for one in project["optional-dependencies"][extra]
                if one.startswith("tastemaker[")
                for name in re.findall(r"\[([\w,-]+)\]", one)[0].split(",")
            ]
    for one in requirements:
        name = re.match(r"[\w-]+", one)
        if name and name.group() in {"torch", "transformers", "sentence-transformers", "implicit", "scikit-learn", "openvino"}:
            found.add(name.group())
    return found


def test_the_linter_takes_the_dockerfile() -> None:
    done = run(tool("hadolint"), str(DOCKERFILE))
    assert done.returncode == 0, done.stdout
    assert run(tool("hadolint"), "-", text=DOCKERFILE.read_text().replace("WORKDIR /workspace", "RUN cd workspace")).returncode


@pytest.mark.parametrize("stage", ["serve", "ray", "learn"])
def test_no_image_runs_as_root(stage: str) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last(stage, "USER")), stage


@pytest.mark.parametrize("stage", ["serve", "learn"])
def test_images_start_what_the_command_line_knows(stage: str) -> None:
    entry, command = json.loads(last(stage, "ENTRYPOINT")), json.loads(last(stage, "CMD"))
    assert entry == ["tastemaker"]
    assert wrong_command(command) is None
    assert list(stages())[-1] == "serve", "what is built without --target"


def test_the_serving_image_holds_nothing_that_learns() -> None:
    for stage in ("packages-serve", "packages-ray"):
        [line] = [" ".join(words) for words in stages()[stage] if words[0] == "RUN"]
        extras = re.search(r"\.\[([\w,-]+)\]", line)
        assert extras is not None
        assert heavy(extras.group(1)) == set()
        assert "torch" not in line
    assert "torch" in heavy("demo")
    assert "torch" in heavy("ray")


def test_what_the_build_reads_is_sent_to_it() -> None:
    rules = [line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {word for words in stages()["build"] if words[0] == "COPY" for word in words[1:-1]}
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {needed["readme"], *needed["license-files"]} <= copied


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def wrong_compose(found: dict[str, Any]) -> list[str]:
    """Commands, variables, files, names and rights that can't be right."""
    wrong, targets = [], set(stages())
    for name, one in found["services"].items():
        if not one.get("image") or one["image"].endswith(":latest") or ":" not in one["image"]:
            wrong.append(f"{name}: its image has no version")
        if not one.get("read_only") or one.get("cap_drop") != ["ALL"]:
            wrong.append(f"{name}: its file system or its rights are open")
        wrong += wrong_environment(one.get("environment", {}))
        if "build" in one:
            sentence = wrong_command(one["command"])
            wrong += [sentence] if sentence else []
            if (
                one["build"]["target"] not in targets
                or not (DEPLOY / one["build"]["context"] / one["build"]["dockerfile"]).is_file()
            ):
                wrong.append(f"{name}: nothing to build")
        for mount in one.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("./") and not (DEPLOY / source).exists():
                wrong.append(f"{name}: {source} is missing")
            elif re.fullmatch(r"\w+", source) and source not in found["volumes"]:
                wrong.append(f"{name}: no volume is called {source}")
        secrets = [secret if isinstance(secret, str) else secret["source"] for secret in one.get("secrets", [])]
        wrong += [f"{name}: no secret is called {secret}" for secret in secrets if secret not in found["secrets"]]
        wrong += [f"{name}: waits for {other}" for other in one.get("depends_on", []) if other not in found["services"]]
        if any(not port.startswith("127.0.0.1:") for port in one.get("ports", [])):
            wrong.append(f"{name}: anybody can reach it")
    return wrong


def test_compose_fits_together() -> None:
    assert wrong_compose(compose()) == []


@pytest.mark.parametrize(
    ("service", "change"),
    [
        ("server", {"command": ["serve", "/workspace", "--work", "2"]}),
        ("server", {"environment": {"TASTEMAKER_SERVING_DEADLINE": "1"}}),
        ("server", {"build": {"context": "..", "dockerfile": "deploy/Dockerfile", "target": "server"}}),
        ("server", {"read_only": False}),
        ("server", {"ports": ["8000:8000"]}),
        ("prometheus", {"volumes": ["./prometheus/prometheus.yaml:/etc/prometheus/prometheus.yml:ro"]}),
        ("prometheus", {"secrets": ["prometheus-key"]}),
        ("grafana", {"depends_on": ["prometeus"]}),
        ("redis", {"image": "redis"}),
    ],
)  # fmt: skip
def test_a_planted_fault_of_compose_is_seen(service: str, change: dict[str, Any]) -> None:
    found = compose()
    found["services"][service].update(change)
    assert wrong_compose(found)


def test_compose_reads_its_own_file(tmp_path: Path) -> None:
    program = tool("docker-compose")
    done = run(program, "--file", "compose.yaml", "config", "--quiet")
    assert done.returncode == 0, done.stderr
    planted = (DEPLOY / "compose.yaml").read_text().replace("stop_grace_period", "stop_grace_periods")
    (tmp_path / "compose.yaml").write_text(planted)
    assert "stop_grace_periods" in run(program, "--file", str(tmp_path / "compose.yaml"), "config", "--quiet").stderr


def test_prometheus_scrapes_the_service_with_its_key() -> None:
    path = DEPLOY / "prometheus" / "prometheus.yml"
    found = yaml.safe_load(path.read_text())
    [job] = found["scrape_configs"]
    [target] = job["static_configs"][0]["targets"]
    server, prometheus = compose()["services"]["server"], compose()["services"]["prometheus"]
    host, _, port = target.partition(":")
    assert host in server["networks"]["default"]["aliases"]
    assert server["command"][server["command"].index("--port") + 1] == port
    assert job["authorization"]["credentials_file"] == prometheus["secrets"][0]["target"]
    mounted = {mount.split(":")[1] for mount in prometheus["volumes"]}
    assert {str(Path("/etc/prometheus") / name) for name in found["rule_files"]} <= mounted
    if PROMTOOL:
        assert run(PROMTOOL, "check", "config", "--syntax-only", str(path)).returncode == 0


def test_grafana_finds_data_and_dashboards() -> None:
    grafana = compose()["services"]["grafana"]
    [source] = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/tastemaker.yml").read_text())["providers"]
    assert source["url"] == "http://prometheus:9090"
    mounted = {Path(mount.split(":")[1]) for mount in grafana["volumes"]}
    boards = {path.name for path in (DEPLOY / "grafana").glob("*.json")}
    assert {path.name for path in mounted if path.parent == Path(provider["options"]["path"])} == boards
    for path in (DEPLOY / "grafana").glob("*.json"):
        [variable] = [one for one in json.loads(path.read_text())["templating"]["list"] if one["type"] == "datasource"]
        assert variable["query"] == source["type"]
    assert not [name for name in grafana["environment"] if not fnmatch.fnmatch(name, "GF_*")]
