"""The report: `report.json` for programs, `report.html` for people. A lone number is never printed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from tastemaker.evaluation import page
from tastemaker.evaluation.curve import curve_section
from tastemaker.evaluation.frontier import frontier_section
from tastemaker.evaluation.ranking import beyond_accuracy, per_user
from tastemaker.evaluation.significance import Groups, interval, paired
from tastemaker.evaluation.slices import slices

OURS = "Tastemaker"
MAIN = "NDCG@10"


@dataclass(frozen=True)
class Judged:
    """What a report is made of.

    Attributes:
        lists: recommender to its lists (user_id, item_id, rank).
        targets: user_id, item_id; where a user is asked more than once user_id is the name of the question.
        users: question to user; None: every question is another user's.
        popularity: item_id, count (training events). history: user_id, count.
        n_items: size of the catalogue.
        protocol: the protocol in plain words.
        facts: anything else worth keeping, such as the bundle's version.
    """

    lists: dict[str, pl.DataFrame]
    targets: pl.DataFrame
    popularity: pl.DataFrame
    history: pl.DataFrame
    n_items: int
    protocol: str
    users: dict[str, str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def make_report(judged: Judged, ks: tuple[int, ...] = (10, 20), resamples: int = 1_000) -> dict[str, Any]:
    """Every figure of every recommender with its interval, the paired gains of ours, and the slices."""
    ks = tuple(sorted({10, *ks}))
    users = {name: per_user(lists, judged.targets, ks) for name, lists in judged.lists.items()}
    groups = {name: _groups(one.users, judged.users) for name, one in users.items()}
    parts = slices(judged.targets, judged.popularity, judged.history)
    found: dict[str, Any] = {}
    for name, one in users.items():
        metrics = {
            metric: msgspec.to_builtins(interval(values, resamples, 0, groups[name])) for metric, values in one.values.items()
        }
        by_slice = {}
        for part, targets in parts.items():
            few = per_user(judged.lists[name], targets, (10,))
            sure = interval(few.values[MAIN], min(resamples, 300), 0, _groups(few.users, judged.users))
            by_slice[part] = {"targets": targets.height, **msgspec.to_builtins(sure)}
        beyond = beyond_accuracy(judged.lists[name], judged.popularity, judged.n_items)
        found[name] = {"metrics": metrics, "beyond": beyond, "slices": by_slice}
    gains = {}
    for name, one in users.items():
        if name != OURS and OURS in users:
            gap, p = paired(users[OURS].values[MAIN], one.values[MAIN], resamples, 0, groups[name])
            gains[name] = {**msgspec.to_builtins(gap), "p": p}
    return {
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "protocol": judged.protocol,
        "users": len(set(judged.users.values())) if judged.users else judged.targets["user_id"].n_unique(),
        "questions": judged.targets["user_id"].n_unique(),
        "targets": judged.targets.height,
        "catalogue": judged.n_items,
        "resamples": resamples,
        "recommenders": found,
        "gain of ours in NDCG@10": gains,
        **judged.facts,
    }


def _groups(rows: list[str], users: dict[str, str] | None) -> Groups | None:
    if users is None:
        return None
    number: dict[str, int] = {}
    return np.array([number.setdefault(users[row], len(number)) for row in rows], dtype=np.int64)


def write_report(report: dict[str, Any], folder: Path) -> Path:
    """Writes `report.json` and `report.html`; gives the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    path = folder / "report.html"
    path.write_text(page.page("How good are the recommendations?", report["protocol"], _body(report)), encoding="utf-8")
    return path


def best_baseline(report: dict[str, Any]) -> str | None:
    """The baseline with the highest NDCG@10."""
    others = [name for name in report["recommenders"] if name != OURS]
    return max(others, key=lambda name: report["recommenders"][name]["metrics"][MAIN]["mean"], default=None)


def _body(report: dict[str, Any]) -> str:
    found = report["recommenders"]
    order = sorted(found, key=lambda name: -found[name]["metrics"][MAIN]["mean"])
    text = _summary(report)
    for metric, words in (
        (MAIN, "NDCG@10: are the right items at the top?"),
        ("HitRate@10", "HitRate@10: how often is something right among ten?"),
    ):
        rows = [(name, *(found[name]["metrics"][metric][key] for key in ("mean", "low", "high"))) for name in order]
        text += f"<h2>{words}</h2>" + page.bars(rows, OURS)
    names = list(found[order[0]]["metrics"])
    lines = [[name, *(_figure(found[name]["metrics"][metric]) for metric in names)] for name in order]
    text += "<h2>All figures, with their 95 % intervals</h2>" + page.table(["", *names], lines, OURS)
    parts = list(found[order[0]]["slices"])
    lines = [[name, *(_figure(found[name]["slices"][part]) for part in parts)] for name in order]
    heads = [f"{part} ({found[order[0]]['slices'][part]['targets']:,})" for part in parts]
    text += "<h2>NDCG@10 where a mean hides it (number of targets)</h2>" + page.table(["", *heads], lines, OURS)
    beyond = list(found[order[0]]["beyond"])
    lines = [[name, *(f"{found[name]['beyond'][metric]:.3f}" for metric in beyond)] for name in order]
    text += "<h2>Beyond accuracy</h2>" + page.table(["", *beyond], lines, OURS)
    text += (
        "<p class=soft>Coverage: share of the catalogue that somebody is shown. Novelty: bits of surprise of a place. "
        "Gini: 0 if all items are shown equally often, 1 if one takes every place.</p>"
    )
    if "first events" in report:
        text += curve_section(report["first events"], OURS)
    if "frontier" in report:
        text += frontier_section(report["frontier"])
    return text + _protocol(report)


def _summary(report: dict[str, Any]) -> str:
    best = best_baseline(report)
    mine = report["recommenders"].get(OURS)
    cards = [
        ("people judged", f"{report['users']:,}"),
        ("questions asked", f"{report['questions']:,}"),
        ("items in the catalogue", f"{report['catalogue']:,}"),
    ]
    if mine is None:
        return page.cards(cards)
    hit = mine["metrics"]["HitRate@10"]
    cards.insert(0, ("of the time what comes next is among ten recommendations", f"{hit['mean']:.1%}"))
    text = page.cards(cards)
    if best is None:
        return text
    gap = report["gain of ours in NDCG@10"][best]
    base = report["recommenders"][best]["metrics"][MAIN]["mean"]
    share = gap["mean"] / base if base else 0.0
    if gap["low"] > 0:
        words = f"Better than the best simple method ({best}) by {share:.0%} in NDCG@10; chance is ruled out (95 % interval of the gain: {gap['low']:+.4f} to {gap['high']:+.4f})."
    elif gap["high"] < 0:
        words = f"Worse than the best simple method ({best}) by {-share:.0%} in NDCG@10: use that one, or look at the data."
    else:
        words = f"No sure difference to the best simple method ({best}): the gain in NDCG@10 lies between {gap['low']:+.4f} and {gap['high']:+.4f}."
    return text + f"<p><b>{words}</b></p>"


def _protocol(report: dict[str, Any]) -> str:
    words = (
        f"{report['protocol']}. {report['questions']:,} questions of {report['users']:,} users are answered from the whole catalogue of "
        f"{report['catalogue']:,} items; items of a user's own history are left out; ties keep the order of the catalogue; every question "
        f"counts. Intervals: 95 %, bootstrap over users, {report['resamples']:,} resamples; gains are paired question by question."
    )
    return f"<h2>Protocol</h2><p>{words}</p><p class=soft>Made {report['made']}.</p>"


def _figure(value: dict[str, float]) -> str:
    return f"{value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
