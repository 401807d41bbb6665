"""Vision transformers: Dosovitskiy et al., "An Image is Worth 16×16 Words" (2021), section 3.1 and table 1.

N pictures, C channels, H and W pixels, P pixels along a patch, (h, w) the grid of patches, L = h × w, D width.
Input (N, C, H, W), already standardised. A picture whose sides P does not divide is filled up with 0, the mean, at its
right and bottom. Positions are a table of the grid that the network was built for; for another grid it is interpolated:
bicubic, smoothed where it shrinks, as timm does it (MAE's code does not smooth).
Deviations: no dropout and no hidden layer in the classifier, as all later recipes have it; Ti and S are of Touvron et
al., "Training data-efficient image transformers" (2021), table 1; weights begin as MAE's (appendix A.1: Xavier's);
residuals may be left out at random (`ops/drop_path.py`), attention and MLP each by itself; fixed sine-cosine positions
and mean pooling are options. Parameter names are timm's, which are MAE's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracesight.models.conventions import CONVENTIONS
from tracesight.models.encode import Norm1d
from tracesight.models.initialise import initialise
from tracesight.ops.attention import attention
from tracesight.ops.drop_path import drop_path_scales

# Width D, blocks, heads.
SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
POSITIONS, POOLS = ("learned", "sincos", "sincos-yx"), ("token", "mean")
EPS = CONVENTIONS["tracesight"].layer_norm_eps  # as in the authors' code, timm and MAE
_SMALL = 128  # pictures with shorter sides are those of CIFAR and its like


class Attention(nn.Module):
    """Self-attention of `heads` heads (appendix A)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, only: Tensor | None = None) -> Tensor:
        """(N, L, D) to (N, L, D). only: (N, M), the tokens that are asked for, to (N, M, D); all are looked at."""
        width = x.shape[2]
        if only is None:
            q, k, v = self._heads(self.qkv(x), 3)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            (q,) = self._heads(F.linear(tokens_at(x, only), weight[:width], bias[:width]), 1)
            k, v = self._heads(F.linear(x, weight[width:], bias[width:]), 2)
        return self.proj(attention(q, k, v).transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(N, L, parts × D) to as many (N, heads, L, D / heads)."""
        return x.view(x.shape[0], x.shape[1], parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind()


class Mlp(nn.Module):
    """Two layers, four times as wide between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a shortcut (equations 2 and 3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, EPS), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, EPS), Mlp(width)

    def forward(
        self, x: Tensor, keep: tuple[Tensor | None, Tensor | None] = (None, None), only: Tensor | None = None
    ) -> Tensor:
        """(N, L, D). keep: what attention's and MLP's results are multiplied by, (N, 1, 1); 0 leaves one out.

        only: (N, M), the tokens that are asked for; the result is (N, M, D).
        """
        rows = x if only is None else tokens_at(x, only)
        x = rows + _kept(self.attn(self.norm1(x), only), keep[0])
        return x + _kept(self.mlp(self.norm2(x)), keep[1])


def _kept(residual: Tensor, keep: Tensor | None) -> Tensor:
    return residual if keep is None else residual * keep.to(residual.dtype)


