"""A bundle is whole or refused; the registry never points at something that is not there."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tastemaker.bundle.gate import gate
from tastemaker.bundle.read import open_bundle
from tastemaker.bundle.registry import Registry
from tastemaker.bundle.verify import MANIFEST
from tastemaker.bundle.write import write_bundle
from tastemaker.schema.errors import BundleError
from tastemaker.schema.manifest import SCHEMA_VERSION


def fill(folder: Path) -> None:
    (folder / "part").mkdir()
    np.save(folder / "part" / "numbers.npy", np.arange(64, dtype=np.float32))
    (folder / "words.json").write_text('{"a": 1}')


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    return tmp_path / "bundles"


def test_what_is_written_is_read(bundles: Path) -> None:
    version = write_bundle(bundles, fill, metrics={"NDCG@10": 0.1})
    bundle = open_bundle(bundles / version)
    assert bundle.manifest.metrics == {"NDCG@10": 0.1}
    assert bundle.array("part/numbers.npy").tolist() == list(range(64))
    assert set(bundle.manifest.files) == {"part/numbers.npy", "words.json"}
    with pytest.raises(BundleError, match="no file"):
        bundle.file("../other")


def test_every_flipped_bit_and_every_cut_is_refused(bundles: Path) -> None:
    folder = bundles / write_bundle(bundles, fill)
    rng = random.Random(0)
    for name in ("part/numbers.npy", "words.json"):
        whole = (folder / name).read_bytes()
        for _ in range(150):
            place = rng.randrange(len(whole))
            (folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :])
            with pytest.raises(BundleError, match="altered"):
                open_bundle(folder)
        for _ in range(100):
            (folder / name).write_bytes(whole[: rng.randrange(len(whole))])
            with pytest.raises(BundleError, match="bytes instead of"):
                open_bundle(folder)
        (folder / name).write_bytes(whole)
    assert open_bundle(folder).version == folder.name


def test_missing_extra_linked_and_foreign_files_are_refused(bundles: Path, tmp_path: Path) -> None:
    folder = bundles / write_bundle(bundles, fill)
    (folder / "more.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match="does not know"):
        open_bundle(folder)
    (folder / "more.bin").unlink()
    whole = (folder / "words.json").read_bytes()
    (folder / "words.json").unlink()
    with pytest.raises(BundleError, match="missing"):
        open_bundle(folder)
    (tmp_path / "outside").write_bytes(whole)
    (folder / "words.json").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="link"):
        open_bundle(folder)


def test_manifest_of_another_schema_or_with_a_path_is_refused(bundles: Path) -> None:
    folder = bundles / write_bundle(bundles, fill)
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'))
    with pytest.raises(BundleError, match="schema version 99"):
        open_bundle(folder)
    (folder / MANIFEST).write_text(text.replace('"words.json"', '"../words.json"'))
    with pytest.raises(BundleError, match="outside itself"):
        open_bundle(folder)
    (folder / MANIFEST).write_text(text[:40])
    with pytest.raises(BundleError, match="damaged"):
        open_bundle(folder)


def test_no_flipped_bit_of_the_manifest_changes_what_it_says(bundles: Path) -> None:
    folder = bundles / write_bundle(bundles, fill, settings={"sequence": {"dim": 64}}, metrics={"NDCG@10": 0.1})
    whole, told = (folder / MANIFEST).read_bytes(), open_bundle(folder).manifest
    rng, refused = random.Random(0), 0
    for _ in range(400):
        place = rng.randrange(len(whole))
        (folder / MANIFEST).write_bytes(whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :])
        try:
            assert open_bundle(folder).manifest == told, "only blanks between the words may differ"
        except BundleError:
            refused += 1
    assert refused > 300


def test_a_folder_left_by_a_killed_writer_is_swept_after_a_day(bundles: Path) -> None:
    old, young = bundles / ".writing-old", bundles / ".writing-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "half").write_bytes(b"x")
    os.utime(old, (0, 0))
    write_bundle(bundles, fill)
    assert not old.exists()
    assert young.exists(), "its writer may be at work"


def test_a_failed_writing_leaves_nothing(bundles: Path) -> None:
    def broken(folder: Path) -> None:
        fill(folder)
        raise RuntimeError("stopped in the middle")

    with pytest.raises(RuntimeError):
        write_bundle(bundles, broken)
    assert list(bundles.iterdir()) == []
    with pytest.raises(BundleError, match="empty"):
        write_bundle(bundles, lambda folder: None)


def test_stages(bundles: Path) -> None:
    registry = Registry(bundles)
    with pytest.raises(BundleError, match="no live bundle"):
        registry.live()
    first, second = write_bundle(bundles, fill), write_bundle(bundles, fill)
    assert registry.add(first) == "live"
    assert registry.add(second) == "candidate"
    with pytest.raises(BundleError, match="no previous"):
        registry.rollback()
    registry.release(second)
    assert (registry.live().name, registry.stages().previous, registry.stages().candidate) == (second, first, None)
    assert registry.rollback() == first
    assert registry.stages().previous == second


@pytest.mark.parametrize("name", ["../x", "", "/etc", "a/b", "nothing", ".lock", "registry.json"])
def test_names_not_paths(bundles: Path, name: str) -> None:
    write_bundle(bundles, fill)
    with pytest.raises(BundleError, match="There is no bundle"):
        Registry(bundles).release(name)


def test_a_figure_that_is_not_finite_is_not_released(bundles: Path) -> None:
    for value in (float("nan"), float("inf")):
        manifest = open_bundle(bundles / write_bundle(bundles, fill, metrics={"validation_ndcg_fusion": value})).manifest
        assert gate(manifest, None) == ["validation_ndcg_fusion is None, not a finite number"]


def test_a_damaged_registry_says_so(bundles: Path) -> None:
    write_bundle(bundles, fill)
    for damage in (b'{"live":', b'{"live":"\xff"}'):
        (bundles / "registry.json").write_bytes(damage)
        with pytest.raises(BundleError, match="damaged"):
            Registry(bundles).stages()


def test_a_killed_writing_shows_no_bundle(bundles: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom tastemaker.bundle.write import write_bundle\n"
        "def fill(folder):\n    (folder / 'a').write_bytes(b'x')\n    print('in', flush=True)\n    time.sleep(60)\n"
        "write_bundle(Path(sys.argv[1]), fill)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(bundles)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        process.kill()
    assert Registry(bundles).versions() == []
    version = write_bundle(bundles, fill)
    assert Registry(bundles).versions() == [version]
