"""The look that every picture shares: paper, type, colours, axes, and how a picture is stored.

A picture is laid out in pixels from its top left corner, so that text keeps its size and image pixels stay sharp when
the file is looked at at 100 %. Colours, sizes and fonts are all set explicitly, neither reading nor changing the user's
``rcParams``: the same input gives the same bytes whatever style sheet the session has switched on (all that matplotlib
ships but ``classic``, which changes how glyphs are rasterised; that has no setting of its own for one text).

Colours are Okabe and Ito's blue and vermilion ("Color Universal Design", 2008), slightly darkened for text on white:
told apart in every common form of colour blindness and, by line style, in a grey print.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpucnn.vis.files import write_atomically
from gpucnn.vis.labels import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
FONT = "DejaVu Sans"  # comes with matplotlib, so it is there on every machine

PAPER = "#ffffff"
INK = "#1b2733"
MUTED = "#5b6875"
RULE = "#dfe4e9"
BLUE = "#0069a8"
ORANGE = "#c04f00"

WIDTH = 1008  # pixels, of every picture whose content does not ask for another width
MARGIN = 28
HEADER = 92  # pixels from the top edge that the title and the line below it take

_FRAME = 190  # grey level
_SIZE_LIMIT = 300_000  # bytes; a picture above it is stored with a palette, the smaller one where need be
_PALETTES = (256, 128)


@dataclass(frozen=True)
class Type:
    """A kind of text: height in pixels, colour, weight."""

    height: float
    color: str = INK
    bold: bool = False


TITLE = Type(20, bold=True)
STRONG = Type(15, bold=True)
QUIET = Type(15, MUTED)
LABEL = Type(13)
NOTE = Type(13, MUTED)


class MatplotlibMissingError(ImportError):
    """matplotlib, which draws the pictures, is not installed. A run can go on without them."""


def new_figure(width: int, height: int) -> Figure:
    """An empty white figure of ``width`` x ``height`` pixels with an Agg canvas, unknown to pyplot.

    Raises:
        MatplotlibMissingError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise  # matplotlib is there but broken: its own message says more than ours would
        raise MatplotlibMissingError(
            "pictures need matplotlib, which is not installed. Remedy: pip install 'gpucnn[plot]'"
        ) from error
    figure = Figure(
        figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER, edgecolor=PAPER, linewidth=0, frameon=True
    )
    figure.set_layout_engine("none")
    FigureCanvasAgg(figure)
    return figure


def size(figure: Figure) -> tuple[int, int]:
    """(width, height) of the picture in pixels."""
    width, height = figure.get_size_inches()
    return round(width * DPI), round(height * DPI)


def add_panel(figure: Figure, left: float, top: float, width: float, height: float, *, grid: Literal["x", "y"]) -> Axes:
    """Axes on a rectangle (pixels from the top left corner): lines left and below, and a faint grid along one axis."""
    full_width, full_height = size(figure)
    axes = figure.add_axes(
        (left / full_width, 1 - (top + height) / full_height, width / full_width, height / full_height),
        facecolor="none", axisbelow=True, xmargin=0.0, ymargin=0.0,
    )  # fmt: skip
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=MUTED, linewidth=points(1))
    axes.tick_params(
        which="both", bottom=True, left=True, top=False, right=False, direction="out", color=MUTED, length=points(4),
        width=points(1), pad=points(6), labelsize=points(NOTE.height), labelcolor=NOTE.color, labelfontfamily=FONT,
        labelrotation=0, labelbottom=True, labelleft=True, labeltop=False, labelright=False, zorder=2,
    )  # fmt: skip
    axes.tick_params(which="minor", length=0)
    axes.grid(False, which="both")
    axes.grid(
        True, which="major", axis=grid, color=RULE, linewidth=points(1), linestyle="-", alpha=1.0,
        solid_capstyle="butt",
    )  # fmt: skip
    return axes


