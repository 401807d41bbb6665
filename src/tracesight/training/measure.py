"""Looking at what has been learnt so far: figures on val for history and display, and the best bundle kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tracesight.bundle import Bundle
from tracesight.training.history import History
from tracesight.training.progress import Display
from tracesight.training.ranks import of_first, share
from tracesight.training.run import Run


@dataclass(frozen=True)
class Validation:
    """What a bundle reached on val.

    Attributes:
        metrics: as evaluation gives them, for metrics.json and the bundle.
        thresholds: for the bundle; "operating" and others.
        operating: what the operating threshold gives on val, for metrics.json and the report; {} where there is none.
        figures: by column of the history. deciding: the one that says which bundle is the best.
        loss: the training loss on val; None where it was not asked for.
        results: what the figures are of: COCO results with `image_id` being `Record.id`, or scores and truth.
    """

    metrics: dict[str, Any]
    thresholds: dict[str, Any]
    operating: dict[str, float | None]
    figures: dict[str, float | None]
    deciding: str
    loss: float | None
    results: Any


def measure(
    run: Run,
    bundle: Bundle,
    out: Path,
    history: History | None,
    validate: Callable[[Bundle], Validation | None] | None,
    display: Display,
) -> tuple[Bundle, Validation | None]:
    """The bundle with its figures on val; the best one so far is kept in `out/best`.

    validate: called on all ranks; the first one gets the figures, decides for all, and the others get None. None: there
    is nothing to measure on.
    """
    if validate is None:
        of_first(run.ranks, lambda: bundle.save(out / "best"))
        run.measured = run.step
        return bundle, None
    reached = validate(bundle)
    if reached is not None:
        bundle = replace(bundle, thresholds=reached.thresholds, metrics=reached.metrics)
        _tell(run, reached, history, display)
        with run.stop.whole():
            # Where val has nothing to find there is no figure, and the newest is as good as any.
            _compare(run, bundle, reached.figures[reached.deciding] or 0.0, out, display)
            run.measured = run.step  # in here, or a signal would have it counted twice
    run.best, run.stale = share(run.ranks, (run.best, run.stale))
    run.measured = run.step
    return bundle, reached


def _tell(run: Run, reached: Validation, history: History | None, display: Display) -> None:
    """Write the figures into the history and onto the display."""
    if history is not None:
        history.add(step=run.step, seconds=run.seconds, val_loss=reached.loss, **reached.figures)
    shown = "  ".join(f"{name.removeprefix('val_')} {value or 0:.3f}" for name, value in reached.figures.items())
    loss = f"val loss {reached.loss:.3f}  " if reached.loss else ""
    display.say(f"step {run.step}/{run.total}: {loss}{shown}")


def _compare(run: Run, bundle: Bundle, figure: float, out: Path, display: Display) -> None:
    """Keep the bundle if it is the best so far, else count how long there was none."""
    if run.best is None or figure > run.best or not (out / "best").exists():
        bundle.save(out / "best")
        run.best, run.stale = figure, 0
    elif run.measured < run.step:  # not where the end is measured a second time
        run.stale += 1
        if 0 < run.patience <= run.stale:
            display.say(f"step {run.step}: no better figure for {run.stale} validations: the run ends here")
