"""`tastemaker compress`: a smaller, faster bundle, each step accepted only inside the quality budget."""

from __future__ import annotations

import hashlib
import json as json_module
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tastemaker.cli.progress import progress_bars
from tastemaker.cli.workspace import Workspace, open_workspace, serving_environment

if TYPE_CHECKING:
    from tastemaker.compression.budget import Questions
    from tastemaker.compression.ladder import Ladder
    from tastemaker.features.ranking import Read
    from tastemaker.schema.protocols import Asker, FloatArray, IntArray, Progress, QueryState

AT_ONCE = 256
"""Questions that a core answers together."""


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    budget: Annotated[str | None, typer.Option(help="Share of the NDCG@10 that may be lost, such as 1% or 0.01.")] = None,
    bundle: Annotated[str | None, typer.Option(help="A bundle other than the live one.")] = None,
    steps: Annotated[str | None, typer.Option(help="Steps to try, with commas between; default: all.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make a bundle smaller and faster within a quality budget; the same command goes on where it was stopped."""
    from tastemaker.compression.budget import share_of

    asked = [*(overrides or ())]
    if budget is not None:
        asked.append(f"compress.budget={share_of(budget)}")
    if steps is not None:
        asked.append(f"compress.steps={json_module.dumps([name.strip() for name in steps.split(',') if name.strip()])}")
    report = compress(open_workspace(directory, asked), bundle, show=not json)
    if json:
        typer.echo(json_module.dumps(report))
        return
    show_table(report)
    typer.echo(f"Report: {report['report']}")
    if report["version"] is None:
        typer.echo("No step stayed inside the budget, so no bundle was written. Allow more with --budget.")
        return
    typer.echo(f"Bundle {report['version']} ({report['stage']}), made of {report['parent']}.")
    typer.echo(f"Next: tastemaker release {directory} {report['version']}")


def compress(workspace: Workspace, version: str | None = None, show: bool = True) -> dict[str, Any]:
    """Tries the steps and writes a smaller bundle beside the one that it is made of; gives the report.

    Args:
        workspace: its settings, section `compress`, say what is tried and how much may be lost.
        version: the bundle; None: the live one.
        show: progress bars.

    Raises:
        InputError: the journal holds too little to judge by. BundleError: there is no such bundle. SettingsError: an unknown step.
    """
    from tastemaker.bundle.read import open_bundle
    from tastemaker.bundle.registry import Registry
    from tastemaker.cli.judges import judges
    from tastemaker.compression.page import make_report, write_report
    from tastemaker.compression.steps import ladder

    registry, settings = Registry(workspace.bundles), workspace.settings
    groups = ladder(settings.compress)
    parent = registry.folder(version) if version else registry.live()
    open_bundle(parent)
    with progress_bars(show) as progress:
        judged, questions = judges(workspace, parent, progress)
        climbing = _ladder(workspace, parent, judged, questions, groups, progress)
        climbing.climb(judged)
        made = climbing.build(parent, workspace.bundles) if climbing.accepted() else None
    stage = registry.add(made) if made else None
    report = make_report(climbing, parent, workspace.bundles / made if made else None, judged != parent)
    report |= {"stage": stage, "report": str(write_report(report, workspace.reports))}
    return report


def show_table(report: dict[str, Any]) -> None:
    """What each step cost and saved."""
    title = f"{report['questions']:,} held-back questions, {report['budget']:.1%} of the NDCG@10 may be lost"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    for name in ("step", "", "MB", "p50 ms", "texts/s", "alike", "NDCG@10", "95 %"):
        table.add_column(name, justify="left" if name in ("step", "") else "right", no_wrap=True)
    for row in report["rows"]:
        style = "bold" if row["state"] in ("before", "after") else "dim" if row["state"] == "skipped" else ""
        table.add_row(row["step"], row["state"], *row["cells"], style=style)
    console = Console(highlight=False)
    console.print(table)
    for row in report["rows"]:
        if row["state"] in ("refused", "skipped"):
            console.print(f"{row['step']} was {row['state']}: {row['why']}.", style="dim", soft_wrap=True)
    console.print("texts/s: read in a second of CPU; alike: of the ten nearest of a new text, how many are the same", style="dim")
    console.print(report["protocol"], style="dim", soft_wrap=True)


class Served:
    """A bundle as the service answers from it."""

    def __init__(self, folder: Path) -> None:
        from tastemaker.serving.wire import Live

        self._live = Live(folder, check=False)

    def lists(self, histories: Sequence[IntArray], k: int, askers: Sequence[Asker] | None = None) -> list[IntArray]:
        """The k best items of each history, best first, its own items left out; features are told where it is known who asks, and when."""

        def best(rows: slice) -> list[IntArray]:
            return [items for items, _ in self._live.best(self._states(histories, askers, rows), k)]

        return _in_parts(len(histories), best)

    def chances(
        self, histories: Sequence[IntArray], items: Sequence[IntArray], askers: Sequence[Asker] | None = None
    ) -> list[FloatArray]:
        """How likely each of some items is taken next, [n] for each history: the first head's chance, or the score where there is no ranker."""
        import numpy as np

        channels, road, depth = self._live.channels, self._live.road, self._live.settings.fusion.depth

        def told(rows: slice) -> list[FloatArray]:
            found = []
            for state, asked in zip(self._states(histories, askers, rows), items[rows], strict=True):
                ranked = road.scored(channels.score_items(state, asked, depth), state)
                first = ranked.scores if ranked.chances is None else ranked.chances[:, 0]
                found.append(first if np.isfinite(first).all() else ranked.scores)
            return found

        return _in_parts(len(histories), told)

    def _states(self, histories: Sequence[IntArray], askers: Sequence[Asker] | None, rows: slice) -> list[QueryState]:
        return self._live.queries(histories[rows], None if askers is None else askers[rows])

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Whitened unit vectors of texts, float32 [n, T]."""
        return self._live.brain.text.encode(texts)

    def users(self, histories: Sequence[IntArray]) -> FloatArray:
        """User vectors, float32 [B, D]."""
        return self._live.brain.user.vectors(histories, self._live.channels.items.rows)

    def candidates(self, histories: Sequence[IntArray], askers: Sequence[Asker]) -> Read | None:
        """What the ranker reads of the candidates that it would order for people with these histories, none empty; None: there is no ranker."""
        from tastemaker.schema.protocols import Asked

        live, asked = self._live, list[Asked]()
        if live.ranker is None:
            return None
        states = live.queries(histories, askers)
        for found, state in zip(live.channels.candidates(states, live.settings.fusion.depth), states, strict=True):
            scores = live.road.fusion.score(found, len(state.history))
            first = live.ranker.list.first(scores)
            if len(first):
                asked.append(Asked(found, scores, state, first, live.ranker.hydrate(found.items[first], state)))
        return live.ranker.list.read(asked) if asked else None


def _in_parts(count: int, work: Callable[[slice], list[Any]]) -> list[Any]:
    """What a work gives of so many rows, in parts on all cores."""
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import threadpool_limits

    from tastemaker.inference.cpu import cores

    parts = [slice(begin, begin + AT_ONCE) for begin in range(0, count, AT_ONCE)]
    with threadpool_limits(1, "blas"):
        if len(parts) < 2:
            return [one for part in parts for one in work(part)]
        with ThreadPoolExecutor(cores()) as pool:
            return [one for found in pool.map(work, parts) for one in found]


def memory_of(folder: Path) -> tuple[int, int]:
    """Bytes that a fresh process takes for a bundle: at the peak of loading it, reading a text and answering, and then.

    Counted is memory that the process wrote, and pages of the bundle's own files that it read; pages of libraries are the program's, and all processes share them.
    Where the system does not tell (it is read from Linux' /proc), both are 0.
    """
    program = (
        "import io, sys, numpy as np, polars as pl\n"
        "from pathlib import Path\n"
        "from tastemaker.cli.compress import Served\n"
        "import tastemaker.serving.wire\n"
        "folder = str(Path(sys.argv[1]).resolve())\n"
        "def told(name):\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))\n"
        "def held():\n"
        "    total, own = 0, False\n"
        "    for line in Path('/proc/self/smaps').read_text().splitlines():\n"
        "        name, *words = line.split(maxsplit=5)\n"
        "        if not name.endswith(':'):\n"
        "            own = words[-1].startswith(folder)\n"
        "        elif name == ('Rss:' if own else 'Anonymous:'):\n"
        "            total += 1024 * int(words[0])\n"
        "    return total\n"
        "pl.DataFrame({'a': ['b']}).write_parquet(file := io.BytesIO()); file.seek(0); pl.read_parquet(file)\n"  # polars is part of the program
        "before, program = held(), told('VmRSS')\n"
        "Path('/proc/self/clear_refs').write_text('5')\n"  # the peak is counted from here
        "served = Served(Path(sys.argv[1]))\n"
        "served.encode(['a new thing']); served.lists([np.zeros(10, dtype=np.int32)] * 4, 10)\n"
        "rest, libraries = held() - before, told('VmRSS') - program - (held() - before)\n"
        "print(told('VmHWM') - program - libraries, rest)"
    )
    environment = os.environ | serving_environment()
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False, env=environment
    )
    words = done.stdout.split()[-2:]
    if done.returncode or len(words) != 2:
        return 0, 0
    return max(map(int, words)), int(words[1])  # the system counts a peak in steps, so it may lag behind


def _ladder(workspace: Workspace, parent: Path, judged: Path, questions: Questions, groups: Any, progress: Progress) -> Ladder:
    import msgspec

    from tastemaker.bundle.read import open_bundle
    from tastemaker.compression.figures import Probe
    from tastemaker.compression.ladder import Ladder
    from tastemaker.compression.reread import texts_of
    from tastemaker.compression.step import NotApplicable, Tools
    from tastemaker.inference.cpu import cores
    from tastemaker.inference.engine import ItemTower, TextEncoder
    from tastemaker.inference.ranker import open_ranker

    settings = workspace.settings
    whole = open_bundle(judged, check=False).manifest.content()
    chosen = msgspec.structs.replace(settings.compress, steps=())
    key = hashlib.sha256(msgspec.json.encode([whole, parent.name, chosen, questions.words, len(questions)])).hexdigest()[:12]
    tools = Tools(
        open=Served,
        reader=lambda path, width: TextEncoder(path, width, cores()),
        tower=lambda path, content: ItemTower(path.parent, content.shape[1]).vectors(content),
        ranker=open_ranker,
        settings=settings.compress,
        cache=workspace.runs / "cache" / "compress",
        seed=settings.train.seed,
        progress=progress,
    )
    try:
        texts = texts_of(judged)
    except NotApplicable:
        texts = []
    probe = Probe(
        questions.histories, texts, settings.compress.neighbours, memory_of if settings.compress.effort == "normal" else None
    )
    folder = workspace.runs / f"compress-{key}"
    return Ladder(folder, groups, tools, probe, questions, settings.compress.budget, settings.evaluation.bootstrap)
