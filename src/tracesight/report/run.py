"""What a finished training leaves for people: curves.png, samples/, report.html."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracesight.bundle import Bundle
from tracesight.data.dataset import Dataset
from tracesight.data.image_labels import ImageLabels, image_labels
from tracesight.lineage.record import versions
from tracesight.report.classes import class_shots
from tracesight.report.curves import draw_curves
from tracesight.report.facts import ReportFacts, TrainingFacts, split_facts
from tracesight.report.gallery import Shot, close_looks, samples
from tracesight.report.html import write_report
from tracesight.report.mistakes import worst
from tracesight.report.neighbours import neighbour_shots
from tracesight.training.history import read_history
from tracesight.training.measure import Validation

MISTAKES = 12  # close looks in the report


def write_run(
    out: Path,
    *,
    name: str,
    bundle: Bundle,
    splits: Mapping[str, Dataset],
    validation: Validation | None,
    start: str,
    steps: int,
    seconds: float,
    hardware: str,
    config: Mapping[str, Any],
    notes: Sequence[str] = (),
    filled: Sequence[Shot] = (),
) -> None:
    """Write the pages of a run into its folder, from its history.csv and what `bundle` reached.

    Args:
        name: what was learnt.
        splits: the data by name; "val", where there is one, is what `validation` was made on.
        validation: None where there was nothing to measure on.
        start: what the weights began as, as in `TrainingFacts`, and so `steps`, `seconds` and `hardware`.
        config: the resolved configuration; `samples` of it pictures are drawn.
        notes: sentences that the reader must not miss.
        filled: pictures of what a masked autoencoder fills in.
    """
    history = read_history(out / "history.csv")
    draw_curves(history, out / "curves.png")
    drawn, mistakes = _galleries(bundle, splits, validation, config["samples"])
    write_samples(out / "samples", drawn)
    labels = image_labels(splits["train"], bundle.multi_label)[0] if bundle.task == "classify" else None
    if bundle.task == "features":
        labels = ImageLabels(objects=False, several=True)
    training = TrainingFacts(
        model=bundle.spec["name"],
        parameters=sum(parameter.numel() for parameter in bundle.model.parameters()),
        start=start,
        steps=steps,
        batch_size=config["batch_size"],
        seconds=seconds,
        hardware=hardware,
        history=history,
        config=config,
    )
    facts = ReportFacts(
        name=name,
        task=bundle.task,
        training=training,
        splits=tuple(split_facts(split, dataset, labels) for split, dataset in splits.items()),
        metrics=None if validation is None else validation.metrics,
        evaluated_on="val" if "val" in splits or bundle.task != "features" else "a fifth of train",
        operating=None if validation is None else validation.operating,
        commands=commands(out, bundle.task),
        filled=tuple(filled),
        samples=tuple(drawn),
        mistakes=tuple(mistakes),
        notes=tuple(notes),
        versions=versions(),
    )
    write_report(out / "report.html", facts)


def write_samples(folder: Path, shots: Sequence[Shot]) -> None:
    """Write the shots as 01.png, 02.png, …; earlier ones are deleted."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("[0-9][0-9]*.png"):
        old.unlink()
    for number, shot in enumerate(shots, start=1):
        shot.image.save(folder / f"{number:02d}.png")


def commands(out: Path, task: str) -> tuple[tuple[str, str], ...]:
    """What to type next: (what for, command line)."""
    if task == "features":
        return (
            ("Judge the features on labelled pictures.", f"tracesight probe {out / 'best'} DATA --out probes"),
            ("Train a classifier on your own labels, beginning from this encoder.",
             f"tracesight train --task classify DATA --out RUN --init {out / 'best'}"),
            ("Train a detector.", f"tracesight train --task detect DATA --out RUN --init {out / 'best'}"),
        )  # fmt: skip
    return (
        ("Predict on your own pictures: scenes, overlays and tables go to predictions/.",
         f"tracesight predict {out / 'best'} PICTURES --out predictions"),
        ("Measure the model on other labelled pictures.", f"tracesight evaluate {out / 'best'} DATA"),
        ("Train on your own labels, beginning from this model.",
         f"tracesight train --task {task} DATA --out RUN --init {out / 'best'}"),
    )  # fmt: skip


def _galleries(
    bundle: Bundle, splits: Mapping[str, Dataset], validation: Validation | None, count: int
) -> tuple[list[Shot], list[Shot]]:
    if validation is None or ("val" not in splits and bundle.task != "features"):
        return [], []
    if bundle.task == "features":
        return neighbour_shots(validation.results, count), []
    val = splits["val"]
    if bundle.task == "classify":
        scores, truth = validation.results
        return class_shots(bundle, val, scores, truth, count, MISTAKES)
    results: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in validation.results:
        results[result["image_id"]].append(result)
    drawn = samples(val, results, bundle.threshold, count, bundle.in_channels) if count else []
    mistakes = worst(results, val, bundle.threshold, MISTAKES)
    return drawn, close_looks(mistakes, val, results, bundle.threshold, bundle.in_channels)
