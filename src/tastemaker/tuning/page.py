"""The report of a search: `tune.json` for programs, `tune.html` for people."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tastemaker.evaluation import page
from tastemaker.evaluation.significance import interval
from tastemaker.schema.settings import Settings
from tastemaker.tuning.choice import Choice
from tastemaker.tuning.confirm import Confirmation
from tastemaker.tuning.figures import history, parallel, shares, told
from tastemaker.tuning.folds import Fold
from tastemaker.tuning.objective import questions_of
from tastemaker.tuning.space import Dial, Value
from tastemaker.tuning.trials import COMPLETE, FAILED, PRUNED, Trial

FEW = 10
"""Judged trials below which importances are more noise than news; the page says so."""


@dataclass(frozen=True)
class Found:
    """All that a search found.

    Attributes:
        settings: what was searched from.
        dials, folds, trials: of the search.
        choice: the trial taken.
        importances: share of each dial, by Optuna.
        pareto: numbers of the trials that none beats in every objective.
        name: of the search.
        confirmed: how the choice did on events put aside; None: it was not asked there.
    """

    settings: Settings
    dials: Sequence[Dial]
    folds: Sequence[Fold]
    trials: Sequence[Trial]
    choice: Choice
    importances: Mapping[str, float]
    pareto: Sequence[int]
    name: str
    confirmed: Confirmation | None = None

    def changes(self) -> dict[str, Value]:
        """What the chosen trial changes of the settings; empty where they stay, also as the choice did worse on the events put aside."""
        if self.confirmed is not None and not self.confirmed.holds:
            return {}
        default = self.choice.default.changes
        return {key: value for key, value in self.choice.chosen.changes.items() if value != default[key]}


def make_report(found: Found) -> dict[str, Any]:
    """The figures of a search, plain values."""
    choice, states = found.choice, [trial.state for trial in found.trials]
    users = np.unique(questions_of(found.folds), return_inverse=True)[1].astype(np.int64)
    records = []
    for trial in found.trials:
        record = trial.record()
        if trial.state == COMPLETE:
            record["interval"] = msgspec.to_builtins(interval(trial.every(), found.settings.evaluation.bootstrap, 0, users))
        records.append(record)
    return {
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "search": found.name,
        "judge": found.settings.tune.judge,
        "objectives": list(found.settings.tune.objectives),
        "folds": [{"words": fold.words, "questions": len(fold.asked)} for fold in found.folds],
        "space": {dial.key: dial.words() for dial in found.dials},
        "counts": {state: states.count(state) for state in (COMPLETE, PRUNED, FAILED)},
        "trials": records,
        "importances": dict(found.importances),
        "pareto": list(found.pareto) if len(found.settings.tune.objectives) > 1 else [],
        "best": choice.best.number,
        "chosen": choice.chosen.number,
        "alike": choice.alike,
        "why": choice.words,
        "changes": found.changes(),
        "gain over the settings as they are": {**msgspec.to_builtins(choice.gain), "p": choice.p},
        "confirmed": msgspec.to_builtins(found.confirmed) if found.confirmed is not None else None,
    }


def write_report(found: Found, report: Mapping[str, Any], folder: Path) -> Path:
    """Writes `tune.json` and `tune.html`; gives the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tune.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    path = folder / "tune.html"
    counts = report["counts"]
    words = f"{len(found.trials)} trials, {counts[PRUNED]} of them ended early, {counts[FAILED]} failed; judged on {len(found.folds)} folds"
    path.write_text(page.page("Which settings suit this log?", words, _body(found, report)), encoding="utf-8")
    return path


def gain_words(choice: Choice) -> str:
    """What changes against the settings as they are, in one sentence."""
    gain = choice.gain
    if choice.chosen.number == 0:
        return "The settings stay as they are."
    span = f"95 % interval of the paired gain: {gain.low:+.4f} to {gain.high:+.4f}"
    share = gain.mean / choice.default.quality if choice.default.quality else 0.0
    if gain.low > 0:
        return f"NDCG@10 {choice.default.quality:.4f} to {choice.chosen.quality:.4f}, {share:+.1%} ({span})."
    return f"No sure gain in NDCG@10: {choice.default.quality:.4f} to {choice.chosen.quality:.4f} ({span})."


def confirmed_words(found: Found) -> str:
    """What the events put aside said of the choice."""
    seen = found.confirmed
    if seen is None:
        return (
            "The gain was measured on the folds that chose it, so it is an upper bound: of many trials the best one was also lucky."
        )
    span = f"{seen.default:.4f} to {seen.chosen:.4f}, {seen.gain.mean:+.4f} ({seen.gain.low:+.4f} to {seen.gain.high:+.4f}, 95 %)"
    if not seen.holds:
        return f"On the latest events, which the search never saw, the choice did worse: {span}. The settings stay as they are."
    sure = "sure" if seen.gain.low > 0 else "not sure, as the interval holds none"
    return f"On the latest events, which the search never saw: NDCG@10 {span}. This gain is {sure}."


