"""What is looked at before anything is learned: one kind of finding a file."""

from tracesight.data.checks.masks import check_masks
from tracesight.data.checks.pictures import check_pictures

__all__ = ["check_masks", "check_pictures"]
