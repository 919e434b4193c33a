"""A pool of actors: every task's result once and in order, whatever dies; stuck work and other versions are told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.schema.cluster import Unfit, check_machines
from tastemaker.schema.errors import InputError

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'tastemaker[ray]'")
pytestmark = pytest.mark.long
HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    from tastemaker.data._ray import connect

    os.environ["PYTHONPATH"] = os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")])
    connect("local", 2)
    yield
    ray.shutdown()


def squares(folder: str, caller: int, deaths: tuple[int, ...] = ()) -> Callable[[int], bytes]:
    """Squares numbers; the first to come to a deadly one writes so, and kills its process."""

    def one(number: int) -> bytes:
        mark = Path(folder) / f"died-{number}"
        if number in deaths and os.getpid() != caller and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return str(number * number).encode()

    return one


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 30))
def test_every_task_once_and_in_order(tmp_path_factory: pytest.TempPathFactory, count: int) -> None:
    from tastemaker.data._ray import stream

    told: list[int] = []
    found = list(stream(squares, (str(tmp_path_factory.mktemp("s")), os.getpid()), count, told.append))
    assert found == [str(number * number).encode() for number in range(count)]
    assert told == list(range(1, count + 1))


def test_workers_that_die_cost_no_result(tmp_path: Path) -> None:
    from tastemaker.data._ray import stream

    found = list(stream(squares, (str(tmp_path), os.getpid(), (3, 11)), 20))
    assert len(list(tmp_path.iterdir())) == 2, "two workers were to die"
    assert found == [str(number * number).encode() for number in range(20)]


def large(bytes_each: int) -> Callable[[int], bytes]:
    return lambda number: bytes([number % 251]) * bytes_each


def test_results_larger_than_the_object_store_stream_through(tmp_path: Path) -> None:
    """In a process of its own, whose cluster has an object store of 80 MB, of which 300 MB are asked in all."""
    program = (
        "import ray, resource, sys\nfrom tastemaker.schema.cluster import prepare\nprepare('local')\n"
        "ray.init(num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, log_to_driver=False)\n"
        "from tastemaker.data._ray import stream\nfrom test_stream_ray import large\n"
        "sizes = [(len(one), one[0]) for one in stream(large, (3 * 2**20,), 100)]\n"
        "assert sizes == [(3 * 2**20, number % 251) for number in range(100)], sizes[:3]\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180, check=False, cwd=HERE)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert int(done.stdout.split()[-1]) < 600, f"{done.stdout} MB of memory"


def sleepy() -> Callable[[int], bytes]:
    def one(number: int) -> bytes:
        time.sleep(11)
        return b""

    return one


def test_stuck_work_is_told() -> None:
    from tastemaker.data._ray import Stuck, stream

    with pytest.raises(Stuck, match=r"No result for 8 s; .* cores are free"):
        list(stream(sleepy, (), 2, patience=8.0))


def refusing() -> Callable[[int], bytes]:
    def one(number: int) -> bytes:
        raise InputError(f"task {number} makes no sense")

    return one


def test_an_error_of_ours_comes_back_as_itself() -> None:
    from tastemaker.data._ray import stream

    with pytest.raises(InputError, match="makes no sense"):
        list(stream(refusing, (), 1))


def test_a_machine_with_another_version_is_refused(tmp_path: Path) -> None:
    """The workers of this cluster are given a copy of the package in which one line differs."""
    import shutil

    import tastemaker

    shutil.copytree(Path(tastemaker.__file__).parent, tmp_path / "tastemaker")
    with (tmp_path / "tastemaker" / "schema" / "cluster.py").open("a") as file:
        file.write("\n# another version\n")
    original = ray.remote

    class Other:
        """The module, whose tasks run with the copy."""

        nodes, get, util, exceptions = ray.nodes, ray.get, ray.util, ray.exceptions

        @staticmethod
        def remote(call: Callable[..., object]) -> object:
            return original(runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path)}})(call)

    check_machines(ray)
    with pytest.raises(Unfit, match="Install the same version on every machine"):
        check_machines(Other)


def test_a_cluster_that_is_not_there() -> None:
    program = "from tastemaker.data._ray import connect\nconnect('127.0.0.1:1')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert "No Ray cluster can be joined at 127.0.0.1:1" in done.stderr, done.stderr[-500:]
