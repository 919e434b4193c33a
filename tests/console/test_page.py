"""The console page in a real browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from live_service import serving
from toy_bundle import write_workspace

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_page_shows_a_user_with_history_and_reasons(tmp_path: Path) -> None:
    write_workspace(tmp_path / "space")
    with serving(tmp_path / "space") as service:
        service.ask("POST", "/v1/events", {"events": [{"user_id": "latest", "item_id": "guitar-1"}]})
        command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--lang=en", "--virtual-time-budget=8000"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", service.url + "/"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    page = done.stdout.split("<script>")[0]
    assert "latest (1)" in page, done.stderr[-2000:]
    assert page.count('class="tag"') == 12
    assert 'class="why"' in page
    assert "brand1 " in page, "the history is shown"
