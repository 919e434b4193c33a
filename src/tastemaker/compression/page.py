"""The report of a compression: `compression.json` for programs, `compression.html` for people."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tastemaker.compression.figures import Figures
from tastemaker.compression.ladder import ACCEPTED, REFUSED, SKIPPED, Ladder, Tried
from tastemaker.evaluation import page

BEFORE, AFTER = "before", "after"
_STATES = {BEFORE: "var(--soft)", ACCEPTED: "var(--good)", REFUSED: "var(--bad)", AFTER: "var(--main)"}


def make_report(ladder: Ladder, parent: Path, made: Path | None, early: bool) -> dict[str, Any]:
    """All figures, plain values.

    Args:
        ladder: that was climbed.
        parent: what was compressed. made: the smaller bundle; None: there is none.
        early: a bundle of the earlier events was judged.
    """
    before = ladder.state.before
    assert before is not None
    rows = [_row("as it was", BEFORE, "", before, None)]
    kept = before
    for one in ladder.tried():
        rows.append(_row(one.step, one.state, one.why, one.figures, one))
        kept = one.figures if one.state == ACCEPTED and one.figures else kept
    return {
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "parent": parent.name,
        "version": made.name if made else None,
        "budget": ladder.share,
        "questions": len(ladder.questions),
        "protocol": ladder.questions.words,
        "early": early,
        "bytes": [_size(parent), _size(made) if made else _size(parent)],
        "before": msgspec.to_builtins(before),
        "after": msgspec.to_builtins(kept),
        "steps": [msgspec.to_builtins(one) for one in ladder.tried()],
        "rows": rows,
        "pareto": pareto([row for row in rows if row["quality"] is not None]),
    }


def write_report(report: dict[str, Any], folder: Path) -> Path:
    """Writes `compression.json` and `compression.html`; gives the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compression.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    path = folder / "compression.html"
    words = f"{report['parent']}, {report['budget']:.1%} of the NDCG@10 may be lost"
    path.write_text(page.page("What was made smaller, and what did it cost?", words, _body(report)), encoding="utf-8")
    return path


