"""`tastemaker tune`: search the numbers of the next run on later and later parts of the journal."""

from __future__ import annotations

import hashlib
import json as json_module
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from tastemaker.cli.progress import progress_bars
from tastemaker.cli.workspace import SETTINGS_FILE, Workspace, open_workspace
from tastemaker.schema.cluster import prepare
from tastemaker.schema.protocols import Progress

if TYPE_CHECKING:
    from tastemaker.data.dataset import Dataset
    from tastemaker.schema.settings import Settings
    from tastemaker.tuning.objective import FitObjective
    from tastemaker.tuning.page import Found
    from tastemaker.tuning.workers import Workers

SHOWN = 10


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    trials: Annotated[int | None, typer.Option(help="Trials in all, those of an earlier call included.")] = None,
    folds: Annotated[int | None, typer.Option(help="Cuts in time that every trial is judged behind.")] = None,
    time_budget: Annotated[float | None, typer.Option(help="Seconds after which nothing more is begun.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Trials at the same time.")] = None,
    ray: Annotated[str | None, typer.Option(help="A Ray cluster's address, or local.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the search, in runs/tune-NAME; by default from data and settings.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the chosen settings into tastemaker.toml.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Search settings with time-series cross-validation; the same command goes on where it was stopped."""
    from tastemaker.tuning.page import confirmed_words, gain_words, make_report, write_report
    from tastemaker.tuning.recipe import apply as write_into

    given = {"trials": trials, "folds": folds, "time_budget": time_budget, "jobs": jobs}
    asked = [f"tune.{key}={value}" for key, value in given.items() if value is not None]
    workspace = open_workspace(directory, [*(overrides or ()), *asked])
    found = tune(workspace, name, ray, show=not json)
    report = make_report(found)
    page = write_report(found, report, workspace.reports)
    changes, recipe = found.changes(), keep_recipe(workspace, found)
    if apply and changes:
        write_into(directory / SETTINGS_FILE, changes)
    report |= {"report": str(page), "recipe": str(recipe) if recipe else None, "applied": apply and bool(changes)}
    if json:
        typer.echo(json_module.dumps(report))
        return
    show_table(found)
    typer.echo(f"{found.choice.words}\n{gain_words(found.choice)}")
    if found.choice.chosen.number:
        typer.echo(confirmed_words(found))
    typer.echo(f"Report: {page}")
    if recipe is None:
        return
    typer.echo(f"Recipe: {recipe}" + (f", written into {directory / SETTINGS_FILE}" if apply else ""))
    flags = "" if apply else "".join(f" --set {key}={value}" for key, value in changes.items())
    typer.echo(f"Next: tastemaker train {directory}{flags}" + ("" if apply else "   (or the same tune again with --apply)"))


def tune(workspace: Workspace, name: str | None = None, ray: str | None = None, show: bool = True) -> Found:
    """Searches, or goes on with a search, and chooses.

    Args:
        workspace: its settings say what is searched, and how.
        name: the search lies in `runs/tune-NAME`; None: a name that follows from data and settings.
        ray: address of a cluster; None: this machine.

    Raises:
        InputError: too few events for the folds, or the named search is of other data or settings.
        SettingsError: a dial, a range or a word that is not known.
    """
    from tastemaker.data.dataset import Dataset
    from tastemaker.journal.append import Journal
    from tastemaker.tuning._optuna import Search
    from tastemaker.tuning.choice import choose
    from tastemaker.tuning.confirm import confirm
    from tastemaker.tuning.objective import make_objective
    from tastemaker.tuning.page import Found
    from tastemaker.tuning.space import space_of

    settings = workspace.settings
    dials = space_of(settings)
    journal = Journal.open(workspace.journal)
    try:
        data = Dataset.from_journal(journal, settings)
    finally:
        journal.close()
    key = key_of(data, settings)
    name = name or key[:12]
    with progress_bars(show) as progress:
        objective = make_objective(data, settings, workspace.runs / "cache", progress, settings.tune.confirm)
        search = Search(workspace.runs / f"tune-{name}", _shared_cores(settings), dials, objective.folds, key)
        with _workers(objective, settings, ray, progress) as workers:
            search.run(workers, settings.tune.trials, settings.tune.time_budget, progress)
            trials, pareto, resamples = search.trials(), search.pareto(), settings.evaluation.bootstrap
            choice = choose(trials, objective.folds, settings.tune, pareto if len(search.objectives) > 1 else None, resamples)
            confirmed = None
            if objective.last is not None:
                confirmed = confirm(search.folder, workers, search.base, choice, objective.last, len(objective.folds), resamples)
    return Found(settings, dials, objective.folds, trials, choice, search.importances(), pareto, name, confirmed)


def key_of(data: Dataset, settings: Settings) -> str:
    """Stands for the data and for all settings that a trial's figures hang on: with others it is another search."""
    import msgspec

    from tastemaker.schema.settings_file import to_table

    table = to_table(settings)
    for free in ("trials", "time_budget", "jobs", "rule", "cost"):
        table["tune"].pop(free)
    table["train"].pop("threads")
    for section in ("serving", "profile", "evaluation"):
        table.pop(section)
    return hashlib.sha256(msgspec.json.encode([data.fingerprint(), data.items.height, table])).hexdigest()


def keep_recipe(workspace: Workspace, found: Found) -> Path | None:
    """Writes `recipes/tuned.toml` with what the chosen trial changes; None where the settings stay."""
    from tastemaker.tuning.page import gain_words
    from tastemaker.tuning.recipe import write_recipe

    changes = found.changes()
    if not changes:
        return None
    words = f"Found by `tastemaker tune`, search {found.name}, trial {found.choice.chosen.number}.\n{gain_words(found.choice)}"
    return write_recipe(workspace.path / "recipes" / "tuned.toml", changes, words)


def show_table(found: Found) -> None:
    """The best trials, trial 0 among them."""
    from tastemaker.tuning.figures import told

    table = Table(title=f"The best of {len(found.trials)} trials, and the settings as they were", title_justify="left")
    for head in ("trial", "NDCG@10", "folds", "parameters", "changes"):
        table.add_column(head, justify="left" if head in ("trial", "changes") else "right")
    finished = sorted((trial for trial in found.trials if trial.state == "complete"), key=lambda one: -one.quality)
    default, chosen = found.choice.default.changes, found.choice.chosen.number
    for trial in finished:
        if finished.index(trial) >= SHOWN and trial.number not in (0, chosen):
            continue
        changes = ", ".join(f"{key} {told(value)}" for key, value in trial.changes.items() if value != default[key])
        means = " ".join(f"{one.mean():.4f}" for one in trial.gains)
        row = (str(trial.number), f"{trial.quality:.4f}", means, f"{trial.size:,.0f}", changes or "[dim]as it was[/]")
        table.add_row(*row, style="bold" if trial.number == chosen else "")
    Console(highlight=False).print(table)


@contextmanager
def _workers(objective: FitObjective, settings: Settings, ray: str | None, progress: Progress) -> Iterator[Workers]:
    from tastemaker.tuning.workers import Here, processes

    if ray is not None:
        prepare(ray)
        from tastemaker.tuning._ray import cluster

        with cluster(objective, ray, settings.tune.jobs, _shared_cores(settings).train.threads or 1) as workers:
            yield workers
    elif settings.tune.jobs > 1:
        with processes(objective, settings.tune.jobs) as workers:
            yield workers
    else:
        yield Here(objective, progress)


def _shared_cores(settings: Settings) -> Settings:
    """With several trials at once and no number of threads named, each gets its part of the cores."""
    import msgspec

    from tastemaker.inference.cpu import cores

    if settings.train.threads or settings.tune.jobs == 1:
        return settings
    threads = max(cores() // settings.tune.jobs, 1)
    return msgspec.structs.replace(settings, train=msgspec.structs.replace(settings.train, threads=threads))
