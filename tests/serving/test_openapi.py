"""The service keeps to its own OpenAPI document, whatever is generated from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from live_service import Service


def test_fuzzed_from_its_own_document(service: Service, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", service.url + "/openapi.json"]
    command += ["--max-examples", "8", "--phases", "coverage,fuzzing", "--request-timeout", "20", "--seed", "1"]
    command += ["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"]
    command += ["--generation-database", "none", "--max-time", "16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
