"""The report of a training or an evaluation: curves, galleries, worst mistakes, one HTML page."""

from __future__ import annotations

from tracesight.report.curves import curves_png, draw_curves
from tracesight.report.facts import ReportFacts, SplitFacts, TrainingFacts, split_facts
from tracesight.report.gallery import Shot, close_looks, samples
from tracesight.report.html import write_report
from tracesight.report.mistakes import Mistake, worst

__all__ = [
    "Mistake",
    "ReportFacts",
    "Shot",
    "SplitFacts",
    "TrainingFacts",
    "close_looks",
    "curves_png",
    "draw_curves",
    "samples",
    "split_facts",
    "worst",
    "write_report",
]
