"""One picture of the speeds, as SVG: bars on a logarithmic scale, a panel per workload.

Written by hand, so that no plotting library is needed. Colours come from CSS variables with a dark
set, so that it can be read on any page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from tests.bench.catalogue import Kind
from tests.bench.results import Results
from tests.bench.workloads import FIGURES

__all__ = ["plot"]

_PANELS = ("W1", "W2", "W3", "W5 single")
_LABELS, _BARS, _VALUES = 300, 420, 70  # widths of a panel's parts
_ROW, _BAR, _HEAD, _GAP, _MARGIN = 20, 13, 44, 22, 16
_STYLE = """
svg { --ink: #1f2328; --faint: #6e7781; --grid: #d8dee4; --paper: #ffffff;
      --pwf: #0969da; --peer: #8c959f; --limit: #bf8700; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e6edf3; --faint: #9198a1; --grid: #30363d; --paper: #0d1117;
        --pwf: #58a6ff; --peer: #6e7681; --limit: #d29922; } }
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink); }
.head { font-weight: 600; font-size: 13px; } .faint { fill: var(--faint); font-size: 11px; }
.paper { fill: var(--paper); } .grid { stroke: var(--grid); }
.pwf { fill: var(--pwf); } .peer { fill: var(--peer); } .limit { fill: var(--limit); }
"""


def plot(results: Results) -> str:
    """Return the picture."""
    width = _LABELS + _BARS + _VALUES + 2 * _MARGIN
    body: list[str] = []
    top = _MARGIN + 30
    for figure in _PANELS:
        rows = sorted(_rows(results, figure), key=lambda row: -row[2])
        if rows:
            body += _panel(figure, rows, top)
            top += _HEAD + _ROW * len(rows) + _GAP
    size = f'viewBox="0 0 {width} {top}" width="{width}" height="{top}"'
    label = 'role="img" aria-label="Speeds by system and workload"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{top}"/>',
        *_legend(),
        *body,
        "</svg>\n",
    ]
    return "\n".join(parts)


def _rows(results: Results, figure: str) -> Iterator[tuple[str, str, float]]:
    for name, described in results.systems.items():
        if (median := results.median(name, figure)) is not None:
            yield described.title, described.kind, median


def _legend() -> Iterator[str]:
    left, words = (
        _MARGIN,
        {
            Kind.PWF: "pwf",
            Kind.PEER: "peers",
            Kind.LIMIT: "limits, which promise nothing (scales are logarithmic)",
        },
    )
    for kind, word in words.items():
        yield f'<rect class="{kind.value}" x="{left}" y="{_MARGIN}" width="12" height="12" rx="2"/>'
        yield f'<text x="{left + 18}" y="{_MARGIN + 11}">{word}</text>'
        left += 50 + 7 * len(word)


def _panel(figure: str, rows: list[tuple[str, str, float]], top: int) -> Iterator[str]:
    described = FIGURES[figure]
    left = _MARGIN + _LABELS
    low = math.floor(math.log10(min(value for *_, value in rows)))
    high = math.ceil(math.log10(max(value for *_, value in rows)))
    scale = _BARS / max(high - low, 1)
    title = f"{figure}: {described.title}, {described.unit}"
    yield f'<text class="head" x="{_MARGIN}" y="{top + 12}">{escape(title)}</text>'
    bottom = top + _HEAD + _ROW * len(rows) - 4
    for power in range(low, high + 1):
        x = left + (power - low) * scale
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top + 34}" y2="{bottom}"/>'
        yield f'<text class="faint" x="{x:.1f}" y="{top + 29}" text-anchor="middle">{10**power:,}</text>'
    for number, (name, kind, value) in enumerate(rows):
        y = top + _HEAD + number * _ROW - 4
        long = max((math.log10(value) - low) * scale, 2)
        yield f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect class="{kind}" x="{left}" y="{y}" width="{long:.1f}" height="{_BAR}" rx="2"/>'
        yield f'<text x="{left + long + 6:.1f}" y="{y + 11}">{value:,.0f}</text>'
