"""What a picture holds: scenes, categories, objects, masks, tracks and measurements; numpy and Pillow only."""

from __future__ import annotations

from tracesight.scene.draw import category_colour, draw_categories, draw_objects, side_by_side
from tracesight.scene.mask import Mask
from tracesight.scene.outputs import coco_images, coco_results, write_categories_csv, write_csv
from tracesight.scene.scene import (
    SCHEMA_VERSION,
    Keypoint,
    Measurement,
    Picture,
    Scene,
    SceneCategory,
    SceneObject,
    Track,
)

__all__ = [
    "SCHEMA_VERSION",
    "Keypoint",
    "Mask",
    "Measurement",
    "Picture",
    "Scene",
    "SceneCategory",
    "SceneObject",
    "Track",
    "category_colour",
    "coco_images",
    "coco_results",
    "draw_categories",
    "draw_objects",
    "side_by_side",
    "write_categories_csv",
    "write_csv",
]
