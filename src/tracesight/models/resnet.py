"""Residual networks: He et al., "Deep Residual Learning for Image Recognition" (2016), sections 3.3, 3.4 and 4.1.

N pictures, C channels, H and W pixels, L blocks. Input (N, C, H, W), RGB unless the network was built for other
channels, already standardised; stage i has stride 2^i. The CIFAR family of section 4.2 is in `cifar_resnet.py`.
Deviations: version "v1.5" puts a bottleneck's stride on the 3×3 convolution and not on the first 1×1 ("v1", the
paper's), which is half a point more accurate on ImageNet and what torchvision's weights expect; the last norm of a
block may begin at 0 (Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 5.1); blocks may be left out at
random (`ops/drop_path.py`). Both are off unless asked for. Parameter names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracesight.models.norms import norm_layer
from tracesight.ops.drop_path import drop_path_scales

# Blocks a stage (table 1).
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SHORTCUTS = ("A", "B", "C")

Norm = Callable[[int], nn.Module]


def conv(c_in: int, c_out: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the sides, or divides them by `stride`; the norm after it has the bias."""
    return nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, groups=groups, bias=False)


class PaddedIdentity(nn.Module):
    """Shortcut A where the shape changes: every `stride`-th cell, and the new channels are 0 (section 3.3).

    The old channels lie in the middle of the new ones, as in the public CIFAR checkpoints. The paper does not say
    where; another place is another order of the channels of a stage, and nothing else.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.before = stride, (c_out - c_in) // 2
        self.after = c_out - c_in - self.before

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def shortcut_of(kind: str, c_in: int, c_out: int, stride: int, norm: Norm | None) -> nn.Module | None:
    """What the input passes through on its way round a block (section 3.3); None is the identity.

    kind: "A" pads where the shape changes; "B" projects there; "C" projects everywhere. norm: of the projections.
    Raises ValueError for another kind.
    """
    if kind not in SHORTCUTS:
        raise ValueError(f"shortcut is {kind!r}; it can be " + ", ".join(map(repr, SHORTCUTS)))
    if kind != "C" and stride == 1 and c_in == c_out:
        return None
    if kind == "A":
        return PaddedIdentity(c_in, c_out, stride)
    projection = conv(c_in, c_out, 1, stride)
    return nn.Sequential(projection) if norm is None else nn.Sequential(projection, norm(c_out))


def joined(residual: Tensor, x: Tensor, shortcut: nn.Module | None, keep: Tensor | None) -> Tensor:
    """F(x) + x (equations 1 and 2). keep (N, 1, 1, 1) scales F(x): 0 leaves the block out."""
    if keep is not None:
        residual = residual * keep.to(residual.dtype)
    return residual + (x if shortcut is None else shortcut(x))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (figure 5, left)."""

    def __init__(self, c_in: int, width: int, stride: int, norm: Norm, *, shortcut: str = "B") -> None:
        super().__init__()
        self.channels = width
        self.conv1, self.bn1 = conv(c_in, width, 3, stride), norm(width)
        self.conv2, self.bn2 = conv(width, width, 3), norm(width)
        self.downsample = shortcut_of(shortcut, c_in, width, stride, norm)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn2

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        return F.relu(joined(out, x, self.downsample, keep), inplace=True)