def _body(found: Found, report: Mapping[str, Any]) -> str:
    choice = found.choice
    cards = [
        ("NDCG@10 of the settings as they were", f"{choice.default.quality:.4f}"),
        ("NDCG@10 of the chosen ones", f"{choice.chosen.quality:.4f}"),
        ("questions", f"{sum(len(fold.asked) for fold in found.folds):,}"),
        ("chosen trial", str(choice.chosen.number)),
    ]
    text = page.cards(cards) + f"<p><b>{gain_words(choice)}</b></p><p>{choice.words}</p>"
    text += f"<p class=soft>{confirmed_words(found)}</p>"
    text += "<h2>The chosen settings</h2>" + _chosen(found)
    text += "<h2>How the search went</h2>" + history(found.trials, choice.chosen.number)
    text += "<h2>Which values went with which quality</h2>" + parallel(found.trials, found.dials, choice.chosen.number)
    text += "<h2>Which dial matters</h2>" + _importances(found)
    if len(found.settings.tune.objectives) > 1:
        text += "<h2>Not beaten in every objective</h2>" + _pareto(found)
    return text + "<h2>All trials</h2>" + _trials(found, report) + _protocol(found, report)


def _chosen(found: Found) -> str:
    rows = [
        [dial.key, told(found.choice.default.changes[dial.key]), told(found.choice.chosen.changes[dial.key]), dial.words()]
        for dial in found.dials
    ]
    return page.table(["setting", "as it was", "chosen", "searched"], rows)


def _importances(found: Found) -> str:
    judged = sum(bool(trial.gains) for trial in found.trials)
    if not found.importances:
        return f"<p class=soft>{judged} judged trials are too few to tell, or all are alike.</p>"
    note = f"<p class=soft>{judged} judged trials only: take this as a hint.</p>" if judged < FEW else ""
    missing = [dial.key for dial in found.dials if dial.key not in found.importances]
    if missing:
        note += f"<p class=soft>Not told, as the range leaves out the value that the settings have: {', '.join(missing)}.</p>"
    return shares(dict(found.importances)) + note


def _pareto(found: Found) -> str:
    names = found.settings.tune.objectives
    rows = [
        [str(trial.number), *(_objective(name, trial) for name in names)] for trial in found.trials if trial.number in found.pareto
    ]
    return page.table(["trial", *names], rows, str(found.choice.chosen.number))


def _objective(name: str, trial: Trial) -> str:
    value = trial.objective(name)
    return f"{value:.4f}" if name == "quality" else f"{value:.2f} ms" if name == "latency" else f"{value:,.0f}"


def _trials(found: Found, report: Mapping[str, Any]) -> str:
    keys = [dial.key for dial in found.dials]
    head = ["trial", "state", "NDCG@10", "95 % interval", *(f"fold {place + 1}" for place in range(len(found.folds)))]
    head += ["parameters", "ms an answer", "seconds", *(key.partition(".")[2] for key in keys)]
    rows = []
    for trial, record in zip(found.trials, report["trials"], strict=True):
        sure = record.get("interval")
        means = [f"{mean:.4f}" for mean in record["folds"]] + ["" for _ in range(len(found.folds) - len(record["folds"]))]
        span = f"{sure['low']:.4f} to {sure['high']:.4f}" if sure else ""
        figures = [f"{trial.quality:.4f}" if trial.gains else trial.error[:60], span, *means]
        costs = [f"{trial.size:,.0f}", f"{trial.latency:.2f}", f"{trial.seconds:.0f}"] if trial.gains else ["", "", ""]
        values = [told(trial.changes[key]) if key in trial.changes else "" for key in keys]
        rows.append([str(trial.number), trial.state, *figures, *costs, *values])
    return page.table(head, rows, str(found.choice.chosen.number))


def _protocol(found: Found, report: Mapping[str, Any]) -> str:
    what = {
        "whole": "the answer of a fit as `train` makes it",
        "fused": "the fused answer of all channels, without the refit that `train` does at the end",
        "sequence": "the sequence model's own list",
    }[found.settings.tune.judge]
    folds = "".join(f"<li>{fold.words}; {len(fold.asked):,} questions</li>" for fold in found.folds)
    words = (
        f"Judged: {what}; NDCG@10 over the whole catalogue, seen items left out. All trials answer the same questions. Intervals: 95 %, bootstrap over "
        f"users, {found.settings.evaluation.bootstrap:,} resamples; gains are paired question by question. Importances: Optuna's PED-ANOVA "
        "(S. Watanabe et al., 2023), of the first fold, which judged every trial."
    )
    return f"<h2>Protocol</h2><ul>{folds}</ul><p>{words}</p><p class=soft>Search {found.name}, made {report['made']}.</p>"
