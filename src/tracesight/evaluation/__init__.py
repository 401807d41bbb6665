"""How good the results are: COCO figures, the operating threshold, a table."""

from __future__ import annotations

from tracesight.evaluation.coco import evaluate
from tracesight.evaluation.frequency import frequency_groups, training_pictures
from tracesight.evaluation.table import table
from tracesight.evaluation.thresholds import at_threshold, operating_threshold

__all__ = ["at_threshold", "evaluate", "frequency_groups", "operating_threshold", "table", "training_pictures"]
