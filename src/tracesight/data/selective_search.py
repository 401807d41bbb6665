"""Selective search: Uijlings et al., "Selective Search for Object Recognition" (2013); OpenCV's implementation.

A picture is cut into small regions of even colour, the most alike of which are joined, again and again: each region
that there was at some time gives a box. It needs OpenCV's contributed modules, of the extra `proposals`.

Deviation: OpenCV ranks boxes by the C library's random numbers, so that no two runs agree. Here the order is one of
random numbers keyed by the picture: a part of the boxes is a fair sample of them, and always the same.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from tracesight.data.channels import as_rgb
from tracesight.data.random import generator
from tracesight.errors import UserError

SIDE = 320  # pixels of the short side that a picture is reduced to before the search: time grows with the area
MOST = 2000  # boxes a picture (R-CNN, section 2.1)
LEAST = 4.0  # pixels of the picture itself that a box has on each side


def available() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("cv2") is not None


def require() -> None:
    """Raise UserError where the extra, or OpenCV's contributed part, is missing."""
    if not available():
        raise UserError("selective search needs the extra `proposals`: pip install 'tracesight[proposals]'")
    import cv2

    if not hasattr(cv2, "ximgproc"):
        raise UserError(
            "selective search needs OpenCV's contributed modules, which this OpenCV lacks: "
            "pip uninstall the opencv packages, then pip install opencv-contrib-python-headless"
        )


def selective_search(
    path: Path, sha256: str, pixels: np.ndarray, *, side: int = SIDE, most: int = MOST, thorough: bool = False
) -> np.ndarray:
    """Boxes (p, 4) float32 `xyxy` in pixels of the picture, `most` at most; a `proposals.Source`.

    pixels: (H, W, C), uint8 or float32 in 0–1; of other than three channels what `as_rgb` shows. side: of the short
    side of the picture that is searched. thorough: the paper's "quality" instead of "fast", several times as slow.
    """
    require()
    import cv2

    image = as_rgb(pixels)
    height, width = image.shape[:2]
    scale = min(1.0, side / min(height, width))
    if scale < 1:
        reduced = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, reduced, interpolation=cv2.INTER_AREA)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    (search.switchToSelectiveSearchQuality if thorough else search.switchToSelectiveSearchFast)()
    found = np.unique(np.asarray(search.process(), np.float32).reshape(-1, 4), axis=0)
    boxes = np.concatenate((found[:, :2], found[:, :2] + found[:, 2:]), axis=1)
    boxes *= np.array([width / image.shape[1], height / image.shape[0]] * 2, np.float32)
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= LEAST).all(1)]
    order = generator(0, int(sha256[:15], 16), "proposals").permutation(len(boxes))
    return boxes[order[:most]]
