"""Plots of a search as inline SVG: how it went, and which values went with which quality."""

from __future__ import annotations

import html
from collections.abc import Sequence

from tastemaker.evaluation.plots import BOTTOM, LEFT, RIGHT, TOP
from tastemaker.tuning.space import Dial, Value
from tastemaker.tuning.trials import COMPLETE, Trial

_COLOURS = {COMPLETE: "var(--main)"}


def history(trials: Sequence[Trial], chosen: int) -> str:
    """NDCG@10 of each trial in order: full dots are judged by all folds, pale ones were pruned; the line is the best so far."""
    judged = [trial for trial in trials if trial.gains]
    low, high = _ends([trial.quality for trial in judged])
    last = max(max(trial.number for trial in judged), 1)
    marks, best, path = "".join(_level(value, low, high) for value in (low, (low + high) / 2, high)), -1.0, []
    for trial in judged:
        x, y = LEFT + 20 + (RIGHT - LEFT - 40) * trial.number / last, _up(trial.quality, low, high)
        if trial.state == COMPLETE:
            best = max(best, trial.quality)
            path.append(f"{x:.1f} {_up(best, low, high):.1f}")
        colour = "var(--good)" if trial.number == chosen else _COLOURS.get(trial.state, "var(--mute)")
        words = html.escape(f"trial {trial.number}, {trial.state}: {trial.quality:.4f}")
        marks += f"<circle cx={x:.1f} cy={y:.1f} r={6 if trial.number in (0, chosen) else 4} fill='{colour}'><title>{words}</title></circle>"
        if trial.number in (0, chosen):
            name = "as it was" if trial.number == 0 else f"chosen: {trial.number}"
            marks += f"<text x={x:.1f} y={y - 10:.1f} text-anchor=middle>{name}</text>"
    marks = f"<path d='M{'L'.join(path)}' stroke='var(--soft)' fill=none />{marks}" if path else marks
    ends = f"<text class=soft x={LEFT} y=196>trial 0</text><text class=soft x={RIGHT} y=196 text-anchor=end>trial {last}</text>"
    return _figure(marks + ends, "NDCG@10 of each trial", 204)


def parallel(trials: Sequence[Trial], dials: Sequence[Dial], chosen: int) -> str:
    """One line a trial through its values, each dial an upright axis and NDCG@10 the last; the better, the stronger; the chosen one in green."""
    judged = sorted((trial for trial in trials if trial.gains), key=lambda trial: (trial.number == chosen, trial.quality))
    low, high = _ends([trial.quality for trial in judged])
    width = (RIGHT - LEFT) / max(len(dials), 1)
    top, bottom = TOP + 22, BOTTOM + 40
    marks = ""
    for trial in judged:
        heights = [dial.place(trial.changes[dial.key]) for dial in dials] + [(trial.quality - low) / (high - low)]
        path = "L".join(f"{LEFT + place * width:.1f} {bottom - (bottom - top) * one:.1f}" for place, one in enumerate(heights))
        strong = trial.number == chosen
        colour = "var(--good)" if strong else "var(--main)" if trial.state == COMPLETE else "var(--mute)"
        words = html.escape(
            f"trial {trial.number}: {trial.quality:.4f}; " + ", ".join(f"{k} {told(v)}" for k, v in trial.changes.items())
        )
        opacity = 1.0 if strong else 0.15 + 0.6 * heights[-1]
        marks += f"<path d='M{path}' stroke='{colour}' stroke-width={3 if strong else 1.6} fill=none opacity={opacity:.2f}><title>{words}</title></path>"
    for place, dial in enumerate(dials):
        first, last = (dial.choices[0], dial.choices[-1]) if dial.choices else (dial.low, dial.high)
        marks += _axis(LEFT + place * width, top, bottom, dial.key.partition(".")[2], told(first), told(last), place % 2)
    marks += _axis(LEFT + len(dials) * width, top, bottom, "NDCG@10", f"{low:.4f}", f"{high:.4f}", len(dials) % 2)
    return _figure(marks, "values of the trials and their NDCG@10", bottom + 36)


def shares(found: dict[str, float]) -> str:
    """Horizontal bars of shares of 1."""
    parts = ""
    for place, (name, value) in enumerate(found.items()):
        y = 26 * place + 2
        parts += f"<text x=196 y={y + 15} text-anchor=end>{html.escape(name)}</text><rect x=206 y={y} width={max(400 * value, 1):.1f} height=19 rx=3 fill='var(--main)'/>"
        parts += f"<text class=soft x={214 + 400 * value:.0f} y={y + 15}>{value:.0%}</text>"
    return _figure(parts, "importance of the dials", 26 * len(found) + 6)


def told(value: Value | float) -> str:
    """A value in few letters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _axis(x: float, top: float, bottom: float, name: str, first: str, last: str, lower: int) -> str:
    line = f"<path d='M{x:.1f} {top:.0f}V{bottom:.0f}' stroke='var(--line)' stroke-width=1.5 />"
    words = ((top - 6, last, " class=soft"), (bottom + 13, first, " class=soft"), (bottom + (31 if lower else 45), name, ""))
    return line + "".join(
        f"<text{kind} x={x:.1f} y={y:.0f} text-anchor=middle style='font-size:11px'>{html.escape(word)}</text>"
        for y, word, kind in words
    )


def _level(value: float, low: float, high: float) -> str:
    y = _up(value, low, high)
    return f"<path d='M{LEFT} {y:.1f}H{RIGHT}' stroke='var(--line)' stroke-width=.7 /><text class=soft x={LEFT - 6} y={y + 4:.1f} text-anchor=end>{value:.4f}</text>"


def _up(value: float, low: float, high: float) -> float:
    return BOTTOM - (BOTTOM - TOP - 20) * (value - low) / (high - low)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest value, a little apart in any case."""
    low, high = min(values), max(values)
    return (low, high) if high - low > 1e-6 else (low - 1e-3, high + 1e-3)


def _figure(marks: str, label: str, height: float) -> str:
    return f"<figure><svg viewBox='-20 0 740 {height:.0f}' width=100% role=img aria-label='{html.escape(label)}'>{marks}</svg></figure>"
