"""The floor plan: who may import whom. A failure is a sentence that says where the line belongs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "tastemaker"
ROOF = 5
# room: (floor, wing); the hall serves both wings, the roof sees everything
ROOMS: dict[str, tuple[int, str]] = {
    "schema": (-1, "hall"),  # the ground: every room says its words
    "models": (0, "hall"),
    "features": (1, "hall"),
    "journal": (1, "hall"),
    "bundle": (1, "hall"),
    "evaluation": (1, "hall"),
    "data": (2, "learn"),
    "index": (2, "hall"),
    "inference": (2, "answer"),
    "pipeline": (2, "answer"),
    "streaming": (2, "answer"),
    "monitoring": (2, "answer"),
    "training": (3, "learn"),
    "serving": (3, "answer"),
    "compression": (4, "learn"),
    "tuning": (4, "learn"),
    "console": (4, "answer"),
    "cli": (ROOF, "roof"),
    "recommender": (ROOF, "roof"),
    "client": (1, "hall"),  # runs in other people's programs: it knows the words of the contract and nothing else
}
HTTP_LIBRARIES = {"starlette", "uvicorn", "httpx", "fastapi", "requests", "aiohttp", "http", "urllib"}
SCHEMA_MAY_IMPORT = {"numpy", "msgspec"} | set(sys.stdlib_module_names)
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in a file, those inside functions and TYPE_CHECKING blocks included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "tastemaker":
                for alias in node.names:
                    yield node.lineno, f"tastemaker.{alias.name}"
            else:
                yield node.lineno, node.module


def room_of(path: Path, source: Path) -> str:
    parts = path.relative_to(source).parts
    return parts[0] if len(parts) > 1 else path.stem


def breaches(source: Path) -> list[str]:
    """One sentence for every import that runs upstairs, to a neighbour or across the wings."""
    found = []
    for path in sorted(source.rglob("*.py")):
        here = room_of(path, source)
        if here in ("__init__", "__main__"):
            continue
        if here not in ROOMS:
            found.append(f"{path.relative_to(source)}: no room is called {here!r}; add it to the floor plan or move the file")
            continue
        floor, wing = ROOMS[here]
        for line, name in imports(path):
            if not name.startswith("tastemaker."):
                continue
            there = name.split(".")[1]
            if there == here or there == "__version__":
                continue
            where = f"{path.relative_to(source)}:{line} imports {name}"
            if there not in ROOMS:
                found.append(f"{where}: no room is called {there!r}")
                continue
            other_floor, other_wing = ROOMS[there]
            if floor == ROOF and there == "recommender":
                continue
            if other_floor >= floor:
                found.append(f"{where}: {there} (floor {other_floor}) is not below {here} (floor {floor})")
            elif wing != "roof" and other_wing not in ("hall", wing):
                found.append(f"{where}: the {wing} wing may not import the {other_wing} wing; what both say belongs in the hall")
            elif wing == "hall" and other_wing != "hall":
                found.append(f"{where}: the hall may not import a wing")
    return found


def test_imports_run_downstairs_inside_one_wing() -> None:
    assert breaches(SOURCE) == []


def test_a_planted_breach_is_seen(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "bad.py").write_text(
        "from tastemaker.training import fit\nfrom tastemaker.streaming import state\nfrom tastemaker import serving\n"
        "from tastemaker.data import split\nfrom tastemaker.index import exact\n"
    )
    sentences = breaches(tmp_path)
    assert len(sentences) == 5
    assert any("training" in s and "not below" in s for s in sentences)
    assert any("streaming" in s for s in sentences)


def test_schema_holds_data_only() -> None:
    for path in (SOURCE / "schema").glob("*.py"):
        for line, name in imports(path):
            top = name.split(".")[0]
            assert top in SCHEMA_MAY_IMPORT or name.startswith("tastemaker.schema"), (
                f"{path.name}:{line} imports {name}: schema knows numpy and msgspec at most"
            )


def test_pipeline_knows_no_http() -> None:
    for path in (SOURCE / "pipeline").rglob("*.py"):
        for line, name in imports(path):
            assert name.split(".")[0] not in HTTP_LIBRARIES, f"{path.name}:{line} imports {name}: HTTP belongs in serving"


def test_the_client_needs_the_words_of_the_contract_alone() -> None:
    for path in (SOURCE / "client").rglob("*.py"):
        for line, name in imports(path):
            known = name.startswith(("tastemaker.schema", "tastemaker.client")) or name.split(".")[0] in SCHEMA_MAY_IMPORT - {
                "numpy"
            }
            assert known, f"{path.name}:{line} imports {name}: a client imports the standard library, msgspec and schema"


def test_ray_stays_in_its_drawers() -> None:
    for path in SOURCE.rglob("*.py"):
        if path.name == "_ray.py":
            continue
        for line, name in imports(path):
            assert name.split(".")[0] != "ray", f"{path.name}:{line} imports {name}: Ray belongs in the room's _ray.py"


@pytest.mark.parametrize("module", ["tastemaker", "tastemaker.serving.http", "tastemaker.inference.engine", "tastemaker.cli.app"])
def test_answering_loads_no_torch(module: str) -> None:
    program = (
        f"import sys, {module}\n"
        "heavy = sorted({'torch', 'onnx', 'transformers', 'sentence_transformers', 'ray', 'implicit', 'scipy.stats'} & set(sys.modules))\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_files_are_nouns() -> None:
    for path in SOURCE.rglob("*.py"):
        assert path.stem not in FORBIDDEN_NAMES, f"{path.name} names no noun: find the noun that its lines belong to"


def test_no_file_of_the_project_can_be_unpickled() -> None:
    for path in SOURCE.rglob("*.py"):
        for line, name in imports(path):
            assert name.split(".")[0] not in {"pickle", "cloudpickle", "dill", "joblib"}, (
                f"{path.name}:{line} imports {name}: bundles hold no pickle; use safetensors, ONNX, .npy, JSON or Parquet"
            )
