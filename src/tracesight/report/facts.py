"""What a report is told: frozen values, gathered by whoever trained or evaluated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracesight.evaluation.coco import UNUSED, class_names
from tracesight.report.gallery import Shot

if TYPE_CHECKING:
    from tracesight.data.dataset import Dataset
    from tracesight.data.image_labels import ImageLabels


@dataclass(frozen=True)
class SplitFacts:
    """One set of pictures: `objects` by class name, crowd regions counted apart; `digest` over pictures and labels."""

    name: str
    pictures: int
    empty: int
    objects: Mapping[str, int]
    crowds: int
    digest: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingFacts:
    """How the model came to be.

    model: catalogue name. parameters: how many numbers it learnt. start: what it started from, e.g. "random weights".
    steps: updates made. batch_size: pictures an update. seconds: training and validation, without the final evaluation.
    hardware: what it ran on, e.g. "CPU, 2 threads, bf16". history: rows of `training.history.read_history`.
    config: the resolved config.
    """

    model: str
    parameters: int
    start: str
    steps: int
    batch_size: int
    seconds: float
    hardware: str
    history: Sequence[Mapping[str, float]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportFacts:
    """Everything on the page; whatever is None or empty is left out.

    name: what was learnt, e.g. the name of the data folder. task: "segment", "detect" or "classify". training: None
    where only an evaluation is reported. splits: in the order to show. metrics: of `evaluation.evaluate` or
    `evaluate_classes`, on the split `evaluated_on`. operating: what the operating threshold gives there. commands:
    (what for, command line) to type next. filled, samples, mistakes: pictures. notes: sentences that the
    reader must not miss. versions: of the software, and anything else that says where the page came from.
    """

    name: str
    task: str
    training: TrainingFacts | None = None
    splits: tuple[SplitFacts, ...] = ()
    metrics: Mapping[str, Any] | None = None
    evaluated_on: str = "val"
    operating: Mapping[str, float | None] | None = None
    commands: tuple[tuple[str, str], ...] = ()
    filled: tuple[Shot, ...] = ()
    samples: tuple[Shot, ...] = ()
    mistakes: tuple[Shot, ...] = ()
    notes: tuple[str, ...] = ()
    versions: Mapping[str, Any] = field(default_factory=dict)


def split_facts(name: str, dataset: Dataset, labels: ImageLabels | None = None) -> SplitFacts:
    """Count one split and take its digest, which reads every picture file once.

    labels: count labels of whole pictures, read so, and not objects.
    """
    names = class_names(dataset)
    objects: Counter[int] = Counter()
    empty = crowds = 0
    for record in dataset:
        if labels is not None:
            empty += not labels.of(record)
            objects.update(labels.of(record))
            continue
        empty += not record.annotations
        crowds += sum(a.ignored for a in record.annotations)
        objects.update(a.category_id for a in record.annotations if not a.ignored)
    shown = {names[i]: objects[i] for i in names if objects[i] or dataset.categories[i] != UNUSED}
    return SplitFacts(name, len(dataset), empty, shown, crowds, dataset.digest, dataset.notes)
