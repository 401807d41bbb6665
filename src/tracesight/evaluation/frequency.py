"""In how many training pictures a category occurs, and LVIS's three groups after it.

Gupta, Dollár, Girshick, "LVIS: A Dataset for Large Vocabulary Instance Segmentation" (2019): a category is rare, common
or frequent by its number of training *pictures*, not of objects, and AP is stated for each of the groups, since a mean
over all categories hides what a long tail costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracesight.data.dataset import Dataset

# Least and most training pictures of each group.
BOUNDS = {"rare": (1, 10), "common": (11, 100), "frequent": (101, float("inf"))}


def training_pictures(dataset: Dataset) -> dict[int, int]:
    """For each category id of `dataset`, ascending, the number of its pictures with at least one object of it.

    Crowd regions are no objects. Of pictures without objects, those that show the category as wholes count. Categories
    without any have 0.
    """
    seen: Counter[int] = Counter()
    for record in dataset:
        seen.update({a.category_id for a in record.annotations if not a.ignored} or set(record.labels))
    return {category: seen[category] for category in dataset.category_ids}


def frequency_groups(counts: Mapping[int, int]) -> dict[str, list[int]]:
    """Category ids by group, ascending: "rare" (1 to 10 training pictures), "common" (11 to 100), "frequent" (more).

    Args:
        counts: number of training pictures by category id, as `training_pictures` gives them. A category with 0 was
            never learnt and belongs to none of the groups.
    """
    return {
        name: sorted(category for category, pictures in counts.items() if least <= pictures <= most)
        for name, (least, most) in BOUNDS.items()
    }
