"""Where to write the names of points on a plane, so that they lie neither on each other nor on another point."""

from __future__ import annotations

WIDTH, HEIGHT = 290.0, 230.0
"""Of the drawing on a phone, in pixels: what does not collide there does not on a wider page."""
LETTER, LINE, MARK = 6.6, 14.0, 9.0
"""Width of a letter, height of a name, half of a mark with its gap, in pixels."""
SIDES = {
    "top right": (MARK, -LINE),
    "bottom right": (MARK, 0.0),
    "top left": (-MARK, -LINE),
    "bottom left": (-MARK, 0.0),
    "middle right": (MARK, -LINE / 2),
    "middle left": (-MARK, -LINE / 2),
    "top center": (0.0, -MARK - LINE),
    "bottom center": (0.0, MARK),
}
"""Corners first: a name beside or above its point lies on the bars of its intervals."""
Box = tuple[float, float, float, float]


def place_labels(points: dict[str, tuple[float, float]], x_range: list[float], y_range: list[float]) -> dict[str, str]:
    """Name → Plotly's `textposition`: for each point in turn, the side that overlaps least with what is there already."""
    centres = {
        name: (
            WIDTH * (x - x_range[0]) / (x_range[1] - x_range[0]),
            HEIGHT * (y_range[1] - y) / (y_range[1] - y_range[0]),
        )
        for name, (x, y) in points.items()
    }
    taken: list[Box] = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in centres.values()]
    sides = {}
    for name, (x, y) in centres.items():
        boxes = {side: _box(name, x, y, side) for side in SIDES}
        sides[name] = min(boxes, key=lambda side: _cost(boxes[side], taken))
        taken.append(boxes[sides[name]])
    return sides


def _box(name: str, x: float, y: float, side: str) -> Box:
    dx, dy = SIDES[side]
    width = LETTER * len(name)
    left = x + dx - (width if "left" in side else width / 2 if "center" in side else 0)
    return (left, y + dy, left + width, y + dy + LINE)


def _cost(box: Box, taken: list[Box]) -> float:
    """Area shared with others; what sticks out of the drawing counts most."""
    left, top, right, bottom = box
    shared = sum(
        max(0.0, min(right, r) - max(left, x)) * max(0.0, min(bottom, b) - max(top, y)) for x, y, r, b in taken
    )
    outside = max(0.0, -left) + max(0.0, right - WIDTH) + max(0.0, -top) + max(0.0, bottom - HEIGHT)
    return shared + 100 * outside
