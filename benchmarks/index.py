"""Nearest items by size of the catalogue: milliseconds, recall, memory and build time beside exact search, and what inserts do to it.

    python benchmarks/index.py [--items 1e4 1e5 1e6 1e7] [--folder F]    the curve; a built index stays in the folder for the next run
    python benchmarks/index.py --inserts [--items 1e5] [--seconds 10]    1,000 inserts, replacements and deletions a second while it answers
    python benchmarks/index.py --crossover [--items 2e3 4e3 8e3 16e3 32e3]   CPU of all candidates of a list, exact beside approximate, and how many of the best ten agree
    python benchmarks/index.py --reach [--items 2e5] [--spread 1.6]      what more lists find and cost, in CPU of an exact search, where neighbours are so loose (1.0: cosines of .5)

Clustered unit vectors of 128 numbers, one query at a time, one thread. Each size is measured in a process of its own that has opened the finished index through
its memory map; resident memory is that of this process less what it was before. Recall is among the true best hundred.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _served_world import DIM, vectors

LIMITS = {100_000: (0.98, 0.35), 1_000_000: (0.95, 1.0), 10_000_000: (0.90, 5.0)}
"""Items: least recall at 100, most milliseconds."""
MEMORY_GIB, PAUSE_MS = 2.0, 50.0
QUESTIONS = 300


def resident() -> float:
    """GiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


