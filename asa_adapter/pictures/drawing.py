"""What all figures have in common: their look, labels, bars and matrices, and how they become PNG files."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asa_adapter.report import Interval
from asa_adapter.summary.markdown import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Colours of Okabe and Ito, which colour-blind people can tell apart.
BLUE, ORANGE, SKY, VERMILION, GREY = "#0072B2", "#E69F00", "#56B4E9", "#D55E00", "#7F7F7F"
_STYLE = {
    "text.parse_math": False,  # a domain may be called "$x$"
    "font.size": 9.0,
    "axes.titlesize": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
}
_WIDTH, _DPI = 8.0, 100
MOST_ROWS, _MOST_CELLS, _MOST_NAME = 24, 10, 25


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Draws with our settings and restores the user's. A character that the font lacks is a box, without a warning."""
    from matplotlib import style

    with warnings.catch_warnings(), style.context(["default", _STYLE]):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support .* natively")
        yield


def png(figure: "Figure") -> bytes:
    """A PNG with a palette, a third as large as one without. It does not tell when and by what it was made."""
    from PIL import Image  # matplotlib's own dependency

    drawn, file = io.BytesIO(), io.BytesIO()
    with own_style():
        figure.savefig(drawn, format="png", dpi=_DPI)
    Image.open(drawn).convert("RGB").quantize(256).save(file, format="png", optimize=True)
    return file.getvalue()


def save(figure: "Figure", path: str | Path) -> None:
    """Writes a figure as a PNG file, in a folder that is there.

    Raises:
        OSError: it cannot be written.
    """
    Path(path).write_bytes(png(figure))


def new_figure(height: float) -> "Figure":
    """An empty figure of our width, `height` inches high."""
    # Not by pyplot, which would keep the figure and choose a backend.
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH, height), layout="constrained")


def short(name: str) -> str:
    """A stranger's name as a label: one line, the middle of a long one left out."""
    line = one_line(name).strip()
    return line if len(line) <= _MOST_NAME else f"{line[: _MOST_NAME - 9]}…{line[-8:]}"


def line_columns(values: Mapping[int, float]) -> tuple[list[int], list[float]]:
    """The x and the y values of a line."""
    return list(values), list(values.values())


def draw_matrix(
    ax: "Axes", numbers: Sequence[Sequence[float]], x: Sequence[str], y: Sequence[str], colours: str, form: str,
    low: float | None = None, high: float | None = None,
) -> None:  # fmt: skip
    """Numbers as coloured cells, written into them where there is room."""
    rows = np.asarray(numbers)
    image = ax.imshow(rows, cmap=colours, vmin=low, vmax=high, aspect="auto")
    shades = image.to_rgba(rows)
    ax.grid(visible=False)
    ax.set_xticks(range(len(x)), x)
    ax.set_yticks(range(len(y)), y)
    if max(len(x), len(y)) <= _MOST_CELLS:
        for i, row in enumerate(rows):
            for j, number in enumerate(row):
                red, green, blue, _ = shades[i, j]
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                ax.text(j, i, form.format(number), ha="center", va="center", color="white" if dark else "black")


def draw_bars(
    ax: "Axes", values: Sequence[float], intervals: Sequence[Interval | None], shift: float, colour: str, label: str
) -> None:
    """Horizontal bars of shares of 1, the first on top, with their intervals as lines."""
    places = [row + shift for row in range(len(values))]
    ax.barh(places, values, height=0.36, color=colour, label=label)
    for place, found in zip(places, intervals, strict=True):
        if found is not None:
            low, high = (min(max(end, 0.0), 1.0) for end in found)
            ax.plot([low, high], [place, place], color="black", lw=1.2, marker="|", ms=5)


def name_rows(ax: "Axes", labels: Sequence[str], title: str, unit: str) -> None:
    """Names the rows of a panel of bars, the first on top."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set(title=title, xlabel=unit, xlim=(0, 1.02), ylim=(len(labels) - 0.4, -0.6))
    ax.grid(visible=False, axis="y")
