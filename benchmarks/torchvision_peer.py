"""torchvision's Mask and Faster R-CNN beside ours: the same random weights, made to detect, and how results compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from labelled import for_torchvision
from torch import Tensor, nn
from torchvision import models
from torchvision.models import detection, resnet18
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, _resnet_fpn_extractor, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

import tracesight.weights as weights
from tracesight.data.batch import Batch, Targets, moved, predict_batch
from tracesight.models.build import build
from tracesight.models.norms import norm_layer
from tracesight.models.pixels import IMAGENET_MEAN, IMAGENET_STD
from tracesight.predict import detections_to_objects
from tracesight.scene import SceneObject


def peer(
    pictures: list[Tensor],
    *,
    depth: int = 50,
    masks: bool = True,
    num_classes: int = 91,
    side: int = 800,
    proposals: int = 1000,
    v2: bool = False,
    keypoints: int = 0,
    keypoint_width: int = 512,
):
    """torchvision's model with random weights that detects many objects of several classes on `pictures`.

    v2: with the heads of its `_fpn_v2` models.

    Random weights alone give one score everywhere. So batch norm takes its statistics from the pictures, the outputs
    of each head are rescaled, and their biases centred, by what the heads say about these pictures.
    """
    torch.manual_seed(0)
    norm = nn.BatchNorm2d
    parts = {}
    if v2:
        body = getattr(models, f"resnet{depth}")(weights=None)
        backbone = _resnet_fpn_extractor(body, 5, norm_layer=norm)
        parts = {
            "rpn_head": RPNHead(256, 3, conv_depth=2),
            "box_head": FastRCNNConvFCHead((256, 7, 7), [256] * 4, [1024], norm_layer=norm),
            **({"mask_head": MaskRCNNHeads(256, [256] * 4, 1, norm_layer=norm)} if masks else {}),
        }
    else:
        backbone = resnet_fpn_backbone(
            backbone_name=f"resnet{depth}", weights=None, norm_layer=norm, trainable_layers=5
        )
    kind = detection.MaskRCNN if masks else detection.FasterRCNN
    limits = {"rpn_pre_nms_top_n_test": proposals, "rpn_post_nms_top_n_test": proposals}
    model = kind(backbone, num_classes, min_size=side, max_size=int(side * 5 / 3), **parts, **limits)
    if keypoints:
        heads = model.roi_heads
        heads.keypoint_roi_pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 14, 2)
        heads.keypoint_head = KeypointRCNNHeads(backbone.out_channels, (keypoint_width,) * 8)
        heads.keypoint_predictor = KeypointRCNNPredictor(keypoint_width, keypoints)
    with torch.no_grad():
        _calibrate(model, pictures)
    return model.eval()


def _calibrate(model: nn.Module, pictures: list[Tensor]) -> None:
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for name, block in model.backbone.body.named_modules():
        # Each block adds half as much to its shortcut. With full branches a random network magnifies rounding so much
        # that torchvision, run channels-last, misses the limits of parity.py against itself.
        if name.count(".") == 1 and hasattr(block, "bn2"):
            (block.bn3 if hasattr(block, "bn3") else block.bn2).weight.mul_(0.5)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.backbone.train()
    for picture in pictures[:4]:
        model.backbone(model.transform([picture])[0].tensors)
    model.eval()

    def scaled(layer: nn.Module, deviation: float, centre: float | Tensor = 0.0) -> None:
        """Rescale a layer so that its outputs on the pictures have this deviation around `centre`."""
        seen: list[Tensor] = []
        hook = layer.register_forward_hook(lambda _, __, out: seen.append(out.movedim(1, -1).reshape(-1, out.shape[1])))
        for picture in pictures[:4]:
            model([picture])
        hook.remove()
        outputs = torch.cat(seen)
        factor = deviation / outputs.std()
        layer.weight.mul_(factor)
        layer.bias.copy_((layer.bias - outputs.mean(0)) * factor + centre)

    scaled(model.rpn.head.cls_logits, 2.0)
    scaled(model.rpn.head.bbox_pred, 0.2)
    classes = model.roi_heads.box_predictor.cls_score.out_features
    # Background in front by so much that a few hundred of a thousand regions pass.
    centre = torch.zeros(classes)
    centre[0] = 3.0 if classes > 10 else 1.0
    scaled(model.roi_heads.box_predictor.cls_score, 2.5, centre)
    scaled(model.roi_heads.box_predictor.bbox_pred, 0.5)
    if model.roi_heads.has_mask():
        scaled(model.roi_heads.mask_predictor.mask_fcn_logits, 2.0)


def small_peer(model: nn.Module, side: int, seed: int = 0) -> nn.Module:
    """torchvision's parts put together to `model`: our Faster or Mask R-CNN on a ResNet-18 with group norm, any widths.

    The weights are random and its own: `load_weights` gives them to `model`. The number of steps is as in `model`.
    """
    width = model.backbone.fpn.inner_blocks[0][0].out_channels
    heads, proposals = model.roi_heads.settings, model.rpn.settings
    classes, boxes = model.spec["num_classes"], model.roi_heads.box_head.fc7.out_features
    levels = ["0", "1", "2", "3"]
    torch.manual_seed(seed)
    body = resnet18(weights=None, norm_layer=norm_layer("group"))
    kind, masks = detection.FasterRCNN, {}
    if model.roi_heads.mask_predictor is not None:
        mask_width = model.roi_heads.mask_predictor.conv5_mask.out_channels
        kind, masks = (
            detection.MaskRCNN,
            {
                "mask_roi_pool": MultiScaleRoIAlign(levels, 14, 2),
                "mask_head": MaskRCNNHeads(width, (mask_width,) * 4, 1),
                "mask_predictor": MaskRCNNPredictor(mask_width, mask_width, classes),
            },
        )
    return kind(
        BackboneWithFPN(body, {f"layer{i + 1}": level for i, level in enumerate(levels)}, [64, 128, 256, 512], width),
        rpn_anchor_generator=AnchorGenerator(
            tuple(tuple(sizes) for sizes in model.spec["args"]["anchor_sizes"]), ((0.5, 1.0, 2.0),) * 5
        ),
        min_size=side,
        max_size=int(side * 5 / 3),
        rpn_pre_nms_top_n_train=proposals.pre_nms_train,
        rpn_post_nms_top_n_train=proposals.post_nms_train,
        rpn_pre_nms_top_n_test=proposals.pre_nms_test,
        rpn_post_nms_top_n_test=proposals.post_nms_test,
        rpn_batch_size_per_image=proposals.batch,
        box_batch_size_per_image=heads.batch,
        box_detections_per_img=heads.max_objects,
        box_roi_pool=MultiScaleRoIAlign(levels, 7, 2),
        box_head=TwoMLPHead(width * 49, boxes),
        box_predictor=FastRCNNPredictor(boxes, classes),
        **masks,
    )


def freeze_norms(module: nn.Module) -> nn.Module:
    """`module`, its batch norms replaced by frozen ones, which torchvision's published detectors have: same results."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            freeze_norms(child)
    return module