class PatchEmbed(nn.Module):
    """A linear layer over each patch (equation 1)."""

    def __init__(self, in_channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(in_channels, width, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to the grid (N, D, h, w), sides rounded up."""
        below, right = -images.shape[2] % self.patch, -images.shape[3] % self.patch
        if below or right:
            images = F.pad(images, (0, right, 0, below))
        return self.proj(images)


class ViT(nn.Module):
    """A vision transformer, with a linear classifier unless `num_classes` is None.

    image_size: side in pixels or (H, W), of the pictures whose grid the table of positions has. positions: "learned",
    or "sincos" (MAE's order) or "sincos-yx" (MoCo v3's), which do not learn. pool: what is classified, the class
    "token" behind the last norm, or the "mean" over the patches, with a norm behind it (`fc_norm`) instead of the one
    before. head_norm: a batch norm without scale and shift stands before the classifier, as MAE's linear probe has it
    (appendix A.1), and that begins smaller.
    `model(x)` gives logits (N, num_classes), `model.features(x)` one stage: `channels` and `strides` as a ResNet's.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        num_classes: int | None,
        *,
        patch: int = 16,
        image_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        positions: str = "learned",
        pool: str = "token",
        drop_path: float = 0.0,
        head_norm: bool = False,
    ) -> None:
        super().__init__()
        _check(width, heads, patch, positions, pool, drop_path)
        height, across = sides_of(image_size)
        self.patch, self.pool, self.drop_path = patch, pool, drop_path
        self.grid = (-(-height // patch), -(-across // patch))
        self.small = max(height, across) < _SMALL
        self.channels, self.strides = [width], [patch]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        table = torch.zeros(1, 1 + self.grid[0] * self.grid[1], width)
        self.pos_embed = nn.Parameter(table, requires_grad=positions == "learned")
        self.patch_embed = PatchEmbed(in_channels, width, patch)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, EPS) if pool == "token" else None
        self.fc_norm = nn.LayerNorm(width, EPS) if pool == "mean" and num_classes else None
        last = nn.Linear(width, num_classes) if num_classes else None
        self.head = nn.Sequential(Norm1d(width, EPS, affine=False), last) if last is not None and head_norm else last
        self._begin(positions)
        if last is not None:
            nn.init.trunc_normal_(last.weight, std=0.01 if head_norm else 0.02)

    @torch.no_grad()
    def _begin(self, positions: str) -> None:
        """Random weights."""
        initialise(self, xavier)
        nn.init.normal_(self.cls_token, std=0.02)
        if positions == "learned":
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        else:
            table = sincos_table(self.pos_embed.shape[2], self.grid, rows_first=positions == "sincos-yx")
            self.pos_embed.copy_(table)

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (N, L, D) with their positions, row by row; and the class token with its own, (1, 1, D)."""
        grid = self.patch_embed(images)
        table = positions_at(self.pos_embed, self.grid, (grid.shape[2], grid.shape[3]))
        return grid.flatten(2).transpose(1, 2) + table[:, 1:], self.cls_token + table[:, :1]

    def tokens(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        """Class token and patches (N, 1 + L, D) behind the blocks, and behind the last norm where there is one."""
        patches, token = self.embed(images)
        x = torch.cat([token.expand(patches.shape[0], -1, -1), patches], 1)
        for block, keep in zip(self.blocks, self.scales(keys)):
            x = block(x, keep)
        return x if self.norm is None else self.norm(x)

    def features(self, x: Tensor, keys: Tensor | None = None) -> list[Tensor]:
        """The patches as one stage, [(N, D, H / P, W / P)], rounded up. keys: as `forward` takes them."""
        height, width = (-(-side // self.patch) for side in x.shape[2:])
        patches = self.tokens(x, keys)[:, 1:]
        return [patches.transpose(1, 2).reshape(x.shape[0], self.channels[0], height, width)]

    def scales(self, keys: Tensor | None) -> Iterator[tuple[Tensor | None, Tensor | None]]:
        """What each block's attention and MLP are multiplied by, (N, 1, 1), or None for 1."""
        if keys is None or self.drop_path == 0:
            return iter([(None, None)] * len(self.blocks))
        scales = drop_path_scales(keys, 2 * len(self.blocks), self.drop_path)[..., None, None].unbind()
        return zip(scales[::2], scales[1::2])

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Logits (N, num_classes). keys: (N, 2) int64, (seed, draw number) of each picture, in training with
        `drop_path`; None: nothing is left out."""
        if self.head is None:
            raise RuntimeError("this ViT was built without a classifier: use features(x)")
        tokens = self.tokens(x, keys)
        return self.head(tokens[:, 0] if self.fc_norm is None else self.fc_norm(tokens[:, 1:].mean(1)))


def _check(width: int, heads: int, patch: int, positions: str, pool: str, drop_path: float) -> None:
    if positions not in POSITIONS:
        raise ValueError(f"positions is {positions!r}; it can be " + ", ".join(map(repr, POSITIONS)))
    if pool not in POOLS:
        raise ValueError(f"pool is {pool!r}; it can be " + ", ".join(map(repr, POOLS)))
    if not 0 <= drop_path < 1:
        raise ValueError(f"drop_path is {drop_path}: it is a probability, at least 0 and below 1")
    if patch < 1:
        raise ValueError(f"patch is {patch}: a patch has at least one pixel")
    if heads < 1 or width % heads or width % 4:
        raise ValueError(f"a width of {width} is not divided by {heads} heads and by 4")


def sides_of(image_size: int | Sequence[int]) -> tuple[int, int]:
    """(H, W) of a side or a pair. Raises ValueError."""
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"image_size is {image_size!r}: give a side in pixels, or height and width")
    return sides[0], sides[1]


@torch.no_grad()
def xavier(weight: Tensor) -> Tensor:
    """Glorot and Bengio (2010), uniform; a convolution over patches is a linear layer."""
    return nn.init.xavier_uniform_(weight.flatten(1))


def tokens_at(x: Tensor, indices: Tensor) -> Tensor:
    """Of tokens (N, L, D) those at `indices` (N, M)."""
    return x.gather(1, indices[..., None].expand(-1, -1, x.shape[2]))


def positions_at(table: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """A table (1, 1 + h × w, D) of `grid` for another grid; the class token's stays."""
    if grid == wanted:
        return table
    cells = table[:, 1:].reshape(1, *grid, table.shape[2]).permute(0, 3, 1, 2).float()
    cells = F.interpolate(cells, wanted, mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([table[:, :1], cells.flatten(2).transpose(1, 2).to(table.dtype)], 1)


def sincos_table(width: int, grid: tuple[int, int], *, rows_first: bool = False) -> Tensor:
    """Sines and cosines of each cell's column (the first half) and row, (1, 1 + h × w, D); 0 for the class token.

    As MAE's code has it. rows_first: the halves the other way round, as MoCo v3's code has them.
    """
    quarter = width // 4
    speeds = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = (torch.arange(side, dtype=torch.float64)[:, None] * speeds for side in grid)
    along, down = (torch.cat([turns.sin(), turns.cos()], 1) for turns in (columns, rows))
    halves = [along.expand(grid[0], -1, -1), down[:, None].expand(-1, grid[1], -1)]
    cells = torch.cat(halves[::-1] if rows_first else halves, 2)
    return F.pad(cells.reshape(1, grid[0] * grid[1], width), (0, 0, 1, 0)).to(torch.get_default_dtype())


def heads_of(model: nn.Module) -> int:
    """Heads of attention, which no tensor shows; 0 of a network without any."""
    return next((module.heads for module in model.modules() if isinstance(module, Attention)), 0)


def vit(
    size: str,
    patch: int,
    num_classes: int | None = 1000,
    *,
    image_size: int | Sequence[int] = 224,
    in_channels: int = 3,
    positions: str = "learned",
    pool: str = "token",
    drop_path: float = 0.0,
    head_norm: bool = False,
    heads: int | None = None,
) -> ViT:
    """ViT "tiny" to "huge" with patches of `patch` pixels.

    image_size: side or (H, W) of the pictures whose grid the table of positions has; others are taken too. drop_path:
    probability with which the last block's MLP is left out. heads: of attention; None: as `SIZES` has it.
    """
    width, depth, usual = SIZES[size]
    return ViT(
        width,
        depth,
        usual if heads is None else heads,
        num_classes,
        patch=patch,
        image_size=image_size,
        in_channels=in_channels,
        positions=positions,
        pool=pool,
        drop_path=drop_path,
        head_norm=head_norm,
    )
