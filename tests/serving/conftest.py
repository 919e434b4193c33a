"""One server for all tests of the room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from live_service import Service, serving
from toy_bundle import write_workspace


@pytest.fixture(scope="package")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving") / "space"
    write_workspace(folder)
    return folder


@pytest.fixture(scope="package")
def service(workspace: Path) -> Iterator[Service]:
    with serving(workspace, "--workers", "2") as found:
        yield found