def ours(theirs: nn.Module, name: str, **args) -> nn.Module:
    """Our model `name` with the weights of `theirs`."""
    num_classes = theirs.roi_heads.box_predictor.cls_score.out_features
    model = build(name, num_classes, "torchvision", **args)
    weights.load_weights(model, theirs.state_dict(), source="torchvision")
    return model


def device_of(model: nn.Module) -> torch.device:
    """Where the model is."""
    return next(model.parameters()).device


def exact_products():
    """A context in which convolutions on a GPU multiply in float32.

    By itself torch lets cuDNN round to 10 bits (TF32), and kernels for different memory formats then differ by 1e-3.
    NVIDIA_TF32_OVERRIDE=0 does this to a whole process.
    """
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def on(columns, device: torch.device | str):
    """A batch or targets on a device."""
    return moved(columns, device)


def doubled(theirs: nn.Module, model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Both in double precision, where rounding is too small to reorder anything: what differs then is a difference."""
    # torchvision rounds its mean and deviation to the pictures' type, ours are float32: 1e-8 can turn a ReLU around.
    for name, values in (("pixel_mean", IMAGENET_MEAN), ("pixel_std", IMAGENET_STD)):
        setattr(model, name, torch.tensor(values, dtype=torch.float64, device=device_of(model)).view(1, 3, 1, 1))
    return theirs.double(), model.double()


def doubled_batch(batch: Batch, targets: Targets) -> tuple[Batch, Targets]:
    """Pictures and labels in double precision."""
    labels = targets._replace(boxes=targets.boxes.double(), mask_boxes=targets.mask_boxes.double())
    return batch._replace(images=batch.images.double()), labels


def resized_picture(picture: np.ndarray, side: int) -> Tensor:
    """What our network sees of a decoded picture (H, W, 3) uint8: (3, h, w) float32 in 0–1, not yet standardised."""
    batch = predict_batch([picture], side)
    height, width = batch.sizes[0].tolist()
    return batch.images[0, :, :height, :width]


def our_objects(model: nn.Module, picture: np.ndarray, side: int) -> tuple[SceneObject, ...]:
    """What `predict` makes of a decoded picture (H, W, 3) uint8; each category id is the network's own label."""
    batch = on(predict_batch([picture], side), device_of(model))
    batch = batch._replace(images=batch.images.to(next(model.parameters()).dtype))
    with torch.inference_mode():
        detections = model(batch)
    height, width = batch.sizes[0].tolist()
    return detections_to_objects(
        *(column if column is None else column[0].cpu() for column in detections),
        categories={label: str(label) for label in range(1, model.spec["num_classes"])},
        network_size=(height, width),
        picture_size=(picture.shape[0], picture.shape[1]),
        threshold=model.roi_heads.settings.score_threshold,
    )


def as_tensors(objects: tuple[SceneObject, ...]) -> dict[str, Tensor]:
    """Objects of one picture as torchvision gives its detections; bool masks (D, H, W) if the objects have masks."""
    result = {
        "boxes": torch.tensor([item.box for item in objects]).view(-1, 4),
        "scores": torch.tensor([item.score for item in objects]),
        "labels": torch.tensor([item.category_id for item in objects], dtype=torch.int64),
    }
    masks = [item.mask.to_array() for item in objects if item.mask is not None]
    return {**result, "masks": torch.from_numpy(np.stack(masks))} if masks else result


def as_picture(picture: np.ndarray) -> Tensor:
    """A decoded picture (H, W, 3) uint8 as torchvision wants it: (3, H, W) float32 in 0–1."""
    return torch.from_numpy(picture).permute(2, 0, 1) / 255


def their_detections(theirs: nn.Module, picture: Tensor, resized: Tensor | None = None) -> dict[str, Tensor]:
    """torchvision's detections of one picture (3, H, W), masks made binary.

    resized: (3, h, w) in 0–1, which its network sees instead of what torch would resize. torch's kernels round the
    places that pixels come from once or twice, depending on processor and threads; the pixels then differ by 1e-5 and
    more, and of that a random network makes more than of all other rounding.
    """
    like = next(theirs.parameters())
    if resized is not None:
        pixels = theirs.transform.normalize(resized.to(like))
        theirs.transform.resize = lambda _image, target: (pixels, target)
    with torch.inference_mode():
        out = {name: value.cpu() for name, value in theirs([picture.to(like)])[0].items()}
    if resized is not None:
        del theirs.transform.resize
    if "masks" in out:
        out["masks"] = out["masks"][:, 0] > 0.5
    return out


@dataclass(frozen=True)
class Agreement:
    """How two lists of detections of one picture compare."""

    ours: int  # objects
    objects: int  # of torchvision's
    classes: int  # among torchvision's
    found: tuple[float, float]  # share of ours that are found among theirs, and of theirs that are among ours
    partners: tuple[float, float]  # the same shares of objects that have a partner
    box: float  # largest difference of a coordinate between partners, pixels
    score: float  # largest difference
    mask_iou: float  # least


def agreement(our: dict[str, Tensor], their: dict[str, Tensor]) -> Agreement:
    """Compare dicts of boxes (D, 4), scores (D,), labels (D,) and bool masks (D, H, W).

    An object is found where the other list has one of its class with a box within 0.05 px, a score within 1e-4 and a
    mask of IoU 0.99 or better. The differences are between partners, which are an object and the nearest of its class
    within 1 px and a score within 0.01: so they also say how far those lie that are not found.
    """
    counts = len(our["boxes"]), len(their["boxes"])
    classes = len(their["labels"].unique())
    if not min(counts):
        alone = float(not counts[0]), float(not counts[1])
        return Agreement(*counts, classes, alone, alone, 0.0, 0.0, 1.0)
    box = (our["boxes"][:, None] - their["boxes"][None]).abs().amax(-1)
    score = (our["scores"][:, None] - their["scores"][None]).abs()
    same = our["labels"][:, None] == their["labels"][None]
    partner = same & (box <= 1.0) & (score <= 0.01)
    rows = partner.any(1).nonzero().squeeze(1)
    nearest = (box + 100 * score).masked_fill(~partner, torch.inf)[rows].argmin(1)
    iou = float(_mask_iou(our["masks"][rows], their["masks"][nearest]).min()) if "masks" in our and len(rows) else 1.0
    return Agreement(
        *counts,
        classes,
        (_found(our, their, same, box, score), _found(their, our, same.T, box.T, score.T)),
        (float(partner.any(1).float().mean()), float(partner.any(0).float().mean())),
        float(box[rows, nearest].max()) if len(rows) else 0.0,
        float(score[rows, nearest].max()) if len(rows) else 0.0,
        iou,
    )


def _found(one: dict[str, Tensor], other: dict[str, Tensor], same: Tensor, box: Tensor, score: Tensor) -> float:
    """The share of objects of `one` that `other` has too; same, box and score are of every pair."""
    near = same & (box <= 0.05) & (score <= 1e-4)
    found = near.any(1)
    if "masks" in one and found.any():
        nearest = (box + 1e3 * score).masked_fill(~near, torch.inf)[found].argmin(1)
        found[found.clone()] = _mask_iou(one["masks"][found], other["masks"][nearest]) >= 0.99
    return float(found.float().mean())


def _mask_iou(left: Tensor, right: Tensor) -> Tensor:
    """IoU (D,) of bool masks (D, H, W) pair by pair; 1 where both are empty."""
    union = (left | right).flatten(1).sum(1)
    return ((left & right).flatten(1).sum(1) / union.clamp(min=1)).masked_fill(union == 0, 1.0)


@contextmanager
def recorded(part: nn.Module) -> Iterator[list]:
    """What `part.sample`, of an RPN or of heads over regions, returns meanwhile."""
    sample, seen = part.sample, []
    part.sample = lambda *given: seen.append(sample(*given)) or seen[-1]
    yield seen
    del part.sample


def losses_with_our_choices(theirs: nn.Module, model: nn.Module, batch: Batch, targets: Targets, masks: Tensor):
    """(our losses, torchvision's) on one batch, both training on the proposals and samples that ours chose.

    masks: (N, M, H, W) whole ground-truth masks, as torchvision wants them. Pictures are taken as large as they are.
    `theirs` keeps the choices: it can train on nothing else afterwards, but for another call.
    """
    theirs.train()
    theirs.transform._skip_resize = True
    images, labels = for_torchvision(batch, targets, masks)
    # One pass, from which the choices are taken: a second one need not round alike, and might choose others.
    with recorded(model.rpn) as anchors, recorded(model.roi_heads) as regions:
        losses = model(batch, targets)
    (index, valid, positive, _), sampled = anchors[0], regions[0]

    def anchor_sampler(status: list[Tensor]):
        chosen = []
        for which in (positive, valid & ~positive):
            chosen.append([torch.zeros_like(s, dtype=torch.uint8) for s in status])
            for n, row in enumerate(index):
                chosen[-1][n][row[which[n]]] = 1
        return tuple(chosen)

    def select_regions(_proposals, wanted):
        boxes = [b[v] for b, v in zip(sampled.boxes, sampled.valid)]
        matched = [m[v] for m, v in zip(sampled.matched, sampled.valid)]
        classes = [c[v] for c, v in zip(sampled.labels, sampled.valid)]
        # Their lists hold valid objects only, and ours come first in the row.
        gt = [w["boxes"][m.clamp(max=len(w["boxes"]) - 1)] for w, m in zip(wanted, matched)]
        return boxes, matched, classes, theirs.roi_heads.box_coder.encode(gt, boxes)

    assign = type(theirs.rpn).assign_targets_to_anchors

    def assign_in_any_precision(*arguments):
        # Their labels are float32 whatever the model is, and the loss refuses them in float64.
        status, boxes = assign(theirs.rpn, *arguments)
        return [s.to(batch.images.dtype) for s in status], boxes

    theirs.rpn.assign_targets_to_anchors = assign_in_any_precision
    theirs.rpn.fg_bg_sampler = anchor_sampler
    theirs.roi_heads.select_training_samples = select_regions
    # Batch norm must use its statistics, as our frozen one does.
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return losses, theirs(images, labels)
