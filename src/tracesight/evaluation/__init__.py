"""How good the results are: COCO's figures and those of classifiers, the operating threshold, a table."""

from __future__ import annotations

from tracesight.evaluation.classify import best_temperature, evaluate_classes
from tracesight.evaluation.coco import evaluate
from tracesight.evaluation.frequency import frequency_groups, training_pictures
from tracesight.evaluation.recall import proposal_recall
from tracesight.evaluation.table import table
from tracesight.evaluation.thresholds import at_threshold, operating_threshold

__all__ = [
    "at_threshold",
    "best_temperature",
    "evaluate",
    "evaluate_classes",
    "frequency_groups",
    "operating_threshold",
    "proposal_recall",
    "table",
    "training_pictures",
]
