"""What weights mean but no tensor shows: fixed when a model is built, compared when weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conventions:
    """roi_aligned: RoIAlign reads a cell's value at its centre. roi_sampling: points a bin side. norm_eps: batch
    norm's. layer_norm_eps: layer norm's, in ViTs. mask_target_aligned: mask targets are sampled at pixel centres; it
    changes training only, so that weights load either way."""

    roi_aligned: bool = False
    roi_sampling: int = 2
    norm_eps: float = 1e-5
    layer_norm_eps: float = 1e-6
    mask_target_aligned: bool = False


CONVENTIONS = {
    # torchvision samples mask targets half a pixel off: masks of what it trains lie half a pixel up and to the left.
    "tracesight": Conventions(mask_target_aligned=True),
    "torchvision": Conventions(),
    # The Faster and Mask R-CNNs that torchvision published for COCO in version 1 were trained with an eps of 0.
    "torchvision-coco-v1": Conventions(norm_eps=0.0),
    # As the configurations of Hugging Face's ViT and ViTMAE have it, whatever the weights were trained with before.
    "huggingface": Conventions(layer_norm_eps=1e-12, mask_target_aligned=True),
}