def pareto(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the rows that no other one beats in size, latency and quality at once."""
    names = []
    for row in rows:
        mine = (row["megabytes"], row["p50"], -row["quality"])
        others = [(other["megabytes"], other["p50"], -other["quality"]) for other in rows if other is not row]
        if not any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for other in others):
            names.append(row["step"])
    return names


def _row(name: str, state: str, why: str, figures: Figures | None, one: Tried | None) -> dict[str, Any]:
    verdict = one.verdict if one else None
    row: dict[str, Any] = {"step": name, "state": state, "why": why, "quality": None, "cells": [""] * 6}
    if figures is None:
        return row
    kept = "" if figures.neighbours is None else f"{figures.neighbours:.3f}"
    change = f"{verdict.share:+.2%}" if verdict else ""
    before = (verdict.before or 1.0) if verdict else 1.0
    span = f"{verdict.change.low / before:+.1%}…{verdict.change.high / before:+.1%}" if verdict else ""
    cells = [f"{figures.bytes / 1e6:.1f}", f"{figures.p50:.2f}", f"{figures.texts:,.0f}", kept, change, span]
    return row | {
        "cells": cells,
        "megabytes": figures.bytes / 1e6,
        "p50": figures.p50,
        "quality": verdict.share if verdict else 0.0,
    }


def _size(bundle: Path) -> int:
    return sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())


def _body(report: dict[str, Any]) -> str:
    before, after = report["before"], report["after"]
    one, other = report["bytes"]
    cards = [
        (f"of {one / 1e6:.1f} MB are left", f"{other / 1e6:.1f} MB"),
        ("texts a second of CPU", f"{after['texts'] / max(before['texts'], 1e-9):.1f} ×"),
        ("answers a second of CPU", f"{after['answers'] / max(before['answers'], 1e-9):.1f} ×"),
    ]
    if before["resident"] and after["resident"]:
        cards.append(("of the memory of a process that serves it", f"{after['resident'] / before['resident']:.0%}"))
    text = page.cards([(name, value) for name, value in cards])
    text += "<h2>Step by step</h2>" + _table(report)
    text += "<h2>Quality, latency and size</h2>" + plot(report)
    text += "<h2>What the steps said</h2>" + _facts(report)
    return text + f"<h2>Protocol</h2><p>{html.escape(report['protocol'])}.</p>" + _protocol(report)


def _table(report: dict[str, Any]) -> str:
    head = ["step", "state", "MB", "parameters", "p50 ms", "p99 ms", "answers / CPU s", "texts / CPU s", "peak memory MB", "resident MB", "neighbours kept",
            "NDCG@10", "change", "AUC"]  # fmt: skip
    lines = [["as it was", "", *_cells(report["before"], None)]]
    lines += [[one["step"], one["state"], *_cells(one["figures"], one["verdict"])] for one in report["steps"]]
    return page.table(head, lines, "as it was")


def _cells(figures: dict[str, Any] | None, verdict: dict[str, Any] | None) -> list[str]:
    if figures is None:
        return [""] * 12
    memory, kept = figures["memory"], figures["neighbours"]
    resident = figures["resident"]
    cells = [f"{figures['bytes'] / 1e6:.1f}", f"{figures['parameters']:,}", f"{figures['p50']:.2f}", f"{figures['p99']:.2f}"]
    cells += [f"{figures['answers']:,.0f}", f"{figures['texts']:,.0f}", f"{memory / 1e6:.0f}" if memory else ""]
    cells.append(f"{resident / 1e6:.0f}" if resident else "")
    cells.append("" if kept is None else f"{kept:.3f}")
    if verdict is None:
        return [*cells, "", "", ""]
    change, before = verdict["change"], verdict["before"] or 1.0
    span = f"{change['low'] / before:+.2%} to {change['high'] / before:+.2%}"
    chances = verdict["auc_change"]
    told = f"{chances['mean']:+.4f} [{chances['low']:+.4f}, {chances['high']:+.4f}]" if chances else ""
    return [*cells, f"{change['mean'] / before:+.2%}", span, told]


def _facts(report: dict[str, Any]) -> str:
    lines = []
    for one in report["steps"]:
        told = "; ".join(f"{name} {value}" for name, value in one["facts"].items())
        words = f"<b>{html.escape(one['step'])}</b> ({one['state']}): {html.escape(one['words'])}."
        lines.append(
            f"<li>{words} {html.escape(one['why'])}{'. ' if one['why'] else ''}<span class=soft>{html.escape(told)}</span></li>"
        )
    return f"<ul>{''.join(lines)}</ul>"


def _protocol(report: dict[str, Any]) -> str:
    words = (
        f"A step is accepted if the lower end of the 95 % interval of its paired change of NDCG@10, against the bundle as it was, loses no more than {report['budget']:.1%} of "
        "it: losses don't add up unseen. The same holds of the AUC of the first head's chances (how often an item that came next is thought likelier than one that did not). Intervals: bootstrap over users. A text's neighbours: the ten nearest, of texts that no step has learned from. Latency: one "
        "history to ten items, one thread. Memory: what a fresh process wrote, and the pages of the bundle that it read."
    )
    return f"<p class=soft>{words} Made {report['made']}.</p>"


def plot(report: dict[str, Any]) -> str:
    """Size across, quality up, latency as the size of a dot; what nothing beats is ringed."""
    rows = [row for row in report["rows"] if row["quality"] is not None and row["state"] != SKIPPED]
    most = max(row["megabytes"] for row in rows) * 1.05
    qualities = [row["quality"] for row in rows]
    low, high = min(qualities), max(qualities)
    pad = max((high - low) * 0.15, 0.002)
    low, high, slow = low - pad, high + pad, max(row["p50"] for row in rows)
    marks = []
    for row in rows:
        x, y = 70 + 600 * row["megabytes"] / most, 230 - 210 * (row["quality"] - low) / (high - low)
        size = 4 + 8 * row["p50"] / max(slow, 1e-9)
        ring = "var(--ink)" if row["step"] in report["pareto"] else "none"
        tip = html.escape(f"{row['step']}: {row['megabytes']:.1f} MB, {row['p50']:.2f} ms, NDCG@10 {row['quality']:+.2%}")
        dot = f"<circle cx={x:.1f} cy={y:.1f} r={size:.1f} fill='{_STATES[row['state']]}' fill-opacity=.75 stroke='{ring}' stroke-width=1.5>"
        marks.append(
            f"{dot}<title>{tip}</title></circle><text class=soft x={x + size + 3:.1f} y={y + 4:.1f}>{html.escape(row['step'])}</text>"
        )
    for step in range(5):
        y, value = 230 - 210 * step / 4, low + (high - low) * step / 4
        marks.append(
            f"<path d='M70 {y:.1f}H670' stroke='var(--line)' stroke-width=.7 /><text class=soft x=64 y={y + 4:.1f} text-anchor=end>{value:+.2%}</text>"
        )
        marks.append(f"<text class=soft x={70 + 150 * step} y=248 text-anchor=middle>{most * step / 4:.0f}</text>")
    floor = -report["budget"]
    if low < floor < high:
        y = 230 - 210 * (floor - low) / (high - low)
        marks.append(f"<path d='M70 {y:.1f}H670' stroke='var(--bad)' stroke-dasharray='5 4'><title>the budget</title></path>")
    words = "change of the NDCG@10 over megabytes; a larger dot answers more slowly; ringed: not beaten in all three"
    return f"<figure><svg viewBox='0 0 780 256' width=100% role=img aria-label='{words}'>{''.join(marks)}</svg></figure><p class=soft>{words}.</p>"
