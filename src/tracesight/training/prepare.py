"""Labelled pictures for a training, read and checked whole before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from tracesight.data.checks.everything import check
from tracesight.data.checks.mask_missing import with_masks
from tracesight.data.dataset import Dataset
from tracesight.data.finding import notes_of, refuse
from tracesight.data.formats import read_splits
from tracesight.data.kinds import check_codes
from tracesight.data.manifest import roots_of_set
from tracesight.data.points import with_points
from tracesight.data.proposals import ProposalSet, read_proposals
from tracesight.errors import UserError
from tracesight.evaluation.frequency import training_pictures
from tracesight.lineage.record import split_record
from tracesight.training.progress import Display, Job
from tracesight.training.ranks import ALONE, Ranks, of_first

Data = str | Path | Mapping[str, str | Path]


@dataclass(frozen=True)
class Splits:
    """What a training learns from and what it is measured on.

    Attributes:
        train: labelled pictures, at least one object among them.
        val: None if there is nothing to measure on.
        notes: what was mended or decided on reading, and warnings; all of them belong in the report.
        proposals: where to look, for a model that finds no proposals of its own.
    """

    train: Dataset
    val: Dataset | None
    notes: tuple[str, ...]
    proposals: ProposalSet | None = None

    @property
    def named(self) -> dict[str, Dataset]:
        """The splits that there are, by name."""
        return {"train": self.train, **({"val": self.val} if self.val is not None else {})}

    @cached_property
    def train_pictures(self) -> dict[int, int]:
        """Category id → pictures of train that have it: evaluation tells rare from frequent by it."""
        return training_pictures(self.train)

    def record(self) -> dict[str, dict[str, Any]]:
        """The rows of the run record: split → digest, counts and roots. Reads every picture file that it must."""
        rows = {}
        for name, dataset in self.named.items():
            objects = sum(len(record.annotations) for record in dataset)
            counts = self.train_pictures if name == "train" else None
            rows[name] = split_record(dataset.digest, len(dataset), objects, counts, roots_of_set(dataset))
        return rows


def read_labelled(
    data: Data,
    seed: int,
    *,
    masks: bool,
    channels: int,
    display: Display,
    ranks: Ranks = ALONE,
    format: str | None = None,
    allow: Sequence[str] = (),
    needs: Literal["objects", "image labels"] = "objects",
    keypoints: bool = False,
) -> Splits:
    """Read and check the data of a training.

    Args:
        data: a folder, a label file, or {"train": …, "val": …}.
        seed: of the split that is made where there is no val.
        masks: every object needs a mask.
        channels: of every picture, as in `open_picture`.
        display: is told every note.
        ranks: all of them read the labels, the first one checks.
        format: how the data is labelled; None: recognised.
        allow: codes of errors that are put right or left out, not refused.
        needs: what is learnt from.
        keypoints: some objects need keypoints, and those of a category all have the same.

    Raises:
        UserError: labels or pictures that cannot be read or do not fit each other, nothing to learn from, an object
            without the mask that it needs, no keypoints or not the same.
    """
    check_codes(allow)
    train, val, notes = read_splits(data, seed, format, allow, needs)
    named = {"train": train, **({"val": val} if val is not None else {})}
    changed, more = of_first(ranks, lambda: checked(named, channels, display, allow, masks=masks))
    named |= changed
    if needs == "objects" and not any(not a.ignored for record in named["train"] for a in record.annotations):
        raise UserError(f"{train.path}: no objects are left to learn from; correct the errors that were allowed")
    if keypoints:
        named = {name: with_points(dataset) for name, dataset in named.items()}
        if not any(v > 0 for record in named["train"] for a in record.annotations for _, _, v in a.keypoints or ()):
            raise UserError(f"{train.path}: no object has a labelled keypoint; train a model without them")
    splits = Splits(named["train"], named.get("val"), tuple(dict.fromkeys([*notes, *more])))
    for note in splits.notes:
        display.say(f"note: {note}")
    return splits


def with_proposals(splits: Splits, model: str, path: str | None, display: Display) -> Splits:
    """The splits with the proposals of a file, where `model` finds none of its own.

    Raises UserError: they are missing or not wanted, cannot be read, or a picture has none.
    """
    needed = model.startswith(("rcnn_", "fast_rcnn_"))
    if needed and path is None:
        raise UserError(
            f"model={model} finds no proposals of its own: say proposals=FILE (`tracesight data propose` makes one)"
        )
    if path is None:
        return splits
    if not needed:
        raise UserError(f"proposals={path}: model={model} finds its own; leave the key out, or train a fast_rcnn model")
    given = read_proposals(path)
    for dataset in splits.named.values():
        given.of(dataset)
    notes = given.notes(splits.named.values())
    for note in notes:
        display.say(f"note: {note}")
    return replace(splits, proposals=given, notes=(*splits.notes, *notes))


def checked(
    sets: Mapping[str, Dataset], channels: int, display: Display, allow: Sequence[str] = (), *, masks: bool = False
) -> tuple[dict[str, Dataset], list[str]]:
    """Look at every picture and label: those of `sets` that are others for it, and notes.

    Args:
        sets: by name.
        channels: of every picture, as in `open_picture`.
        allow: codes of errors that are put right or left out, not refused.
        masks: every object needs a mask.

    Raises UserError: the first error that is not allowed, and how many more there are; a set that nothing is left of.
    """
    with ExitStack() as stack:
        report = check(sets, progress=partial(_advance, display, stack, {}), notes=False, channels=channels)
    refuse(report.findings, allow)
    changed, notes = {}, []
    for name, dataset in report.sets.items():
        # What lacks examples is told by `read_splits` and by evaluation already.
        found = [f for f in report.findings if f.split == name and f.kind.code != "category-absent"]
        notes += notes_of(found, name, mended=("error",))
        kept = with_masks(dataset, allow) if masks else dataset
        notes += kept.notes[len(dataset.notes) :]
        if not len(kept):
            raise UserError(f"{dataset.path}: no picture is left; correct the errors that were allowed")
        if kept is not sets[name]:
            changed[name] = kept
    return changed, notes


def _advance(display: Display, stack: ExitStack, jobs: dict[str, Job], title: str, done: int, total: int) -> None:
    """Show how far the check is; what is known from before comes all at once."""
    if title not in jobs:
        jobs[title] = stack.enter_context(display.job(f"check {title}", total))
    jobs[title].done = done - 1
    jobs[title].advance()
