"""What is looked at before anything is learned: one kind of finding a file."""

from tracesight.data.checks.everything import Report, check
from tracesight.data.checks.mask_missing import with_masks

__all__ = ["Report", "check", "with_masks"]