def build(items: int, folder: Path) -> None:
    """Builds an index over half-precision vectors, and the truth of some questions."""
    from tastemaker.index.build import _truth, build
    from tastemaker.index.exact import DenseIndex
    from tastemaker.schema.settings import IndexSettings

    table = vectors(items).astype(np.float16) if items > 2_000_000 else vectors(items)
    np.save(folder / "items.npy", table)
    random = np.random.default_rng(5)
    asked = table[random.integers(0, items, QUESTIONS)].astype(np.float32)
    asked += random.standard_normal(asked.shape, dtype=np.float32) / math.sqrt(DIM)
    del table
    index = DenseIndex(np.load(folder / "items.npy", mmap_mode="r"))
    began, cpu = time.perf_counter(), time.process_time()
    plan = build(index, folder, "items", IndexSettings(), asked)
    told = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "built": plan is not None}
    told["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    np.save(folder / "questions.npy", asked)
    np.save(folder / "truth.npy", np.array(_truth(index, asked, 100)))
    (folder / "built.json").write_text(json.dumps(told))


def ask(folder: Path) -> dict[str, float]:
    """Milliseconds, recall and memory of a built index."""
    from threadpoolctl import threadpool_limits

    from tastemaker.index.approximate import load
    from tastemaker.index.coded import load as load_vectors

    threadpool_limits(1)
    asked, truth = np.load(folder / "questions.npy"), np.load(folder / "truth.npy")
    before, began = resident(), time.perf_counter()
    index = load(folder, "items", load_vectors(folder, "items"))
    found = index.search(asked[:1], 100)
    first = 1e3 * (time.perf_counter() - began)
    times, recall = [], []
    for _ in range(2):  # the first round reads pages
        times, recall = [], []
        for question, true in zip(asked, truth, strict=True):
            began = time.perf_counter()
            found = index.search(question[None], 100)
            times.append(1e3 * (time.perf_counter() - began))
            recall.append(len(np.intersect1d(found[0][0], true)) / 100)
    plan = getattr(index, "plan", None)
    told = {
        "ms": float(np.median(times)),
        "p99": float(np.percentile(times, 99)),
        "recall": float(np.mean(recall)),
        "first_ms": first,
    }
    told |= {"gib": resident() - before, "lists": plan.lists if plan else 0, "probes": plan.probes if plan else 0}
    files = sum(path.stat().st_size for path in folder.glob("items.*") if path.name != "items.npy")
    return told | json.loads((folder / "built.json").read_text()) | {"file_gib": files / 2**30}


def curve(sizes: list[int], folder: Path) -> None:
    """Prints a line for each size."""
    print(
        "| items | ms | p99 | share of limit | recall@100 | least | resident GiB | files GiB | lists read | build s (CPU s, peak GiB) | open + first ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    seen = []
    for items in sizes:
        place = folder / str(items)
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "built.json").is_file():
            subprocess.run([sys.executable, __file__, "--build", str(items), "--folder", str(place)], check=True)
        again = [sys.executable, __file__, "--ask", "--folder", str(place)]
        told = json.loads(subprocess.run(again, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        recall, most = LIMITS.get(items, (0.0, math.inf))
        kind = f"{told['probes']:.0f} of {told['lists']:.0f}" if told["lists"] else "exact"
        print(
            f"| {items:,} | {told['ms']:.3f} | {told['p99']:.3f} | {told['ms'] / most:.2f} | {told['recall']:.4f} | {recall} | {told['gib']:.2f} "
            f"| {told['file_gib']:.2f} | {kind} | {told['seconds']:.0f} ({told['cpu']:.0f}, {told['peak_gib']:.1f}) | {told['first_ms']:.0f} |",
            flush=True,
        )
        seen.append((items, told["ms"], told["file_gib"]))
    if len(seen) > 1:
        sizes_, times = np.log([one[0] for one in seen]), np.log([one[1] for one in seen])
        print(
            f"latency grows with items to the power of {np.polyfit(sizes_, times, 1)[0]:.2f}; memory limit at 10 M {MEMORY_GIB} GiB"
        )


def inserts(items: int, seconds: float) -> None:
    """Answers, and now and then takes what came since: 700 inserts, 200 replacements, 100 deletions a second."""
    from threadpoolctl import threadpool_limits

    from tastemaker.index.approximate import load
    from tastemaker.index.build import build
    from tastemaker.index.coded import load as load_vectors
    from tastemaker.index.exact import DenseIndex
    from tastemaker.schema.settings import IndexSettings

    threadpool_limits(1)
    with tempfile.TemporaryDirectory() as name:
        folder, table = Path(name), vectors(items)
        np.save(folder / "items.npy", table)
        build(DenseIndex(table), folder, "items", IndexSettings())
        index, random = load(folder, "items", load_vectors(folder, "items")), np.random.default_rng(1)
        later = vectors(int(1_000 * seconds) + 1_000, seed=0)
        allowed = np.ones(items + len(later), dtype=bool)
        answers, changes, waits = [], [], []
        began, done, missed = time.perf_counter(), 0, 0
        while (now := time.perf_counter() - began) < seconds:
            turn = time.perf_counter()
            while done < 1_000 * now:
                mark = time.perf_counter()
                if done % 10 < 7:
                    place = index.append(later[done])
                    if done % 70 == 0:
                        found = index.search(later[done][None], 10, allowed[: len(index)])[0][0]
                        missed += place not in found.tolist()
                elif done % 10 < 9:
                    index.replace(int(random.integers(0, len(index))), later[done])
                else:
                    allowed[int(random.integers(0, len(index)))] = False
                changes.append(1e3 * (time.perf_counter() - mark))
                done += 1
            mark = time.perf_counter()
            index.search(later[int(random.integers(0, len(later)))][None], 100, allowed[: len(index)])
            answers.append(1e3 * (time.perf_counter() - mark))
            waits.append(1e3 * (time.perf_counter() - turn))
    print(
        f"{items:,} items, {done:,} changes in {seconds:.0f} s ({done / seconds:,.0f} a second), {len(answers):,} answers between them"
    )
    print(f"a change ms: median {np.median(changes):.4f}, longest {max(changes):.2f}")
    print(f"an answer ms: median {np.median(answers):.3f}, p99 {np.percentile(answers, 99):.3f}, longest {max(answers):.2f}")
    print(
        f"longest pause {max(waits):.1f} ms: {max(waits) / PAUSE_MS:.2f} of {PAUSE_MS:.0f}; new items not found at once: {missed}"
    )


def crossover(items: int, rounds: int = 12) -> None:
    """Prints what the candidates of a list cost from a look at all items and from approximate indexes, asked in turns, alone and sixteen together."""
    import scipy.sparse as sp
    from threadpoolctl import threadpool_limits

    from tastemaker.index.build import usual_recall
    from tastemaker.index.channels import Channels, Decays
    from tastemaker.index.neighbours import Neighbours
    from tastemaker.models.fusion import Fusion
    from tastemaker.schema.protocols import QueryState
    from tastemaker.schema.settings import IndexSettings

    threadpool_limits(1)
    random, table = np.random.default_rng(3), vectors(items)
    counts = np.bincount((items * random.random(5 * items) ** 3).astype(np.int64), minlength=items).astype(np.float32)
    bias, nothing = np.log1p(counts) - np.log1p(counts).max(), Neighbours(sp.csr_matrix((items, items), dtype=np.float32))
    whole = Channels(table, bias, vectors(items, 64, 7), counts / counts.max(), counts, nothing, nothing, Decays())
    noise = random.standard_normal((320, DIM), dtype=np.float32) / math.sqrt(DIM)
    asked = np.float32(12) * (table[random.integers(0, items, 320)] + np.float32(0.5) * noise)
    states = [QueryState(random.choice(items, min(200, items // 10), replace=False).astype(np.int32), one) for one in asked]
    with tempfile.TemporaryDirectory() as name:
        whole.save(Path(name), IndexSettings(kind="approximate", recall=usual_recall(items)), asked[:256])
        both = Channels.load(Path(name), approximate=False), Channels.load(Path(name))
        fusion, best = Fusion.reciprocal_ranks(whole.names), list[list[set[int]]]()
        for channels in both:
            found = [channels.candidates([state], 100)[0] for state in states]
            best.append([set(one.items[np.argsort(-fusion.score(one, 200), kind="stable")[:10]].tolist()) for one in found])
        cost: dict[tuple[int, int], list[float]] = {}
        for _ in range(rounds):
            for together in (1, 16):
                for which, channels in enumerate(both):
                    began = time.thread_time()
                    for begin in range(0, 96, together):
                        channels.candidates(states[begin : begin + together], 100)
                    cost.setdefault((together, which), []).append(1e3 * (time.thread_time() - began) / 96)
    ms = {key: float(np.median(values)) for key, values in cost.items()}
    agree = np.mean([len(one & other) / 10 for one, other in zip(*best, strict=True)])
    columns = " | ".join(f"{ms[n, 0]:.2f} | {ms[n, 1]:.2f} | {ms[n, 0] / ms[n, 1]:.1f}" for n in (1, 16))
    print(f"| {items:,} | {columns} | {agree:.3f} |", flush=True)


def reach(items: int, spread: float, rounds: int = 3) -> None:
    """Prints recall@100 and CPU by the share of the lists that is read, as shares of the exact search's, alone and sixteen together."""
    import msgspec
    from threadpoolctl import threadpool_limits

    from tastemaker.index._faiss import InvertedFile
    from tastemaker.index.approximate import ApproximateIndex, Plan
    from tastemaker.index.build import MORE, _filled, _truth
    from tastemaker.index.exact import DenseIndex

    threadpool_limits(1)
    random = np.random.default_rng(0)
    centres = random.standard_normal((max(items // 200, 64), DIM), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    table = np.empty((items, DIM), dtype=np.float32)
    for begin in range(0, items, 65_536):
        part = centres[random.integers(0, len(centres), min(65_536, items - begin))]
        part += spread / math.sqrt(DIM) * random.standard_normal(part.shape, dtype=np.float32)
        table[begin : begin + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    asked = table[random.integers(0, items, 64)] + np.float32(spread / math.sqrt(DIM)) * random.standard_normal(
        (64, DIM), dtype=np.float32
    )
    exact = DenseIndex(table)
    truth, (inverted, list_of) = _truth(exact, asked, 100), _filled(InvertedFile, exact, 0.0, 0.0, os.cpu_count() or 1)
    plan = Plan(items, DIM, len(inverted.centres), 1, 0.0, 0.0, 0.0, len(asked), MORE)
    found = ApproximateIndex(exact.base, None, inverted, list_of, plan)

    def cpu(index: DenseIndex, together: int) -> float:
        began = time.thread_time()
        for begin in range(0, 32, together):
            index.search(asked[begin : begin + together], 100)
        return time.thread_time() - began

    print(f"{items:,} rows, neighbours {spread} from their centre, {plan.lists:,} lists; CPU of exact search = 1")
    print("| lists read | recall@100 | CPU, alone | 16 together |\n|---:|---:|---:|---:|")
    for share in (64, 32, 16, 8, 4, 2):
        found.plan = msgspec.structs.replace(plan, probes=plan.lists // share)
        shares = [len(np.intersect1d(one, true)) / 100 for (one, _), true in zip(found.search(asked, 100), truth, strict=True)]
        turns = [[cpu(index, together) for together in (1, 16) for index in (found, exact)] for _ in range(rounds)]
        alone, exact_alone, both, exact_both = np.median(np.array(turns), axis=0)
        print(f"| 1/{share} | {np.mean(shares):.3f} | {alone / exact_alone:.3f} | {both / exact_both:.3f} |", flush=True)


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--items", nargs="*", type=float)
    reader.add_argument("--folder", type=Path)
    reader.add_argument("--inserts", action="store_true")
    reader.add_argument("--crossover", action="store_true")
    reader.add_argument("--reach", action="store_true")
    reader.add_argument("--spread", type=float, default=1.6)
    reader.add_argument("--seconds", type=float, default=10.0)
    reader.add_argument("--build", type=int, help=argparse.SUPPRESS)
    reader.add_argument("--ask", action="store_true", help=argparse.SUPPRESS)
    asked = reader.parse_args()
    if asked.build:
        build(asked.build, asked.folder)
    elif asked.ask:
        print(json.dumps(ask(asked.folder)))
    elif asked.crossover:
        print("| items | exact ms | approximate ms | ratio | 16 together: exact | approximate | ratio | of the best ten the same |")
        print("|---:|---:|---:|---:|---:|---:|---:|---:|")
        for size in asked.items or [2e3, 4e3, 8e3, 16e3, 32e3]:
            crossover(int(size))
    elif asked.reach:
        for size in asked.items or [2e5]:
            reach(int(size), asked.spread)
    elif asked.inserts:
        inserts(int(asked.items[0]) if asked.items else 100_000, asked.seconds)
    else:
        sizes = [int(size) for size in asked.items or [1e4, 1e5, 1e6]]
        if asked.folder is not None:
            curve(sizes, asked.folder)
            return
        with tempfile.TemporaryDirectory() as name:
            curve(sizes, Path(name))


if __name__ == "__main__":
    main()
