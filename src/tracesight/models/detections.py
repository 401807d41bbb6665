"""What a detector gives for a batch: always of one shape."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Detections(NamedTuple):
    """N pictures, D detections (the most a picture may have), the best first; K keypoints of an object.

    boxes (N, D, 4) float32 `xyxy`, in pixels of the network's picture and inside it; scores (N, D) float32, 0–1;
    labels (N, D) int64, 1 to C; valid (N, D) bool; masks (N, D, 28, 28) float32 probabilities of the detection's own
    class over its box, or None; keypoints (N, D, K, 3) float32, x and y in pixels and how sure it is, 0–1, or None.
    What is not valid is 0.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor
    masks: Tensor | None
    keypoints: Tensor | None = None
