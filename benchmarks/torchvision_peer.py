"""torchvision's Mask and Faster R-CNN beside ours: the same random weights, made to detect, and how results compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

import tracesight.weights as weights
from tracesight.data.batch import Batch, Targets
from tracesight.models.build import build


def peer(pictures: list[Tensor], *, depth: int = 50, masks: bool = True, num_classes: int = 91, side: int = 800):
    """torchvision's model with random weights that detects many objects of several classes on `pictures`.

    Random weights alone give one score everywhere. So batch norm takes its statistics from the pictures, the outputs
    of each head are rescaled, and their biases centred, by what the heads say about these pictures.
    """
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name=f"resnet{depth}", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    kind = detection.MaskRCNN if masks else detection.FasterRCNN
    model = kind(backbone, num_classes, min_size=side, max_size=int(side * 5 / 3))
    with torch.no_grad():
        _calibrate(model, pictures)
    return model.eval()


def _calibrate(model: nn.Module, pictures: list[Tensor]) -> None:
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
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


def ours(theirs: nn.Module, name: str, **args) -> nn.Module:
    """Our model `name` with the weights of `theirs`."""
    num_classes = theirs.roi_heads.box_predictor.cls_score.out_features
    model = build(name, num_classes, "torchvision", **args)
    weights.load_weights(model, theirs.state_dict(), source="torchvision")
    return model


@dataclass(frozen=True)
class Agreement:
    """How two lists of detections of one picture compare. found: share of ours among theirs and theirs among ours."""

    objects: int
    classes: int
    found: tuple[float, float]
    box: float  # largest difference of a coordinate, pixels
    score: float  # largest difference
    mask_iou: float  # least


def agreement(our: dict[str, Tensor], their: dict[str, Tensor]) -> Agreement:
    """Compare dicts of boxes (D, 4), scores (D,), labels (D,) and bool masks (D, H, W), each object with its nearest.

    An object is found where the other list has one of its class within 0.05 px and a score within 1e-4.
    """
    if not len(our["boxes"]) or not len(their["boxes"]):
        empty = len(our["boxes"]) == len(their["boxes"])
        return Agreement(len(their["boxes"]), 0, (float(empty),) * 2, 0.0, 0.0, 1.0)
    box = (our["boxes"][:, None] - their["boxes"][None]).abs().amax(-1)
    score = (our["scores"][:, None] - their["scores"][None]).abs()
    same = our["labels"][:, None] == their["labels"][None]
    near = same & (box <= 0.05) & (score <= 1e-4)
    distance = (box + 1e4 * score).masked_fill(~near, torch.inf)
    rows = near.any(1).nonzero().squeeze(1)
    nearest = distance[rows].argmin(1)
    iou = 1.0
    if "masks" in our and len(rows):
        a, b = our["masks"][rows], their["masks"][nearest]
        union = (a | b).flatten(1).sum(1)
        iou = float(((a & b).flatten(1).sum(1) / union.clamp(min=1)).masked_fill(union == 0, 1.0).min())
    return Agreement(
        len(their["boxes"]),
        len(their["labels"].unique()),
        (float(near.any(1).float().mean()), float(near.any(0).float().mean())),
        float(box[rows, nearest].max()) if len(rows) else 0.0,
        float(score[rows, nearest].max()) if len(rows) else 0.0,
        iou,
    )


def losses_with_our_choices(theirs: nn.Module, model: nn.Module, batch: Batch, targets: Targets, masks: Tensor):
    """(our losses, torchvision's) on one batch, both training on the proposals and samples that ours chose.

    masks: (N, M, H, W) whole ground-truth masks, as torchvision wants them. The pictures must be as large as
    torchvision's transform leaves them.
    """
    theirs.train()
    images = [image[:, :h, :w] for image, (h, w) in zip(batch.images, batch.sizes.tolist())]
    labels = [
        {"boxes": b[v], "labels": c[v], "masks": m[v].to(torch.uint8)}
        for b, c, v, m in zip(targets.boxes, targets.labels, targets.valid, masks)
    ]
    with torch.no_grad():
        features = model.backbone(model.standardise(batch))
        anchors = torch.cat(model.rpn.anchors(features))
        index, valid, positive, _ = model.rpn.sample(anchors, batch, targets)
        proposals, proposal_valid, _ = model.rpn(features, batch, targets)
        sampled = model.roi_heads.sample(proposals, proposal_valid, batch, targets)

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

    assign = theirs.rpn.assign_targets_to_anchors

    def assign_in_any_precision(*arguments):
        # Their labels are float32 whatever the model is, and the loss refuses them in float64.
        status, boxes = assign(*arguments)
        return [s.to(batch.images.dtype) for s in status], boxes

    theirs.rpn.assign_targets_to_anchors = assign_in_any_precision
    theirs.rpn.fg_bg_sampler = anchor_sampler
    theirs.roi_heads.select_training_samples = select_regions
    # Batch norm must use its statistics, as our frozen one does.
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model(batch, targets), theirs(images, labels)