class Bottleneck(nn.Module):
    """1×1 down, 3×3, 1×1 up, and a shortcut (figure 5, right).

    The 3×3 convolution has `width` × `widen` channels in `groups` groups. stride_first: the stride is on the first 1×1
    (v1), not on the 3×3 (v1.5).
    """

    def __init__(
        self,
        c_in: int,
        width: int,
        stride: int,
        norm: Norm,
        *,
        shortcut: str = "B",
        stride_first: bool = False,
        widen: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.channels, inner = 4 * width, width * widen
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1, self.bn1 = conv(c_in, inner, 1, first), norm(inner)
        self.conv2, self.bn2 = conv(inner, inner, 3, second, groups), norm(inner)
        self.conv3, self.bn3 = conv(inner, self.channels, 1), norm(self.channels)
        self.downsample = shortcut_of(shortcut, c_in, self.channels, stride, norm)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn3

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        return F.relu(joined(out, x, self.downsample, keep), inplace=True)


class PlainBlock(nn.Module):
    """Two 3×3 convolutions without a shortcut (figure 3, middle): what residual learning is compared with."""

    def __init__(self, c_in: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.channels = width
        self.conv1, self.bn1 = conv(c_in, width, 3, stride), norm(width)
        self.conv2, self.bn2 = conv(width, width, 3), norm(width)

    def forward(self, x: Tensor, keep: None = None) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)


class ResNet(nn.Module):
    """Stem, stages, and a linear classifier unless `num_classes` is None.

    block(c_in, width, stride, norm) makes a block that has `channels`; stage i has depths[i] of width × 2^i. small: the
    stem of section 4.2 for small pictures, a 3×3 convolution, and not table 1's, which divides the sides by 4.
    `model(x)` gives logits (N, num_classes), `model.features(x)` the stages' outputs: `channels` of them, `strides`.
    """

    def __init__(
        self,
        block: Callable[[int, int, int, Norm], nn.Module],
        depths: Sequence[int],
        num_classes: int | None,
        norm: Norm,
        *,
        in_channels: int = 3,
        width: int = 64,
        small: bool = False,
        zero_init: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path is {drop_path}: it is a probability, at least 0 and below 1")
        self.small, self.drop_path = small, drop_path
        self.conv1 = conv(in_channels, width, 3) if small else conv(in_channels, width, 7, 2)
        self.bn1 = norm(width)
        c_in = width
        self.channels: list[int] = []
        self.strides = [2**i if small else 4 * 2**i for i in range(len(depths))]
        for stage, blocks in enumerate(depths):
            layers = nn.Sequential()
            for index in range(blocks):
                layers.append(block(c_in, width * 2**stage, 2 if stage > 0 and index == 0 else 1, norm))
                c_in = int(layers[-1].channels)  # type: ignore[arg-type]
            setattr(self, f"layer{stage + 1}", layers)
            self.channels.append(c_in)
        self.fc = None if num_classes is None else nn.Linear(c_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # counting needs no numbers
                # He et al., "Delving Deep into Rectifiers" (2015), equation 14.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init and isinstance(module, BasicBlock | Bottleneck):
                _zero(module.last_norm)

    @property
    def stages(self) -> list[nn.Sequential]:
        return [getattr(self, f"layer{stage + 1}") for stage in range(len(self.channels))]

    def features(self, x: Tensor, keys: Tensor | None = None) -> list[Tensor]:
        """Outputs of the stages: (N, channels[i], H / strides[i], W / strides[i]), rounded up.

        keys: (N, 2) int64, (seed, draw number) of each picture: blocks are left out as `drop_path` says; None: none is.
        """
        x, keep = self.stem(x), self.scales(keys)
        stages = []
        for stage in self.stages:
            for block in stage:
                x = block(x, next(keep))
            stages.append(x)
        return stages

    def cut_last(self) -> tuple[nn.Sequential, nn.Module | None]:
        """Take the last stage off, for a head that reads regions; and the norm that ends it, None if there is none."""
        stage = self.stages[-1]
        delattr(self, f"layer{len(self.channels)}")
        self.channels, self.strides = self.channels[:-1], self.strides[:-1]
        return stage, None

    def dilate_last(self) -> None:
        """Keep the stride of the stage before the last one: its 3×3 convolutions look two cells far (DC5)."""
        for module in self.stages[-1].modules():
            if isinstance(module, PaddedIdentity):
                module.stride = 1
            elif isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
                if module.kernel_size == (3, 3):
                    module.dilation, module.padding = (2, 2), (2, 2)
        self.strides = [*self.strides[:-1], self.strides[-2]]

    def stem(self, x: Tensor) -> Tensor:
        """What comes before the stages."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return x if self.small else F.max_pool2d(x, 3, stride=2, padding=1)

    def scales(self, keys: Tensor | None) -> Iterator[Tensor | None]:
        """What each block's F(x) is multiplied by, (N, 1, 1, 1), or None for 1."""
        blocks = sum(len(stage) for stage in self.stages)
        if keys is None or self.drop_path == 0:
            return iter([None] * blocks)
        return iter(drop_path_scales(keys, blocks, self.drop_path)[..., None, None, None].unbind())

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Logits (N, num_classes). keys: as `features` takes them, in training with `drop_path`."""
        if self.fc is None:
            raise RuntimeError("this ResNet was built without a classifier: use features(x)")
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.features(x, keys)[-1], 1), 1))


def _zero(norm: nn.Module) -> None:
    if not isinstance(norm.weight, nn.Parameter):
        raise ValueError("zero_init needs a norm that learns its scale: norm='batch' or norm='group'")
    nn.init.zeros_(norm.weight)


def resnet(
    depth: int,
    version: str,
    num_classes: int | None = 1000,
    *,
    norm: str = "batch",
    norm_eps: float = 1e-5,
    in_channels: int = 3,
    shortcut: str = "B",
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> ResNet:
    """ResNet of `depth` 18, 34, 50, 101 or 152 layers (table 1), version "v1" or "v1.5".

    shortcut: option "A", "B" or "C" of section 3.3. zero_init: the last norm of each block begins with scale 0, so that
    the block begins as the identity. drop_path: probability with which the last block is left out (`features`).
    """
    block = partial(BasicBlock, shortcut=shortcut)
    if depth >= 50:
        block = partial(Bottleneck, shortcut=shortcut, stride_first=version == "v1")
    return ResNet(
        block,
        DEPTHS[depth],
        num_classes,
        norm_layer(norm, norm_eps),
        in_channels=in_channels,
        zero_init=zero_init,
        drop_path=drop_path,
    )


def plain(
    depth: int, num_classes: int | None = 1000, *, norm: str = "batch", norm_eps: float = 1e-5, in_channels: int = 3
) -> ResNet:
    """The plain network of 18 or 34 layers (section 3.3, figure 3, middle)."""
    return ResNet(PlainBlock, DEPTHS[depth], num_classes, norm_layer(norm, norm_eps), in_channels=in_channels)
