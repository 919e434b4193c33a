"""Plots as inline SVG: no script, colours from the page's style, so light and dark; every mark tells its figure when pointed at."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

LEFT, RIGHT, TOP, BOTTOM = 58.0, 690.0, 12.0, 176.0
COLOURS = ("var(--main)", "var(--second)", "var(--good)", "var(--soft)")


def timeline(points: Sequence[tuple[str, int, bool]], label: str) -> str:
    """Columns in time (name, value, whether something is missing here); where something is missing the ground is shaded."""
    if not points:
        return _nothing(label)
    top = max(value for _, value, _ in points) or 1
    width = (RIGHT - LEFT) / len(points)
    marks = []
    for place, (name, value, missing) in enumerate(points):
        x, high = LEFT + place * width, (BOTTOM - TOP) * value / top
        if missing:
            marks.append(f"<rect x={x:.2f} y={TOP} width={width:.2f} height={BOTTOM - TOP} fill='var(--warn)' opacity=.28 />")
        if value:
            marks.append(_box(x, BOTTOM - max(high, 1), max(width * 0.9, 0.6), max(high, 1), f"{name}: {value:,}"))
    names = [(LEFT + (place + 0.5) * width, points[place][0]) for place in _spread(len(points), 5)]
    return _figure(_side(top) + "".join(marks) + _below(names), label)


def histogram(edges: Sequence[float], counts: Sequence[int], label: str, log: bool = False) -> str:
    """Columns between edges, one edge more than columns; `log`: edges grow by a factor, columns are drawn equally wide."""
    if not counts:
        return _nothing(label)
    width = (RIGHT - LEFT) / len(counts)
    names = [f"{compact(edges[place])} to {compact(edges[place + 1])}" for place in range(len(counts))]
    marks = _columns(names, counts)
    below = [(LEFT + place * width, compact(edges[place])) for place in _spread(len(edges), 6)]
    words = f"{label}, columns grow by a factor" if log else label
    return _figure(_side(max(counts)) + marks + _below(below), words)


def named_columns(points: Sequence[tuple[str, int]], label: str) -> str:
    """A column for each name, all names written below, turned where there are many."""
    if not points:
        return _nothing(label)
    counts = [count for _, count in points]
    width = (RIGHT - LEFT) / len(points)
    every = max(math.ceil(len(points) / 16), 1)
    below = [(LEFT + (place + 0.5) * width, name) for place, (name, _) in enumerate(points) if place % every == 0]
    marks = _columns([name for name, _ in points], counts)
    return _figure(_side(max(counts)) + marks + _below(below), label)


def ranked(rows: Sequence[tuple[str, int]], label: str) -> str:
    """Horizontal bars with a name and a figure each."""
    if not rows:
        return _nothing(label)
    top = max(max(value for _, value in rows), 1)
    parts = []
    for place, (name, value) in enumerate(rows):
        y, short = 24 * place + 2, name if len(name) <= 28 else name[:27] + "…"
        parts.append(
            f"<text x=206 y={y + 14} text-anchor=end>{html.escape(short)}<title>{html.escape(name)}</title></text>"
            f"{_box(214, y, max(390 * value / top, 1), 17, f'{name}: {value:,}')}<text class=soft x={220 + 390 * value / top:.0f} y={y + 14}>{value:,}</text>"
        )
    return _figure("".join(parts), label, 24 * len(rows) + 6)


def lines(
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    label: str,
    *,
    log: bool = False,
    percent: bool = False,
    names: Sequence[str] = (),
    below: str = "",
    digits: int = 0,
) -> str:
    """Lines (name, points); `log`: both axes logarithmic; `percent`: the vertical axis runs from 0 to 100 %.

    Args:
        series: points (x, y) in the order of x; with `log` all are positive.
        label: what is shown.
        names: words for x = 0, 1, … in place of numbers.
        below: what the horizontal axis says.
        digits: of the numbers that a mark tells.
    """
    points = [point for _, line in series for point in line]
    if not points:
        return _nothing(label)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low_x, high_x = min(xs), max(xs)
    low_y, high_y = (1.0, max(ys)) if log else (0.0, 1.0 if percent else max(ys) or 1.0)
    across, up = _scale(low_x, high_x, LEFT, RIGHT, log), _scale(low_y, high_y, BOTTOM, TOP, log)
    marks = ""
    for place, (name, line) in enumerate(series):
        colour = COLOURS[place % len(COLOURS)]
        path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in line)
        marks += f"<path d='M{path}' stroke='{colour}' stroke-width=2 fill=none />"
        for x, y in line:
            word = names[int(x)] if names else f"{x:,.{digits}f}"
            value = f"{y:.1%}" if percent else f"{y:,.{digits}f}"
            dot = f"<circle cx={across(x):.1f} cy={up(y):.1f} r=2.2 fill='{colour}'>"
            marks += f"{dot}<title>{html.escape(f'{name}, {word}: {value}')}</title></circle>"
        marks += f"<rect x={LEFT + 10 + 130 * place} y=203 width=10 height=10 rx=2 fill='{colour}'/>"
        marks += f"<text x={LEFT + 25 + 130 * place} y=212>{html.escape(name)}</text>"
    ticks = _powers(low_y, high_y) if log else ([0, 0.25, 0.5, 0.75, 1.0] if percent else _linear(0, high_y))
    marks = "".join(_grid(up(tick), f"{tick:.0%}" if percent else compact(tick)) for tick in ticks) + marks
    if names:
        places = [(across(place), names[place]) for place in _spread(len(names), 5)]
    else:
        places = [(across(tick), compact(tick)) for tick in (_powers(low_x, high_x) if log else _linear(low_x, high_x))]
    marks += _below(places) + f"<text class=soft x={RIGHT} y=212 text-anchor=end>{html.escape(below)}</text>"
    return _figure(marks, label, 220)


def heat(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    label: str,
    *,
    signed: bool = False,
    unit: str = "",
) -> str:
    """A heat map [rows][columns]; `signed`: from -1 to 1, the negative in another colour; else from 0 to the largest."""
    if not rows or not columns:
        return _nothing(label)
    left = 16 + 7.2 * min(max(len(name) for name in rows), 24)
    wide = (RIGHT - left) / len(columns)
    high = min(wide, 24.0) if signed else 22.0
    top = 1.0 if signed else max(max(row) for row in values) or 1.0
    parts = [f"<g style='font-size:{min(12.0, high * 0.8):.1f}px'>"]
    for r, row in enumerate(values):
        parts.append(
            f"<text class=soft x={left - 6:.0f} y={r * high + high / 2 + 4:.1f} text-anchor=end>{html.escape(rows[r][:24])}</text>"
        )
        for c, value in enumerate(row):
            colour = "var(--bad)" if value < 0 else "var(--main)"
            told = f"{value:+.2f}" if signed else f"{value:,.0f}{unit}"
            cell = f"<rect x={left + c * wide:.2f} y={r * high:.2f} width={wide - 1:.2f} height={high - 1:.2f} rx=2"
            ground = f"{cell} fill='var(--card)'/>"
            tip = html.escape(f"{rows[r]}, {columns[c]}: {told}")
            parts.append(f"{ground}{cell} fill='{colour}' fill-opacity={abs(value) / top:.3f}><title>{tip}</title></rect>")
            if signed and wide >= 38:
                parts.append(
                    f"<text x={left + (c + 0.5) * wide:.1f} y={r * high + high / 2 + 4:.1f} text-anchor=middle>{value:+.2f}</text>"
                )
    end = len(rows) * high
    for c in _spread(len(columns), 24 if not signed else len(columns)):
        if signed:
            x, y = left + (c + 0.5) * wide, end + 8
            parts.append(
                f"<text class=soft text-anchor=end transform='translate({x + 4:.1f} {y:.1f}) rotate(-50)'>{html.escape(columns[c][:24])}</text>"
            )
        else:
            parts.append(
                f"<text class=soft x={left + (c + 0.5) * wide:.1f} y={end + 14:.1f} text-anchor=middle>{html.escape(columns[c])}</text>"
            )
    tall = end + (14 + 5.4 * min(max(len(name) for name in columns), 24) if signed else 20)
    return _figure("".join([*parts, "</g>"]), label, tall)


def compact(number: float) -> str:
    """A number in few letters: 950, 1,200, 45k, 3.2M."""
    size = abs(number)
    for least, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= least:
            scale = 1e3 if unit == "k" else least
            return f"{number / scale:.3g}{unit}"
    return f"{number:,.0f}" if number == round(number) else f"{number:.3g}"


def _columns(names: Sequence[str], counts: Sequence[int]) -> str:
    top, width = max(counts) or 1, (RIGHT - LEFT) / len(counts)
    marks = ""
    for place, (name, count) in enumerate(zip(names, counts, strict=True)):
        if count:
            high = max((BOTTOM - TOP) * count / top, 1)
            wide = min(width * 0.9, 60)
            marks += _box(LEFT + (place + 0.5) * width - wide / 2, BOTTOM - high, wide, high, f"{name}: {count:,}")
    return marks


def _box(x: float, y: float, width: float, height: float, words: str) -> str:
    shape = f"<rect x={x:.2f} y={y:.2f} width={width:.2f} height={height:.2f} fill='var(--main)'>"
    return f"{shape}<title>{html.escape(words)}</title></rect>"


def _figure(marks: str, label: str, height: float = 196) -> str:
    return (
        f"<figure><svg viewBox='0 0 700 {height:.0f}' width=100% role=img aria-label='{html.escape(label)}'>{marks}</svg></figure>"
    )


def _nothing(label: str) -> str:
    return f"<p class=soft>{html.escape(label)}: nothing to show.</p>"


def _side(top: float) -> str:
    up = _scale(0, top or 1, BOTTOM, TOP, False)
    return "".join(_grid(up(tick), compact(tick)) for tick in _linear(0, top))


def _grid(y: float, words: str) -> str:
    line = f"<path d='M{LEFT} {y:.1f}H{RIGHT}' stroke='var(--line)' stroke-width=.7 />"
    return f"{line}<text class=soft x={LEFT - 6} y={y + 4:.1f} text-anchor=end>{words}</text>"


def _below(names: Sequence[tuple[float, str]]) -> str:
    parts = []
    for x, name in names:
        anchor = (
            "start"
            if x < LEFT + 25 and len(name) > 6
            else "end"
            if x > RIGHT - 12 or (x > RIGHT - 25 and len(name) > 4)
            else "middle"
        )
        parts.append(f"<text class=soft x={x:.1f} y={BOTTOM + 16} text-anchor={anchor}>{html.escape(name)}</text>")
    return "".join(parts)


def _spread(n: int, most: int) -> list[int]:
    """At most `most` places of 0 … n - 1, the first and the last among them."""
    if n <= most:
        return list(range(n))
    return sorted({round(step * (n - 1) / (most - 1)) for step in range(most)})


def _scale(low: float, high: float, begin: float, end: float, log: bool) -> Callable[[float], float]:
    if log:
        low, high = math.log10(low), math.log10(high)
    span = high - low or 1.0
    return lambda value: begin + (end - begin) * ((math.log10(value) if log else value) - low) / span


def _linear(low: float, high: float) -> list[float]:
    """About four round numbers from `low` to `high`."""
    rough = (high - low) / 4 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]
