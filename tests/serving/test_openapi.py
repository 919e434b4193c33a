"""The service keeps to its own OpenAPI document, whatever is generated from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec

from live_service import Service
from tastemaker.serving.openapi import document
from tastemaker.serving.routes import TABLE


def test_the_document_in_docs_is_that_of_the_table() -> None:
    kept = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
    assert json.loads(kept.read_text("utf-8")) == json.loads(msgspec.json.encode(document(TABLE))), (
        "docs/openapi.json is old. Write it anew: python -m tastemaker.serving.routes > docs/openapi.json"
    )


def test_every_operation_says_which_key_it_needs() -> None:
    made = document(TABLE)
    assert set(made["components"]["securitySchemes"]) == {"bearer", "header"}
    for row in TABLE:
        entry = made["paths"][row.path.replace(":path}", "}")][row.method.lower()]
        assert f"`{row.scope}`" in entry["description"]
        assert {"401", "403", "429"} <= set(entry["responses"])
        assert {name for choice in entry["security"] for name in choice} == {"bearer", "header"}


def test_fuzzed_from_its_own_document(service: Service, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", service.url + "/openapi.json"]
    command += ["--max-examples", "8", "--phases", "coverage,fuzzing", "--request-timeout", "20", "--seed", "1"]
    command += ["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"]
    command += ["--generation-database", "none", "--max-time", "16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
