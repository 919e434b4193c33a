"""The start command of the serving image, in a clean virtual environment without torch, on a read-only root, without rights, from a workspace as a pod begins with."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from manifests import KUBERNETES, ROOT
from test_containers import last, stages

from live_service import free_port
from tastemaker.cli.app import call
from tastemaker.serving.auth import KEYS_FILE, KeyFile
from toy_bundle import write_workspace

pytestmark = pytest.mark.long
CLOSE = """
set -e
mount --make-rprivate /
for place in {writable}; do mount --bind $place $place; done
mount --bind {readable} {readable}
mount -o remount,bind,ro {readable}
mount -o remount,bind,ro /
if touch {root}/x 2>/dev/null || touch {readable}/x 2>/dev/null; then echo 'the root can be written to' >&2; exit 1; fi
exec setpriv {user} --no-new-privs --bounding-set -all --inh-caps -all "$@"
"""


def environment(folder: Path) -> Path:
    """A virtual environment with what the stage `packages-serve` installs; gives its folder."""
    [line] = [" ".join(words[1:]) for words in stages()["packages-serve"] if words[0] == "RUN"]
    words = [word.strip('"') for word in line.split()][1:]
    assert words[0] == "install"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run(
        [str(folder / "bin" / "pip"), "--quiet", "--disable-pip-version-check", *words], check=True, cwd=ROOT, timeout=400
    )
    return folder


def ask(port: int, method: str, path: str, body: object = None, key: str = "") -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(
        method, path, None if body is None else json.dumps(body), {"content-type": "application/json", "x-api-key": key}
    )
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text.startswith(b"{") else {}


def begun(folder: Path) -> tuple[Path, Path, str]:
    """What a pod finds: the shared volume, a workspace that `begin.sh` has made, and a key."""
    first, shared, workspace = folder / "first", folder / "shared", folder / "workspace"
    write_workspace(first)
    _, key = KeyFile(first / KEYS_FILE).add("shop", ["read", "write"])
    shared.mkdir()
    workspace.mkdir()
    (first / "bundles").rename(shared / "bundles")
    shutil.copytree(first / "journal", shared / "seed" / "journal")
    (shared / "settings").mkdir()
    shutil.copy(KUBERNETES / "base" / "tastemaker.toml", shared / "settings")
    text = (KUBERNETES / "base" / "begin.sh").read_text()
    for name, place in (
        ("/run/keys", first),
        ("/run/settings", shared / "settings"),
        ("/workspace", workspace),
        ("/shared", shared),
    ):
        text = re.sub(rf"(?<=[\s]){name}\b", str(place), text)
    for _ in range(2):  # a pod that comes again finds what it left
        subprocess.run(["sh", "-c", text], check=True)
    assert (workspace / "journal").is_dir()
    assert not (workspace / "journal.part").exists()
    return shared, workspace, key


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can close a file system")
def test_the_start_command_serves_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = environment(tmp_path / "environment")
    listed = subprocess.run(
        [str(home / "bin" / "pip"), "list", "--format", "freeze"], check=True, capture_output=True, text=True
    ).stdout
    assert not re.search(r"^(torch|transformers|implicit|scikit-learn|ray)=", listed, re.MULTILINE)
    shared, workspace, key = begun(tmp_path)
    scratch, port = tmp_path / "scratch", free_port()
    scratch.mkdir()
    others = os.stat(Path(sys.base_prefix)).st_mode & 0o005 == 0o005 and os.stat("/root").st_mode & 0o001
    user = "--reuid 10001 --regid 10001 --clear-groups" if others or not sys.base_prefix.startswith("/root") else ""
    if user:
        for place in (workspace, scratch, *workspace.rglob("*")):
            os.lchown(place, 10001, 10001)
    close = CLOSE.format(writable=f"{workspace} {scratch}", readable=shared, root=ROOT, user=user)
    entry, command = json.loads(last("serve", "ENTRYPOINT")), json.loads(last("serve", "CMD"))
    words = [str(workspace) if word == "/workspace" else str(port) if word == "8000" else word for word in [*entry, *command]]
    variables = dict(word.split("=", 1) for word in last("serve", "ENV").split())
    variables |= {"PATH": f"{home}/bin:/usr/bin:/bin", "HOME": str(scratch), "TMPDIR": str(scratch), "TASTEMAKER_SERVING_STATE": ""}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["unshare", "--mount", "sh", "-c", close, "sh", *words], env=variables, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while True:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            try:
                if ask(port, "GET", "/readyz")[0] == 200:
                    break
            except OSError:
                time.sleep(0.1)
        status, answer = ask(port, "POST", "/v1/recommend", {"user_id": "u1", "k": 5}, key)
        assert status == 200, answer
        assert len(answer["items"]) == 5  # type: ignore[arg-type]
        assert ask(port, "POST", "/v1/recommend", {"user_id": "u1"})[0] == 401
        event = {"user_id": "u1", "item_id": "boots-1", "event_type": "view", "event_id": "e1"}
        assert ask(port, "POST", "/v1/events", {"events": [event]}, key)[1]["accepted"] == 1
        assert ask(port, "POST", "/v1/search", {"query": "boots", "k": 3}, key)[0] == 200
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, (tmp_path / "log").read_text()
    monkeypatch.setenv("TASTEMAKER_SERVING_STATE", "")
    assert call(["rebuild", str(workspace)]) == 0
