"""From pictures to scenes: which pictures (`find`), what they hold (`scenes`), and what is written (`outputs`)."""

from __future__ import annotations

from tracesight.predict.classes import dataset_scores
from tracesight.predict.find import find_pictures, is_many
from tracesight.predict.outputs import EVALUATION_THRESHOLD, Written, dataset_results, write
from tracesight.predict.scenes import Failure, detections_to_objects, failed, readable, scenes

__all__ = [
    "EVALUATION_THRESHOLD",
    "Failure",
    "Written",
    "dataset_results",
    "dataset_scores",
    "detections_to_objects",
    "failed",
    "find_pictures",
    "is_many",
    "readable",
    "scenes",
    "write",
]
