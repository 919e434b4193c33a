"""What Ray costs a request: the plain server with one worker and one replica on a Ray cluster, asked in turns.

    python benchmarks/serving_ray.py [--items 1e4] [--clients 8] [--seconds 6] [--rounds 4] [--folder F]

Both serve a workspace of benchmarks/_served_world.py with the same bundle, on the cores that the clients share: histories of 200, 200 candidates ordered by a ranker, ten in the
answer. Printed as ratios of Ray's to the plain server's: requests/s with many clients (limit: at least 60 %) and with one, CPU seconds a request, proportional memory of all processes,
seconds until the first answer. Needs the extra `ray`; where HAProxy is missing the server says so, and Ray's own proxy is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import _served_world
import numpy as np

LIMIT = 0.60
HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")


class Server:
    """One of the two, running."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, seconds: float) -> None:
        self.process, self.port, self.seconds = process, port, seconds

    def family(self) -> list[int]:
        from tastemaker.serving.cluster import descendants

        return [self.process.pid, *descendants(self.process.pid)]

    def cpu(self) -> float:
        """CPU seconds of all its processes until now."""
        found = 0
        for process in self.family():
            words = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
            found += int(words[11]) + int(words[12])
        return found / TICK

    def megabytes(self) -> float:
        """Memory, what is shared counted once."""
        found = 0
        for process in self.family():
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    found += int(line.split()[1])
        return found / 1024

    def load(self, clients: int, seconds: float) -> tuple[float, float, float]:
        """Requests/s, median milliseconds, CPU milliseconds a request."""
        before = self.cpu()
        words = [str(self.port), "/v1/recommend", str(clients), str(seconds), str(_served_world.USERS)]
        done = subprocess.run([sys.executable, str(HERE / "_load.py"), *words], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        return found["answers"] / seconds, found["p50"], 1e3 * (self.cpu() - before) / found["answers"]


@contextmanager
def server(workspace: Path, port: int, *words: str) -> Iterator[Server]:
    """`tastemaker serve` until the block ends."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "tastemaker", "serve", str(workspace), "--port", str(port), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if b'"url"' in line:
                break
        else:
            raise SystemExit(f"{' '.join(command)} ended with {process.wait()}")
        yield Server(process, port, time.perf_counter() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--items", type=float, default=1e4)
    reader.add_argument("--clients", type=int, default=8)
    reader.add_argument("--seconds", type=float, default=6.0)
    reader.add_argument("--rounds", type=int, default=4)
    reader.add_argument("--port", type=int, default=18_200)
    reader.add_argument("--folder", type=Path)
    given = reader.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as room:
        workspace = _served_world.write((given.folder or Path(room)) / f"{given.items:.0f}", int(given.items))
        calm = ["--set", "alerts.sample=0", "--json"]  # both without the looks at sampled data, which take turns of their own
        with (
            server(workspace, given.port, "--workers", "1", *calm) as plain,
            server(workspace, given.port + 1, "--ray", "local", "--set", "cluster.replicas_max=1", *calm) as ray,
        ):
            tell(given, plain, ray)


def tell(given: argparse.Namespace, plain: Server, ray: Server) -> None:
    many: dict[Server, list[tuple[float, float, float]]] = {plain: [], ray: []}
    one: dict[Server, list[tuple[float, float, float]]] = {plain: [], ray: []}
    for each in (plain, ray):
        each.load(2, 2.0)
    for turn in range(given.rounds):
        for each in (plain, ray) if turn % 2 == 0 else (ray, plain):
            many[each].append(each.load(given.clients, given.seconds))
            one[each].append(each.load(1, given.seconds / 3))
    names = ("requests/s", "median ms", "CPU ms a request")
    for title, found in ((f"{given.clients} clients", many), ("one client", one)):
        for place, name in enumerate(names):
            a, b = (float(np.median([row[place] for row in found[each]])) for each in (plain, ray))
            limit = f"   limit {LIMIT:.2f}" if found is many and place == 0 else ""
            print(f"{title}: {name}: plain {a:.2f}, Ray {b:.2f}, ratio {b / a:.2f}{limit}")
    a, b = plain.megabytes(), ray.megabytes()
    print(f"memory of all processes: plain {a:.0f} MB, Ray {b:.0f} MB: {b - a:.0f} MB more")
    print(f"seconds until the first answer: plain {plain.seconds:.1f}, Ray {ray.seconds:.1f}")


if __name__ == "__main__":
    main()
