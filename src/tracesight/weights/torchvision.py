"""Checkpoints of torchvision: ResNet, ResNeXt and Wide ResNet classifiers, Faster, Mask and Keypoint R-CNN (v1).

Tracesight uses torchvision's current parameter names, so nearly everything passes as it is. What does not:
- files that torchvision published before its 0.13 name single convolutions where later versions have blocks
  (torchvision renames them on loading, see `_load_from_state_dict` in its `ops/feature_pyramid_network.py`,
  `models/detection/rpn.py` and `models/detection/mask_rcnn.py`);
- `num_batches_tracked` counts training steps of a batch norm and has no say in the result: dropped on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tracesight.weights.published import Published

# What the names do not show. The first is assumed where neither caller nor file says otherwise: batch norm with
# eps 1e-5. The published COCO v1 R-CNNs were trained with eps 0 (torchvision: `overwrite_eps(model, 0.0)`).
CONVENTIONS = ("torchvision", "torchvision-coco-v1")

DROPPED_SUFFIX = "num_batches_tracked"

# Old name -> current name; None would be dropped on purpose.
KEYS: dict[str, str | None] = {
    "backbone.fpn.inner_blocks.0.weight": "backbone.fpn.inner_blocks.0.0.weight",
    "backbone.fpn.inner_blocks.0.bias": "backbone.fpn.inner_blocks.0.0.bias",
    "backbone.fpn.inner_blocks.1.weight": "backbone.fpn.inner_blocks.1.0.weight",
    "backbone.fpn.inner_blocks.1.bias": "backbone.fpn.inner_blocks.1.0.bias",
    "backbone.fpn.inner_blocks.2.weight": "backbone.fpn.inner_blocks.2.0.weight",
    "backbone.fpn.inner_blocks.2.bias": "backbone.fpn.inner_blocks.2.0.bias",
    "backbone.fpn.inner_blocks.3.weight": "backbone.fpn.inner_blocks.3.0.weight",
    "backbone.fpn.inner_blocks.3.bias": "backbone.fpn.inner_blocks.3.0.bias",
    "backbone.fpn.layer_blocks.0.weight": "backbone.fpn.layer_blocks.0.0.weight",
    "backbone.fpn.layer_blocks.0.bias": "backbone.fpn.layer_blocks.0.0.bias",
    "backbone.fpn.layer_blocks.1.weight": "backbone.fpn.layer_blocks.1.0.weight",
    "backbone.fpn.layer_blocks.1.bias": "backbone.fpn.layer_blocks.1.0.bias",
    "backbone.fpn.layer_blocks.2.weight": "backbone.fpn.layer_blocks.2.0.weight",
    "backbone.fpn.layer_blocks.2.bias": "backbone.fpn.layer_blocks.2.0.bias",
    "backbone.fpn.layer_blocks.3.weight": "backbone.fpn.layer_blocks.3.0.weight",
    "backbone.fpn.layer_blocks.3.bias": "backbone.fpn.layer_blocks.3.0.bias",
    "rpn.head.conv.weight": "rpn.head.conv.0.0.weight",
    "rpn.head.conv.bias": "rpn.head.conv.0.0.bias",
    "roi_heads.mask_head.mask_fcn1.weight": "roi_heads.mask_head.0.0.weight",
    "roi_heads.mask_head.mask_fcn1.bias": "roi_heads.mask_head.0.0.bias",
    "roi_heads.mask_head.mask_fcn2.weight": "roi_heads.mask_head.1.0.weight",
    "roi_heads.mask_head.mask_fcn2.bias": "roi_heads.mask_head.1.0.bias",
    "roi_heads.mask_head.mask_fcn3.weight": "roi_heads.mask_head.2.0.weight",
    "roi_heads.mask_head.mask_fcn3.bias": "roi_heads.mask_head.2.0.bias",
    "roi_heads.mask_head.mask_fcn4.weight": "roi_heads.mask_head.3.0.weight",
    "roi_heads.mask_head.mask_fcn4.bias": "roi_heads.mask_head.3.0.bias",
}

# The part of a classifier that becomes a detector's backbone, and what of it is left behind.
BACKBONE = "backbone.body."
BACKBONE_LEAVES = ("fc",)

# The key under which this source's own scripts keep the state in a file; None: the file is the state.
WRAPPER: str | None = None

LICENCE_UNKNOWN = "unknown: the file states none (torchvision publishes its own files under BSD-3-Clause)"


def _tv(name: str, pictures: str, num_classes: int, conventions: str = "torchvision") -> Published:
    return Published(name, conventions, pictures, num_classes, f"BSD-3-Clause (torchvision's {name})")


# First eight digits of a published file's SHA-256 (torchvision writes them into the file names) -> what it is.
# The content decides, not the file's name: so the two whose batch norm has eps 0 are told with certainty.
PUBLISHED: dict[str, Published] = {
    "f37072fd": _tv("resnet18 ImageNet v1", "ImageNet", 1000),
    "5c106cde": _tv("resnet18 ImageNet v1", "ImageNet", 1000),
    "b627a593": _tv("resnet34 ImageNet v1", "ImageNet", 1000),
    "333f7ec4": _tv("resnet34 ImageNet v1", "ImageNet", 1000),
    "0676ba61": _tv("resnet50 ImageNet v1", "ImageNet", 1000),
    "19c8e357": _tv("resnet50 ImageNet v1", "ImageNet", 1000),
    "11ad3fa6": _tv("resnet50 ImageNet v2", "ImageNet", 1000),
    "63fe2227": _tv("resnet101 ImageNet v1", "ImageNet", 1000),
    "5d3b4d8f": _tv("resnet101 ImageNet v1", "ImageNet", 1000),
    "cd907fc2": _tv("resnet101 ImageNet v2", "ImageNet", 1000),
    "394f9c45": _tv("resnet152 ImageNet v1", "ImageNet", 1000),
    "b121ed2d": _tv("resnet152 ImageNet v1", "ImageNet", 1000),
    "f82ba261": _tv("resnet152 ImageNet v2", "ImageNet", 1000),
    "7cdf4587": _tv("resnext50_32x4d ImageNet v1", "ImageNet", 1000),
    "1a0047aa": _tv("resnext50_32x4d ImageNet v2", "ImageNet", 1000),
    "8ba56ff5": _tv("resnext101_32x8d ImageNet v1", "ImageNet", 1000),
    "110c445d": _tv("resnext101_32x8d ImageNet v2", "ImageNet", 1000),
    "173b62eb": _tv("resnext101_64x4d ImageNet v1", "ImageNet", 1000),
    "95faca4d": _tv("wide_resnet50_2 ImageNet v1", "ImageNet", 1000),
    "9ba9bcbe": _tv("wide_resnet50_2 ImageNet v2", "ImageNet", 1000),
    "32ee1156": _tv("wide_resnet101_2 ImageNet v1", "ImageNet", 1000),
    "d733dc28": _tv("wide_resnet101_2 ImageNet v2", "ImageNet", 1000),
    "258fb6c6": _tv("fasterrcnn_resnet50_fpn COCO v1", "COCO", 91, "torchvision-coco-v1"),
    "bf2d0c1e": _tv("maskrcnn_resnet50_fpn COCO v1", "COCO", 91, "torchvision-coco-v1"),
    "dd69338a": _tv("fasterrcnn_resnet50_fpn_v2 COCO v1", "COCO", 91),
    "73cbd019": _tv("maskrcnn_resnet50_fpn_v2 COCO v1", "COCO", 91),
    "9f466800": _tv("keypointrcnn_resnet50_fpn COCO legacy", "COCO", 2),
    "fc266e95": _tv("keypointrcnn_resnet50_fpn COCO v1", "COCO", 2, "torchvision-coco-v1"),
}


def published(sha256: str) -> Published | None:
    """The published file with this SHA-256 (64 hexadecimal digits), or None."""
    return PUBLISHED.get(sha256[:8])


def to_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under Tracesight's names; those dropped on purpose are missing."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = None if name.endswith(DROPPED_SUFFIX) else KEYS.get(name, name)
        if new is not None:
            renamed[new] = tensor
    return renamed


def from_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A Tracesight model's state under torchvision's current names, ready for its `load_state_dict(strict=True)`.

    The counters dropped on the way in stay out; torchvision's modules accept a state dict without them.
    """
    return {name: tensor for name, tensor in state.items() if not name.endswith(DROPPED_SUFFIX)}


