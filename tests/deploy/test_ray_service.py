"""What KubeRay is given, run by a real Ray: the Serve configuration of `rayservice.yaml`, on a cluster of this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from manifests import KUBERNETES, documents

from live_service import free_port
from tastemaker.serving.auth import KEYS_FILE, KeyFile
from toy_bundle import write_workspace

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed"),
]
PROGRAM = """
import json, os, sys, urllib.request
from tastemaker.schema.cluster import prepare
prepare(None)
import ray
from ray import serve
told = json.loads(sys.argv[1])
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 1024 * 1024)
try:
    [application] = told["applications"]
    module, _, name = application["import_path"].partition(":")
    build = getattr(__import__(module, fromlist=[name]), name)
    serve.start(proxy_location=told["proxy_location"], http_options=told["http_options"])
    serve.run(build(application["args"]), name=application["name"], route_prefix=application["route_prefix"])
    asked = urllib.request.Request(f"http://127.0.0.1:{told['http_options']['port']}/v1/recommend", b'{"user_id": "u1", "k": 5}',
                                   {"content-type": "application/json", "x-api-key": sys.argv[2]})
    print(urllib.request.urlopen(asked, timeout=20).read().decode())
finally:
    serve.shutdown()
    ray.shutdown()
"""


def test_ray_serves_the_configuration(tmp_path: Path) -> None:
    write_workspace(tmp_path / "space")
    _, key = KeyFile(tmp_path / "space" / KEYS_FILE).add("shop", ["read"])
    [service] = [one for one in documents(KUBERNETES / "ray" / "rayservice.yaml") if one["kind"] == "RayService"]
    told = yaml.safe_load(service["spec"]["serveConfigV2"])
    told["http_options"] |= {"host": "127.0.0.1", "port": free_port()}
    told["applications"][0]["args"] = {"workspace": str(tmp_path / "space")}
    variables = os.environ | {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "TASTEMAKER_CLUSTER_ENCODERS": "0",
        "TASTEMAKER_CLUSTER_CPUS": "0.5",
        "RAY_AUTH_MODE": "disabled",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(told), key],
        capture_output=True,
        text=True,
        timeout=180,
        env=variables,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    [answer] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(answer["items"]) == 5
