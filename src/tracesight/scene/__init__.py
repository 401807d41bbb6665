"""What a picture holds: scenes, objects, masks, tracks and measurements; numpy and Pillow only."""

from __future__ import annotations

from tracesight.scene.draw import category_colour, draw_objects, side_by_side
from tracesight.scene.mask import Mask
from tracesight.scene.outputs import coco_images, coco_results, write_csv
from tracesight.scene.scene import SCHEMA_VERSION, Measurement, Picture, Scene, SceneObject, Track

__all__ = [
    "SCHEMA_VERSION",
    "Mask",
    "Measurement",
    "Picture",
    "Scene",
    "SceneObject",
    "Track",
    "category_colour",
    "coco_images",
    "coco_results",
    "draw_objects",
    "side_by_side",
    "write_csv",
]