# The 80 categories of COCO by id; the ids from 1 to 90 that are missing here COCO left unused.
_COCO = """1 person 2 bicycle 3 car 4 motorcycle 5 airplane 6 bus 7 train 8 truck 9 boat 10 traffic_light
11 fire_hydrant 13 stop_sign 14 parking_meter 15 bench 16 bird 17 cat 18 dog 19 horse 20 sheep 21 cow 22 elephant
23 bear 24 zebra 25 giraffe 27 backpack 28 umbrella 31 handbag 32 tie 33 suitcase 34 frisbee 35 skis 36 snowboard
37 sports_ball 38 kite 39 baseball_bat 40 baseball_glove 41 skateboard 42 surfboard 43 tennis_racket 44 bottle
46 wine_glass 47 cup 48 fork 49 knife 50 spoon 51 bowl 52 banana 53 apple 54 sandwich 55 orange 56 broccoli
57 carrot 58 hot_dog 59 pizza 60 donut 61 cake 62 chair 63 couch 64 potted_plant 65 bed 67 dining_table 70 toilet
72 tv 73 laptop 74 mouse 75 remote 76 keyboard 77 cell_phone 78 microwave 79 oven 80 toaster 81 sink
82 refrigerator 84 book 85 clock 86 vase 87 scissors 88 teddy_bear 89 hair_drier 90 toothbrush"""


def coco_categories() -> dict[int, str]:
    """COCO's 90 category ids with their names, as a 91-class R-CNN (index 0 is background) knows them.

    The ids that COCO left unused are named `N/A` and never shown.
    """
    words = _COCO.split()
    names = {int(number): name.replace("_", " ") for number, name in zip(words[::2], words[1::2])}
    return {number: names.get(number, "N/A") for number in range(1, 91)}
