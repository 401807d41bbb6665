"""The curves of a training, as a PNG: losses, validation loss, figures and learning rate against the step.

The columns of the history speak for themselves: `step`, `lr`; `loss` and `loss_*` in training; `val_loss` (and
`val_loss_*`, not drawn) on held-out pictures; `val_bbox_*`, `val_segm_*`, `val_image_*` and `train_image_*` are
figures; `features_*` say how features are spread. All others, such as `seconds` and `grad_norm`, are not drawn.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tracesight.training.history import columns_of

History = Sequence[Mapping[str, float]]
Series = tuple[np.ndarray, np.ndarray]  # steps and values, both (n,)


@dataclass(frozen=True)
class Theme:
    """Colours of one drawing; `lines` are after Okabe and Ito, told apart with any colour vision."""

    background: str
    ink: str
    faint: str
    lines: tuple[str, ...]


LIGHT = Theme(
    "#ffffff", "#1c2430", "#d9dee6", ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A800")
)
DARK = Theme(
    "#171c24", "#dfe5ee", "#39424f", ("#56B4E9", "#E69F00", "#1FBF92", "#DD8FBC", "#EB6F1A", "#8C9BFF", "#D6C62A")
)
KINDS = {"bbox": "box", "segm": "mask", "keypoints": "keypoint", "image": ""}  # of figures, and what each is called
SPREAD = {"features_deviation": "deviation of features (0: collapsed)", "features_rank": "effective rank of features"}
VALIDATION = 4  # the position of its colour in `lines`


def draw_curves(history: History, path: str | Path) -> None:
    """Write the curves of `history` as a PNG, dark on white."""
    Path(path).write_bytes(curves_png(history))


def curves_png(history: History, *, dark: bool = False) -> bytes:
    """PNG of the curves, one panel for each kind that has values; panels without any are left out.

    Args:
        history: rows as `training.history.read_history` gives them; a row holds "step" and any of the columns named
            above, values that are not finite are passed over.
        dark: for a dark background.
    """
    # The object interface, not pyplot: no global figures, no display, and safe beside a caller's own pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(history)
    theme = DARK if dark else LIGHT
    columns = 2 if len(panels) > 1 else 1
    rows = max(1, math.ceil(len(panels) / columns))
    figure = Figure(figsize=(5.4 * columns, 3.2 * rows), dpi=130, facecolor=theme.background, layout="constrained")
    for place, (title, draw) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        _dress(axes, title, theme)
        draw(axes, theme)
        _legend(axes, theme)
    if not panels:
        figure.text(0.5, 0.5, "no step was recorded", ha="center", va="center", color=theme.ink)
    FigureCanvasAgg(figure)
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor=theme.background)
    return out.getvalue()


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over `window` values (made odd), over fewer at both ends; (n,) in, (n,) out."""
    half = min(window // 2, len(values) // 2)
    total = np.concatenate([[0.0], np.cumsum(values)])
    centre = np.arange(len(values))
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _panels(history: History) -> list[tuple[str, Callable[[Any, Theme], None]]]:
    filled = {name: (np.array(steps), np.array(values)) for name, (steps, values) in columns_of(history).items()}
    terms = {c: s for c, s in filled.items() if c.startswith("loss_")}
    total = {c: s for c, s in filled.items() if c in ("loss", "val_loss")}
    figures = {c: s for c, s in filled.items() if any(f"_{kind}_" in c for kind in KINDS)}
    panels: list[tuple[str, Callable[[Any, Theme], None]]] = []
    if total:
        panels.append(("loss", lambda axes, theme: _losses(axes, total, theme)))
    if figures:
        heading = "figures" if any(c.startswith("train_") for c in figures) else "figures on held-out pictures"
        panels.append(
            (
                heading,
                lambda axes, theme: _figures(axes, figures, theme),
            )
        )
    if terms:
        panels.append(("parts of the training loss", lambda axes, theme: _losses(axes, terms, theme)))
    for column, title in SPREAD.items():
        if column in filled:
            panels.append((title, lambda axes, theme, line=filled[column]: _spread(axes, line, theme)))
    if "lr" in filled:
        panels.append(("learning rate", lambda axes, theme: _rate(axes, filled["lr"], theme)))
    return panels


def _losses(axes: Any, lines: Mapping[str, Series], theme: Theme) -> None:
    tops = []
    for place, (column, (steps, values)) in enumerate(lines.items()):
        colour, label = theme.lines[place % len(theme.lines)], _label(column)
        if column.startswith("val_"):
            axes.plot(steps, values, "o-", color=theme.lines[VALIDATION], label=label, linewidth=1.6, markersize=4)
            tops.append(values.max())
            continue
        mean = smooth(values, max(1, len(values) // 25))
        if column == "loss":
            axes.plot(steps, values, color=colour, alpha=0.22, linewidth=0.8)
        axes.plot(steps, mean, color=colour, label=label, linewidth=1.8)
        # The first steps tower over all others: they may leave the picture.
        tops.append(max(np.percentile(mean, 99), np.percentile(values, 95)))
    axes.set_ylim(0, 1.08 * max(tops) or 1)


def _figures(axes: Any, lines: Mapping[str, Series], theme: Theme) -> None:
    for place, (column, (steps, values)) in enumerate(lines.items()):
        axes.plot(steps, values, "o-", color=theme.lines[place % len(theme.lines)], label=_label(column), linewidth=1.6,
                  markersize=4)  # fmt: skip
    axes.set_ylim(0, min(1.0, 1.15 * max(values.max() for _, values in lines.values())) or 1)
    # From the beginning, as the other panels: a single validation would otherwise get an axis of its own.
    axes.set_xlim(0, 1.05 * max(steps.max() for steps, _ in lines.values()) or 1)


def _spread(axes: Any, line: Series, theme: Theme) -> None:
    axes.plot(*line, color=theme.lines[2], linewidth=1.8)
    axes.set_ylim(0, 1.08 * line[1].max() or 1)


def _rate(axes: Any, line: Series, theme: Theme) -> None:
    axes.plot(*line, color=theme.lines[0], linewidth=1.8)
    axes.set_ylim(0, 1.08 * line[1].max() or 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")


def _label(column: str) -> str:
    words = column.removeprefix("loss_").replace("/", "_").split("_")
    if column == "loss":
        return "training"
    if column == "val_loss":
        return "validation"
    return " ".join(KINDS.get(word, word) for word in words if word not in ("val", "image"))


def _dress(axes: Any, title: str, theme: Theme) -> None:
    axes.set_facecolor(theme.background)
    axes.set_title(title, loc="left", color=theme.ink, fontsize=11, fontweight="bold")
    axes.set_xlabel("step", color=theme.ink, fontsize=9)
    axes.tick_params(colors=theme.ink, labelsize=9, length=0)
    axes.grid(color=theme.faint, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def _legend(axes: Any, theme: Theme) -> None:
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        legend = axes.legend(fontsize=9, frameon=True, facecolor=theme.background, edgecolor="none", framealpha=0.8,
                             ncols=1 if len(handles) < 4 else 2)  # fmt: skip
        for text in legend.get_texts():
            text.set_color(theme.ink)
