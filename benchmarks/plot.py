"""Cost against the number of clients, as an SVG that is read as well on a dark page as on a light one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10
from xml.sax.saxutils import escape

PANEL_WIDTH, PANEL_HEIGHT = 330, 330
LEFT, TOP, BOTTOM = 44, 44, 50
LABEL_WIDTH = 160
LABEL_GAP = 16
"""Pixels from one label's line to the next."""

_COLOURS = {  # on a light page, on a dark one
    "heliosd": ("#0550ae", "#79c0ff"),
    "heliosd-write": ("#54aeff", "#388bfd"),
    "c": ("#57606a", "#9aa4af"),
    "c-uring": ("#8c959f", "#6e7681"),
    "picows": ("#116329", "#56d364"),
    "websockets": ("#7d4e00", "#e3b341"),
    "go-prepared": ("#6639ba", "#d2a8ff"),
    "go": ("#a40e26", "#ff7b72"),
    "centrifugo": ("#bf3989", "#ff9bce"),
}


@dataclass(frozen=True, slots=True)
class Series:
    """One server's line; `points` are (clients, cost), ascending, both above 0."""

    key: str
    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic axis: values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float) -> list[float]:
    """1, 2, 3, 5, 7, 10, … from the last one that is not above `low` to the first one that is not below `high`."""
    steps = [
        digit * 10.0**power
        for power in range(floor(log10(low)) - 1, ceil(log10(high)) + 1)
        for digit in (1, 2, 3, 5, 7)
    ]
    first = max(step for step in steps if step <= low)
    last = min(step for step in steps if step >= high)
    return [step for step in steps if first <= step <= last]


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places near the wanted ones, in their order, at least `gap` apart."""
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    # Labels that meet form a block, which lies where its members want to be on average.
    blocks: list[list[int]] = []
    for at in order:
        blocks.append([at])
        while len(blocks) > 1 and _top(blocks[-1], wanted, gap) < _end(blocks[-2], wanted, gap):
            last = blocks.pop()
            blocks[-1] += last
    places = [0.0] * len(wanted)
    for block in blocks:
        for line, at in enumerate(block):
            places[at] = _top(block, wanted, gap) + line * gap
    return places


def _top(block: Sequence[int], wanted: Sequence[float], gap: float) -> float:
    return sum(wanted[at] for at in block) / len(block) - gap * (len(block) - 1) / 2


def _end(block: Sequence[int], wanted: Sequence[float], gap: float) -> float:
    return _top(block, wanted, gap) + gap * len(block)


def plotted(title: str, panels: Sequence[tuple[str, Sequence[Series]]]) -> str:
    """The panels beside each other with one scale of costs; each line has its label at its end."""
    points = [point for _, lines in panels for line in lines for point in line.points]
    costs = ticks(min(cost for _, cost in points), max(cost for _, cost in points))
    clients = sorted({count for count, _ in points})
    wide = LEFT + PANEL_WIDTH + LABEL_WIDTH
    width, height = wide * len(panels), TOP + PANEL_HEIGHT + BOTTOM
    services = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img">',
        f"<title>{escape(title)} against the number of clients</title>",
        _style(),
    ]
    for number, (name, lines) in enumerate(panels):
        x = Scale(clients[0], clients[-1], number * wide + LEFT + 8, number * wide + LEFT + PANEL_WIDTH - 8)
        y = Scale(costs[0], costs[-1], TOP + PANEL_HEIGHT, TOP)
        services += _axes(f"{title}, {name}", x, y, clients, costs)
        services += _lines(lines, x, y)
    return "\n".join([*services, "</svg>\n"])


def _style() -> str:
    def colours(dark: int) -> str:
        return "".join(f".{key}{{--line:{pair[dark]}}}" for key, pair in _COLOURS.items())

    return (
        "<style>"
        "svg{--ink:#1f2328;--grid:#d1d9e0;font:12px system-ui,sans-serif}"
        f"{colours(0)}"
        "@media (prefers-color-scheme:dark){svg{--ink:#e6edf3;--grid:#3d444d}"
        f"{colours(1)}}}"
        "text{fill:var(--ink)}.head{font-size:14px;font-weight:600}"
        ".grid{stroke:var(--grid);stroke-width:1}"
        "polyline{fill:none;stroke:var(--line);stroke-width:1.75;stroke-linejoin:round}"
        "circle{fill:var(--line)}.leader{stroke:var(--line);stroke-width:1;opacity:.6}"
        ".label{fill:var(--line)}"
        ".heliosd polyline{stroke-width:3.5}.heliosd .label{font-weight:700}.c polyline{stroke-dasharray:5 4}"
        "</style>"
    )


def _axes(head: str, x: Scale, y: Scale, clients: Sequence[float], costs: Sequence[float]) -> Iterator[str]:
    left, right = x.start - 8, x.end + 8
    yield f'<text class="head" x="{left:.1f}" y="{TOP - 20}">{escape(head)}</text>'
    for cost in costs:
        yield f'<line class="grid" x1="{left:.1f}" y1="{y(cost):.1f}" x2="{right:.1f}" y2="{y(cost):.1f}"/>'
        yield f'<text x="{left - 6:.1f}" y="{y(cost) + 4:.1f}" text-anchor="end">{cost:g}</text>'
    for count in clients:
        yield f'<line class="grid" x1="{x(count):.1f}" y1="{y.end}" x2="{x(count):.1f}" y2="{y.start}"/>'
    # What would touch its neighbour, close as they may be on a logarithmic axis, goes one line lower.
    low = {later for earlier, later in pairwise(clients) if x(later) - x(earlier) < 44}
    for count in clients:
        line = y.start + (30 if count in low else 16)
        yield f'<text x="{x(count):.1f}" y="{line:.1f}" text-anchor="middle">{count:,.0f}</text>'
    middle = (left + right) / 2
    yield f'<text x="{middle:.1f}" y="{y.start + 42}" text-anchor="middle">clients</text>'


def _lines(lines: Sequence[Series], x: Scale, y: Scale) -> Iterator[str]:
    places = spread([y(line.points[-1][1]) for line in lines], LABEL_GAP)
    for line, place in zip(lines, places, strict=True):
        at = [(x(count), y(cost)) for count, cost in line.points]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in at)
        yield f'<g class="{escape(line.key)}"><polyline points="{path}"/>'
        for across, down in at:
            yield f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3"/>'
        across, down = at[-1]
        label = x.end + 26
        yield (
            f'<line class="leader" x1="{across + 4:.1f}" y1="{down:.1f}" x2="{label - 4:.1f}" y2="{place:.1f}"/>'
        )
        yield f'<text class="label" x="{label:.1f}" y="{place + 4:.1f}">{escape(line.label)}</text></g>'
