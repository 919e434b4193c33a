"""Self-contained HTML pages with inline SVG plots: no script, no network, light and dark, printable."""

from __future__ import annotations

import html
from collections.abc import Sequence

STYLE = """
:root{--ink:#1c2430;--soft:#5b6775;--line:#dfe4ea;--paper:#fff;--card:#f6f8fa;--main:#2f6fde;--mute:#b5c0cd;--good:#1a8754;--second:#d9772b;--warn:#e0a800;--bad:#c8374a}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa6b4;--line:#313a46;--paper:#12161c;--card:#1a2028;--main:#6ba1ff;--mute:#4c5866;--good:#4cc38a;--second:#f0a05a;--warn:#d6a72c;--bad:#f0707f}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:2.5rem 1.25rem}h1{font-size:1.7rem;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
p{margin:.4rem 0}.soft{color:var(--soft)}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.38rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}
th{font-weight:600;color:var(--soft)}tr.ours td{font-weight:600;color:var(--main)}.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.8rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.8rem 1rem}.card b{display:block;font-size:1.5rem}
td,li,svg text{unicode-bidi:plaintext}ul{margin:.4rem 0;padding-left:1.2rem}li{margin:.25rem 0}.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(22rem,1fr));gap:0 1.6rem}.pair>*{min-width:0}.pair svg text{font-size:17px}
figure{margin:0;overflow-x:auto}svg{font:12px system-ui,sans-serif}svg text{fill:var(--ink)}svg .soft{fill:var(--soft)}.wide{overflow-x:auto}
"""


def page(title: str, subtitle: str, body: str) -> str:
    """A whole page."""
    head = f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{html.escape(title)}</title>"
    return f"{head}<style>{STYLE}</style><main><h1>{html.escape(title)}</h1><p class=soft>{html.escape(subtitle)}</p>{body}</main></html>"


def text(words: str) -> str:
    """Words as they may stand in a page."""
    return html.escape(words)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], ours: str = "") -> str:
    """A table; the row whose first cell is `ours` is emphasised."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = [
        f"<tr{' class=ours' if row and row[0] == ours else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    ]
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def cards(pairs: Sequence[tuple[str, str]]) -> str:
    """Large figures with a word below each."""
    return (
        "<div class=cards>" + "".join(f"<div class=card><b>{html.escape(v)}</b>{html.escape(k)}</div>" for k, v in pairs) + "</div>"
    )


def bars(rows: Sequence[tuple[str, float, float, float]], ours: str = "", digits: int = 4) -> str:
    """Horizontal bars (name, value, low, high) with their 95 % intervals as whiskers."""
    top = max([high for _, _, _, high in rows] + [1e-12])
    height = 30 * len(rows) + 8
    parts = []
    for place, (name, value, low, high) in enumerate(rows):
        y = 30 * place + 6
        colour = "var(--main)" if name == ours else "var(--mute)"
        x = [170 + 430 * number / top for number in (value, low, high)]
        parts.append(
            f"<text x=160 y={y + 15} text-anchor=end>{html.escape(name)}</text><rect x=170 y={y} width={max(x[0] - 170, 1):.1f} height=20 rx=3 fill='{colour}'/>"
            f"<path d='M{x[1]:.1f} {y + 10}H{x[2]:.1f}M{x[1]:.1f} {y + 6}v8M{x[2]:.1f} {y + 6}v8' stroke='var(--ink)' fill=none />"
            f"<text x=640 y={y + 15}>{value:.{digits}f}</text>"
        )
    return f"<figure><svg viewBox='0 0 700 {height}' width=100% role=img aria-label='bar chart'>{''.join(parts)}</svg></figure>"


def columns(points: Sequence[tuple[str, float]], label: str) -> str:
    """Vertical columns over at most 60 named places; the first and the last name are written below."""
    if not points:
        return f"<p class=soft>{html.escape(label)}: nothing to show.</p>"
    top = max(value for _, value in points) or 1.0
    width = 640 / len(points)
    boxes = "".join(
        f"<rect x={30 + place * width:.1f} y={130 - 120 * value / top:.1f} width={max(width - 1.5, 0.8):.1f} height={120 * value / top:.1f} fill='var(--main)'>"
        f"<title>{html.escape(name)}: {value:,.0f}</title></rect>"
        for place, (name, value) in enumerate(points)
    )
    first, last = html.escape(points[0][0]), html.escape(points[-1][0])
    ends = f"<text class=soft x=30 y=148>{first}</text><text class=soft x=670 y=148 text-anchor=end>{last}</text>"
    return (
        f"<figure><svg viewBox='0 0 700 155' width=100% role=img aria-label='{html.escape(label)}'>{boxes}{ends}"
        f"<text class=soft x=30 y=10>{top:,.0f}</text></svg></figure>"
    )