def write(
    figure: Figure, text: str, x: float, y: float, kind: Type, *, across: str = "left", down: str = "baseline",
    rotation: float = 0,
) -> None:  # fmt: skip
    """Writes ``text`` at pixel (``x``, ``y``) from the top left corner, with ``$`` and ``\\`` as plain characters."""
    full_width, full_height = size(figure)
    figure.text(
        x / full_width, 1 - y / full_height, text, fontsize=points(kind.height), color=kind.color, fontfamily=FONT,
        fontweight="bold" if kind.bold else "normal", fontstyle="normal", fontvariant="normal", fontstretch="normal",
        horizontalalignment=across, verticalalignment=down, rotation=rotation, rotation_mode="default",
        parse_math=False, usetex=False, antialiased=True,
    )  # fmt: skip


def write_header(figure: Figure, title: str, line: str) -> None:
    """The title and, below it, one quieter line, both cut with an ellipsis where the picture is too narrow."""
    width = size(figure)[0] - 2 * MARGIN
    write(figure, fit(figure, title, width, TITLE), MARGIN, 40, TITLE)
    write(figure, fit(figure, line, width, QUIET), MARGIN, 66, QUIET)


def text_width(figure: Figure, text: str, kind: Type) -> float:
    """Width in pixels that ``text`` takes."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(
        family=FONT, size=points(kind.height), weight="bold" if kind.bold else "normal", style="normal",
        variant="normal", stretch="normal",
    )  # fmt: skip
    canvas: Any = figure.canvas
    return float(canvas.get_renderer().get_text_width_height_descent(text, font, False)[0])


def fit(figure: Figure, text: str, width: float, kind: Type) -> str:
    """``text`` on one line, without unprintable characters, cut with an ellipsis where it is wider than ``width``."""
    text = clean(" ".join(text.split()))
    if text_width(figure, text, kind) <= width:
        return text
    fits, too_long = 0, len(text)
    while fits + 1 < too_long:
        middle = (fits + too_long) // 2
        if text_width(figure, text[:middle].rstrip() + "…", kind) <= width:
            fits = middle
        else:
            too_long = middle
    return text[:fits].rstrip() + "…"


def paste(figure: Figure, pixels: NDArray[np.uint8], left: float, top: float) -> None:
    """Puts ``pixels`` (H, W, 3) uint8 into the picture, one to one, the upper left corner at (``left``, ``top``)."""
    below = size(figure)[1] - round(top) - pixels.shape[0]
    figure.figimage(pixels, xo=round(left), yo=below, origin="upper", resize=False)


def framed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``pixels`` (H, W, 3) with a grey line around them, shape (H + 2, W + 2, 3), so that white ends somewhere."""
    frame = np.full((pixels.shape[0] + 2, pixels.shape[1] + 2, 3), _FRAME, dtype=np.uint8)
    frame[1:-1, 1:-1] = pixels
    return frame


def ramp(stops: list[str], shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours of ``shares`` (any shape, 0..1) on the evenly spaced ``stops`` ("#rrggbb"), shape (..., 3)."""
    colors = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops], dtype=np.float64)
    at = np.linspace(0.0, 1.0, len(stops))
    channels = [np.interp(shares, at, colors[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between 10**low and 10**high: as many a decade as stay readable."""
    decades = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    for leading in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{digit}e{decade}") for decade in decades for digit in leading]
        ticks = [tick for tick in ticks if low <= np.log10(tick) <= high]
        if len(ticks) <= 7:
            return ticks
    return ticks[:: len(ticks) // 7 + 1]


def points(pixels: float) -> float:
    """Pixels in matplotlib's unit of lines and type, 1/72 inch."""
    return pixels * 72 / DPI


def save(figure: Figure, target: Path) -> Path:
    """Writes the figure as PNG, without date or version, and returns ``target``."""
    from PIL import Image

    encoded = io.BytesIO()
    canvas: Any = figure.canvas
    canvas.print_png(encoded, metadata={"Software": None}, pil_kwargs={"optimize": True})
    picture = None
    for colors in _PALETTES:
        if encoded.tell() <= _SIZE_LIMIT:
            break
        picture = picture or Image.open(io.BytesIO(encoded.getvalue())).convert("RGB")
        encoded = io.BytesIO()
        picture.quantize(colors, dither=Image.Dither.NONE).save(encoded, "PNG", optimize=True, dpi=(DPI, DPI))
    return write_atomically(target, encoded.getvalue())
