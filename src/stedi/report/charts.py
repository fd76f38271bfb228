"""Charts as inline SVG: bars, days, lines, the graph of the tables, signals. No script, no colours of their own.

Each has a `<title>` and a `<desc>` for screen readers, and the page has a table with the same numbers. Colours are
classes of the page, so that one picture works in light, dark and print. Numbers are written with few digits, so that
the same content gives the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from markupsafe import Markup, escape

from stedi._frozen import dataclass
from stedi.report.disclosure import Figure

_WIDTH = 480
"""Units of a picture's width; the page scales it."""
_BAR, _GAP = 20, 10


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a graph.

    Attributes:
        name: Its name, by which others refer to it.
        lines: Its further lines of text.
        group: Its column.
        reads: Names of the nodes that it is built from.
    """

    name: str
    lines: tuple[str, ...]
    group: str
    reads: tuple[str, ...]


def bars(name: str, title: str, about: str, rows: Sequence[tuple[str, Figure]]) -> Markup:
    """Returns horizontal bars, each with its label above and its figure behind.

    Args:
        name: Tells it from the page's other pictures.
        title: What it is of, in a few words.
        about: What it says, in a sentence.
        rows: Labels and figures; words in the place of a figure have a hatched bar of no certain length.
    """
    most = max((figure for _, figure in rows if isinstance(figure, int)), default=0) or 1
    pitch = _BAR + _GAP + 18
    parts = []
    for place, (label, figure) in enumerate(rows):
        y = place * pitch
        known = isinstance(figure, int)
        length = (
            _short(max(2.0, 340 * figure / most)) if isinstance(figure, int) and figure else "2" if known else "340"
        )
        shape = "bar" if known else "bar unknown"
        parts.append(
            f'<text x="0" y="{y + 14}">{escape(label)}</text>'
            f'<rect class="{shape}" x="0" y="{y + 20}" width="{length}" height="{_BAR}" rx="3"/>'
            f'<text class="strong" x="{_short(float(length) + 8)}" y="{y + 35}">{_figure(figure)}</text>'
        )
    return _svg(name, title, about, _WIDTH, max(1, len(rows)) * pitch, parts)


def columns(name: str, title: str, about: str, rows: Sequence[tuple[str, Sequence[int]]]) -> Markup:
    """Returns vertical bars of several series on top of one another, as readings by day.

    Args:
        name: Tells it from the page's other pictures.
        title: What it is of.
        about: What it says.
        rows: Labels, and the count of each series.
    """
    height, left = 140, 4
    most = max((sum(counts) for _, counts in rows), default=0) or 1
    width = min(40.0, (_WIDTH - 2 * left) / max(1, len(rows)))
    parts = [f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{height}" y2="{height}"/>']
    for place, (label, counts) in enumerate(rows):
        y = float(height)
        for series, count in enumerate(counts):
            size = height * 0.92 * count / most
            y -= size
            if count:
                said = f"<title>{escape(label)}: {count:,}</title>"
                parts.append(
                    f'<rect class="bar s{series}" x="{_short(left + place * width)}" y="{_short(y)}" '
                    f'width="{_short(width * 0.86)}" height="{_short(size)}">{said}</rect>'
                )
    if rows:
        parts.append(f'<text x="0" y="{height + 18}">{escape(rows[0][0])}</text>')
        if len(rows) > 1:
            parts.append(f'<text class="end" x="{_WIDTH}" y="{height + 18}">{escape(rows[-1][0])}</text>')
    return _svg(name, title, about, _WIDTH, height + 26, parts)


def lines(
    name: str,
    title: str,
    about: str,
    labels: Sequence[str],
    at: Sequence[float],
    series: Sequence[tuple[str, Sequence[int]]],
) -> Markup:
    """Returns lines over time, from 0 up, each named at its end.

    Args:
        name: Tells it from the page's other pictures.
        title: What it is of.
        about: What it says.
        labels: The points in time.
        at: Their positions, on any scale.
        series: Names, and a count for each point.
    """
    height, right = 150, 110
    most = max((max(counts, default=0) for _, counts in series), default=0) or 1
    wide = (_WIDTH - right) / ((at[-1] - at[0] or 1) if at else 1)
    parts = [f'<line class="axis" x1="0" x2="{_WIDTH - right}" y1="{height}" y2="{height}"/>']
    for number, (label, counts) in enumerate(series):
        points = [
            ((when - at[0]) * wide, height - height * 0.9 * count / most)
            for when, count in zip(at, counts, strict=True)
        ]
        drawn = " ".join(f"{_short(x)},{_short(y)}" for x, y in points)
        parts.append(f'<polyline class="line s{number}" points="{drawn}"/>')
        if points:
            x, y = points[-1]
            parts.append(f'<circle class="dot s{number}" cx="{_short(x)}" cy="{_short(y)}" r="4"/>')
            parts.append(f'<text x="{_short(x + 9)}" y="{_short(y + 4)}">{escape(label)} {counts[-1]:,}</text>')
    if labels:
        parts.append(f'<text x="0" y="{height + 18}">{escape(labels[0])}</text>')
        if len(labels) > 1:
            parts.append(f'<text class="end" x="{_WIDTH - right}" y="{height + 18}">{escape(labels[-1])}</text>')
    return _svg(name, title, about, _WIDTH, height + 26, parts)


def graph(name: str, title: str, about: str, groups: Sequence[str], nodes: Sequence[Node]) -> Markup:
    """Returns a graph with nodes in columns, with an arrow from each node to those that are built from it.

    Args:
        name: Tells it from the page's other pictures.
        title: What it is of.
        about: What it says.
        groups: The columns, from left to right.
        nodes: The nodes.
    """
    wide, tall, across, down, top = 315, 76, 360, 100, 26
    most = max((sum(node.group == group for node in nodes) for group in groups), default=1)
    at: dict[str, tuple[float, float]] = {}
    for column, group in enumerate(groups):
        own = [node for node in nodes if node.group == group]
        spread = down * most / max(1, len(own))
        for place, node in enumerate(own):
            at[node.name] = (column * across, top + place * spread + (spread - down) / 2)
    parts = [
        f'<marker id="{name}-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="tip" d="M0 0 8 4 0 8Z"/></marker>'
    ]
    parts += [
        f'<text class="strong" x="{column * across}" y="14">{escape(group)}</text>'
        for column, group in enumerate(groups)
    ]
    for node in nodes:
        for read in node.reads:
            if read in at:
                parts.append(_arrow(at[read], at[node.name], wide, tall, name))
    for node in nodes:
        x, y = at[node.name]
        said = [f'<text class="strong" x="{_short(x + 10)}" y="{_short(y + 20)}">{escape(node.name)}</text>']
        said += [
            f'<text x="{_short(x + 10)}" y="{_short(y + 38 + 15 * place)}">{escape(line)}</text>'
            for place, line in enumerate(node.lines)
        ]
        box = f'<rect class="node" x="{_short(x)}" y="{_short(y)}" width="{wide}" height="{tall}" rx="6"/>'
        parts.append(box + "".join(said))
    return _svg(name, title, about, across * (len(groups) - 1) + wide, top + down * most, parts)


def _arrow(start: tuple[float, float], end: tuple[float, float], wide: int, tall: int, name: str) -> str:
    """Returns an arrow between two nodes, by the sides that face each other."""
    (x1, y1), (x2, y2) = start, end
    if x1 == x2:
        a, b = (x1 + wide / 2, y1 + tall), (x2 + wide / 2, y2)
        bend = ((a[0], a[1] + 10), (b[0], b[1] - 10))
    elif x1 < x2:
        a, b = (x1 + wide, y1 + tall / 2), (x2, y2 + tall / 2)
        bend = ((a[0] + 40, a[1]), (b[0] - 40, b[1]))
    else:
        a, b = (x1, y1 + tall / 2 + 16), (x2 + wide, y2 + tall / 2 + 16)
        bend = ((a[0] - 40, a[1]), (b[0] + 40, b[1]))
    points = " ".join(f"{_short(x)},{_short(y)}" for x, y in (*bend, b))
    return f'<path class="edge" d="M{_short(a[0])},{_short(a[1])} C{points}" marker-end="url(#{name}-tip)"/>'


def signal(
    name: str,
    title: str,
    about: str,
    motion: Sequence[tuple[float, float]],
    distances: Sequence[tuple[float, float]],
) -> Markup:
    """Returns a person's motion as a line above, and the step trainer's distances as marks below, over one time axis.

    Args:
        name: Tells it from the page's other pictures.
        title: The person.
        about: What it says.
        motion: Seconds and values.
        distances: Seconds, and distances that the step trainer read.
    """
    end = max((at for at, _ in (*motion, *distances)), default=0.0) or 1.0
    parts = []
    for place, (label, values) in enumerate((("motion", motion), ("distance", distances))):
        top = place * 84
        parts.append(f'<text x="0" y="{top + 14}">{label}</text>')
        parts.append(f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{top + 80}" y2="{top + 80}"/>')
        low, high = _bounds(value for _, value in values)
        points = [(_WIDTH * at / end, top + 78 - 56 * (value - low) / (high - low)) for at, value in values]
        intervals = sorted(later[0] - earlier[0] for earlier, later in pairwise(points))
        # a gap in the readings is drawn as a gap, not as a line of readings that nobody took
        usual = intervals[len(intervals) // 2] if intervals else 0.0
        parts += [
            f'<polyline class="line s{place}" points="{" ".join(f"{_short(x)},{_short(y)}" for x, y in stretch)}"/>'
            for stretch in _unbroken(points, 4 * usual)
        ]
        if label == "distance":
            parts += [f'<circle class="dot s1" cx="{_short(x)}" cy="{_short(y)}" r="2.5"/>' for x, y in points]
    parts.append('<text x="0" y="184">0 s</text>')
    parts.append(f'<text class="end" x="{_WIDTH}" y="184">{end:.1f} s</text>')
    return _svg(name, title, about, _WIDTH, 190, parts)


def _unbroken(points: Sequence[tuple[float, float]], most: float) -> Iterator[list[tuple[float, float]]]:
    """Yields the parts of a line whose points are no further apart than that."""
    stretch: list[tuple[float, float]] = []
    for point in points:
        if stretch and point[0] - stretch[-1][0] > most:
            yield stretch
            stretch = []
        stretch.append(point)
    if stretch:
        yield stretch


def _bounds(values: Iterable[float]) -> tuple[float, float]:
    found = list(values)
    low, high = min(found, default=0.0), max(found, default=1.0)
    return (low, high) if high > low else (low - 1, high + 1)


def _figure(figure: Figure) -> str:
    return f"{figure:,}" if isinstance(figure, int) else str(escape(figure))


def _short(number: float) -> str:
    """Returns a coordinate with one digit at most."""
    return f"{number:.1f}".removesuffix(".0")


def _svg(name: str, title: str, about: str, width: int, height: float, parts: Iterable[str]) -> Markup:
    return Markup(
        f'<svg id="{name}" role="img" aria-labelledby="{name}-t {name}-d" viewBox="-4 0 {width + 8} {_short(height)}">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(about)}</desc>{"".join(parts)}</svg>'
    )
