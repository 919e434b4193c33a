"""`tastemaker evaluate`: judge on held-back events against strong baselines."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tastemaker.cli.backtest import backtest, curve_of, every, floor_lists, judged_of, wanted_of
from tastemaker.cli.progress import progress_bars
from tastemaker.cli.strangers import MOST_LISTS, lists_of, strangers, variety
from tastemaker.cli.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    import polars as pl

    from tastemaker.data.dataset import Dataset
    from tastemaker.data.split import Split
    from tastemaker.evaluation.report import Judged
    from tastemaker.schema.protocols import Progress
    from tastemaker.schema.settings import Settings

ENOUGH_USERS = 100
"""With events of this many users that are newer than the bundle, the bundle itself is judged on them."""


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    bundle: Annotated[str | None, typer.Option(help="A bundle other than the live one.")] = None,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Judge the floors beside it.")] = True,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Judge on held-back events, whole catalogue, strong baselines beside."""
    from tastemaker.evaluation.report import write_report

    workspace = open_workspace(directory, overrides or ())
    report = evaluate(workspace, bundle, baselines, show=not json)
    path = write_report(report, workspace.reports)
    if json:
        typer.echo(json_module.dumps(report))
        return
    show_table(report)
    typer.echo(f"Report: {path}")


def evaluate(workspace: Workspace, version: str | None = None, floors: bool = True, show: bool = True) -> dict[str, Any]:
    """The report of a workspace.

    With enough events newer than the bundle the bundle itself is judged on them. Else the journal is split, the same learner is trained on the
    earlier part, and judged on the later one: the bundle has learned from every event and can't be judged by them.

    Raises:
        InputError: the journal holds too little to hold anything back.
    """
    from tastemaker.bundle.read import open_bundle
    from tastemaker.bundle.registry import Registry
    from tastemaker.data.dataset import Dataset
    from tastemaker.data.select import positives
    from tastemaker.data.split import newer, split
    from tastemaker.evaluation.report import make_report
    from tastemaker.journal.append import Journal

    registry = Registry(workspace.bundles)
    folder = registry.folder(version) if version else registry.live()
    manifest = open_bundle(folder).manifest
    journal = Journal.open(workspace.journal)
    try:
        data = Dataset.from_journal(journal, workspace.settings)
        later = (
            positives(journal.read(manifest.data.position), workspace.settings.data.positive)
            if journal.position() > manifest.data.position
            else None
        )
    finally:
        journal.close()
    settings = workspace.settings
    fresh = newer(data, later) if later is not None and later.height else None
    with progress_bars(show) as progress:
        if fresh is not None and fresh.test["user_id"].n_unique() >= ENOUGH_USERS:
            judged = judge_bundle(folder, data, fresh, settings, floors, progress)
        else:
            part = split(data, settings.data.split, settings.data.test_share, settings.train.seed)
            judged = backtest(workspace, data, part, floors, progress)
        judged.facts["bundle"] = manifest.version
        return make_report(judged, settings.evaluation.k, settings.evaluation.bootstrap)


def judge_bundle(folder: Path, data: Dataset, part: Split, settings: Settings, floors: bool, progress: Progress) -> Judged:
    """The bundle's own lists for events that it has not seen, and those of the floors trained on what it has seen; `data` is all there is."""
    from threadpoolctl import threadpool_limits

    from tastemaker.data.sequences import build
    from tastemaker.evaluation.recommenders import OURS, UNRANKED
    from tastemaker.inference.cpu import cores
    from tastemaker.schema.protocols import Asker
    from tastemaker.schema.settings import Settings
    from tastemaker.serving.wire import Live

    targets = _sampled(part.test, settings.evaluation.max_users, settings.train.seed)
    users = targets["user_id"].unique(maintain_order=True).to_list()
    depth = max(20, *settings.evaluation.k)
    live = Live(folder, threads=cores(), service=Settings(ranker=settings.ranker))  # no rule of the house
    ids = [row["item_id"] for row in live.state.rows]
    histories = [live.state.history(user) for user in users]
    facts: dict[str, Any] = {"kind": "bundle", "ranker": _ranker_report(folder)}
    with threadpool_limits(1, "blas"):
        askers = [Asker(user, time.time()) for user in users]
        states = live.queries(histories, askers)
        lists = {OURS: lists_of(users, [items for items, _ in live.best(states, depth)], ids)}
        if live.ranker is not None and live.ranker.list.decides:
            lists[UNRANKED] = lists_of(users, [items for items, _ in live.best(states, depth, rank=False)], ids)
        wanted = wanted_of(targets, ids)
        categories = [row.get("categories") or [] for row in live.state.rows]
        few = slice(0, MOST_LISTS)
        facts["frontier"] = variety(
            live.channels, live.road.fusion, states[few], [wanted[user] for user in users[few]], categories, settings.fusion.depth
        )
        if floors:
            text = live.channels.text.rows(every(live.channels.n_items))
            train = build(part.train, ids)
            lists |= floor_lists(train, text, part.train.time_is_order, users, histories, settings, progress)
            facts |= curve_of(strangers(part, data, train, live.answers_to, settings))
    return judged_of(lists, targets, part.train, f"{part.words}; the bundle itself was judged", facts)


def _ranker_report(folder: Path) -> dict[str, Any] | None:
    """What the bundle's ranker says of itself; None where it has none."""
    path = folder / "ranker" / "report.json"
    return dict(json_module.loads(path.read_bytes())) if path.is_file() else None


def show_table(report: dict[str, Any]) -> None:
    """The main figures with their intervals."""
    table = Table(
        title=f"{report['questions']:,} questions of {report['users']:,} users, {report['catalogue']:,} items", title_justify="left"
    )
    found = report["recommenders"]
    names = [name for name in ("NDCG@10", "HitRate@10", "Recall@20") if name in next(iter(found.values()))["metrics"]]
    for name in ("", *names, "Coverage@10"):
        table.add_column(name, justify="left" if not name else "right")
    for who in sorted(found, key=lambda one: -found[one]["metrics"]["NDCG@10"]["mean"]):
        figures = [found[who]["metrics"][name] for name in names]
        cells = [f"{one['mean']:.4f} [dim]±{(one['high'] - one['low']) / 2:.4f}[/]" for one in figures]
        table.add_row(who, *cells, f"{found[who]['beyond']['Coverage@10']:.2f}", style="bold" if who == "Tastemaker" else "")
    console = Console(highlight=False)
    console.print(table)
    if "first events" in report:
        console.print(report["first events"]["sentence"])
    console.print(report["protocol"], style="dim")


def _sampled(test: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    users = test["user_id"].unique(maintain_order=True)
    if users.len() <= most:
        return test
    return test.filter(test["user_id"].is_in(users.sample(most, seed=seed).implode()))
