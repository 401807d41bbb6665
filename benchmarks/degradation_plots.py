"""The plots of `degradation.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tracesight.report.curves import LIGHT

COLOURS = {20: LIGHT.lines[1], 56: LIGHT.lines[0]}


def draw_errors(nets: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], path: Path) -> None:
    """Write the curves of figure 6 as a PNG: plain nets left, residual ones right, training dashed, test solid.

    nets: "plain20" → {"train_image_top1": [(step, error in percent), …], "val_image_top1": …}.
    """
    families = {
        family: title for family, title in (("plain", "plain"), ("resnet", "ResNet"))
        if any(net.startswith(family) for net in nets)
    }  # fmt: skip
    figure, panels = _panels(len(families), sharey=True)
    for axes, (family, title) in zip(panels, families.items()):
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
        for net, lines in nets.items():
            if not net.startswith(family):
                continue
            depth = int(net.removeprefix(family))
            for what, style, said in (("train_image_top1", "--", "training"), ("val_image_top1", "-", "test")):
                steps, errors = zip(*lines[what]) if lines[what] else ((), ())
                axes.plot(steps, errors, style, color=COLOURS[depth], label=f"{title}-{depth}, {said}", linewidth=1.7)
        axes.set_xlabel("step", fontsize=9)
        axes.legend(fontsize=9, frameon=False)
    panels[0].set_ylabel("error in %", fontsize=9)
    panels[0].set_ylim(bottom=0)
    _save(figure, path)


def draw_gradients(nets: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Write the norms as a PNG, a panel for each moment, plain beside residual.

    nets: "plain110" → {"at initialisation": norms from the first convolution to the last, …}.
    """
    moments = list(dict.fromkeys(moment for found in nets.values() for moment in found))
    figure, panels = _panels(len(moments), sharey=True)
    for axes, moment in zip(panels, moments):
        axes.set_title(moment, loc="left", fontsize=11, fontweight="bold")
        for net, colour in zip(nets, (LIGHT.lines[4], LIGHT.lines[0])):
            if moment in nets[net]:
                values = nets[net][moment]
                axes.semilogy(range(1, len(values) + 1), values, color=colour, label=_name(net), linewidth=1.5)
        axes.set_xlabel("convolution, from the picture to the classifier", fontsize=9)
        axes.legend(fontsize=9, frameon=False)
    panels[0].set_ylabel("norm of the loss gradient", fontsize=9)
    _save(figure, path)


def _name(net: str) -> str:
    return net.replace("plain", "plain-").replace("resnet", "ResNet-")


def _panels(count: int, **args):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * count, 3.8), dpi=120, layout="constrained")
    panels = figure.subplots(1, count, squeeze=False, **args)[0]
    for axes in panels:
        axes.grid(color=LIGHT.faint, linewidth=0.7)
        axes.tick_params(labelsize=9, length=0)
        for side in axes.spines.values():
            side.set_visible(False)
    return figure, panels


def _save(figure, path: Path) -> None:
    figure.savefig(path, format="png")
    print(f"plot: {path}")
