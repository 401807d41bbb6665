"""Masked autoencoders: He et al., "Masked Autoencoders Are Scalable Vision Learners" (2022), section 3, appendix A.1.

Letters and input as in `vit.py`; V visible patches, C channels. Three quarters of the patches are hidden, the encoder
sees the others alone, and a light decoder says what the hidden ones look like.
Deviations: which patches are hidden is drawn by keyed random numbers; visible ones stay in their order, which changes
rounding and nothing else; pictures need not be square. P must divide their sides: nobody should have to guess filling.
Parameter names are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracesight.errors import UserError
from tracesight.models.encode import Made
from tracesight.models.initialise import initialise
from tracesight.models.vit import EPS, SIZES, Attention, Block, ViT, positions_at, sincos_table, tokens_at, xavier
from tracesight.ops.collectives import mean_loss
from tracesight.ops.precision import full_precision
from tracesight.ops.random import keyed_uniform

# What only pretraining needs, as the names begin.
DECODER = ("mask_token", "decoder_")
_FLAT = 1e-6  # added to the variance of a patch, which may be of one colour


class Reconstruction(NamedTuple):
    """The picture with the hidden patches filled in (N, C, H, W); and where they are, (N, 1, H, W) bool."""

    images: Tensor
    hidden: Tensor


class MAE(ViT):
    """A ViT without classifier, and the decoder behind it, of `decoder` = (width, blocks, heads).

    hide: share of patches that are hidden. normalised: what is to be said of a patch is how its pixels differ from
    their mean, in deviations (section 3, "Reconstruction target").
    """

    views, accumulates = 1, True

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        patch: int = 16,
        image_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        decoder: tuple[int, int, int] = (512, 8, 16),
        hide: float = 0.75,
        normalised: bool = True,
    ) -> None:
        if not 0 < hide < 1:
            raise ValueError(f"hide is {hide}: it is a share of the patches, above 0 and below 1")
        super().__init__(
            width, depth, heads, None, patch=patch, image_size=image_size, in_channels=in_channels, positions="sincos"
        )
        self.hide, self.normalised = hide, normalised
        inner, blocks, inner_heads = decoder
        if inner % inner_heads or inner % 4:
            raise ValueError(f"a decoder's width of {inner} is not divided by {inner_heads} heads and by 4")
        self.decoder_embed = nn.Linear(width, inner)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, inner))
        self.decoder_pos_embed = nn.Parameter(sincos_table(inner, self.grid), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(Block(inner, inner_heads) for _ in range(blocks))
        self.decoder_norm = nn.LayerNorm(inner, EPS)
        self.decoder_pred = nn.Linear(inner, patch * patch * in_channels)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            initialise(part, xavier)
        nn.init.normal_(self.mask_token, std=0.02)

    def split(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Indices, ascending, of the patches with the least `noise` (N, L), which are seen; and of the hidden ones."""
        count = max(1, int(noise.shape[1] * (1 - self.hide)))
        order = noise.argsort(dim=1, stable=True)
        return order[:, :count].sort(dim=1).values, order[:, count:].sort(dim=1).values

    def encode(self, images: Tensor, visible: Tensor) -> Tensor:
        """Class token and visible patches behind the encoder, (N, 1 + V, D) ("MAE encoder")."""
        # The hidden ones are not even projected: over patches the convolution is a linear layer.
        weight, bias = self.patch_embed.proj.weight, self.patch_embed.proj.bias
        pixels = tokens_at(to_patches(images, self.patch), visible)
        table = positions_at(self.pos_embed, self.grid, self._grid_of(images))
        seen = F.linear(pixels, weight.permute(0, 2, 3, 1).flatten(1), bias)
        seen = seen + tokens_at(table[:, 1:].expand(images.shape[0], -1, -1), visible)
        x = torch.cat([(self.cls_token + table[:, :1]).expand(images.shape[0], -1, -1), seen], 1)
        for block in self.blocks:
            x = block(x)
        assert self.norm is not None
        return self.norm(x)

    def decode(self, latent: Tensor, visible: Tensor, hidden: Tensor, grid: tuple[int, int]) -> Tensor:
        """What the hidden patches look like, (N, L - V, P × P × C) ("MAE decoder")."""
        x = self.decoder_embed(latent)
        n, inner = x.shape[0], x.shape[2]
        patches = self.mask_token.to(x.dtype).expand(n, grid[0] * grid[1], inner)
        patches = patches.scatter(1, visible[..., None].expand(-1, -1, inner), x[:, 1:])
        x = torch.cat([x[:, :1], patches], 1) + positions_at(self.decoder_pos_embed, self.grid, grid)
        # The loss asks for the hidden ones alone, so the last block answers for no others.
        *blocks, last = self.decoder_blocks
        for block in blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(last(x, only=hidden + 1)))

    def predict(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What the hidden patches look like (N, L - V, P × P × C), and their indices (N, L - V), ascending.

        noise: (N, L), the visible patches are those with the least. Raises UserError: P does not divide the pictures.
        """
        grid = self._grid_of(images)
        visible, hidden = self.split(noise)
        return self.decode(self.encode(images, visible), visible, hidden, grid), hidden

    def noise(self, images: Tensor, keys: Tensor) -> Tensor:
        """Uniform numbers (N, L) of keys (N, 2) int64, (seed, draw number) of each picture."""
        height, width = self._grid_of(images)
        return keyed_uniform(keys, "mask", height * width)

    def forward(self, images: Tensor, keys: Tensor) -> Made:
        """Losses {"loss_reconstruction": scalar}, the mean over hidden patches of pictures (N, C, H, W)."""
        said, hidden = self.predict(images, self.noise(images, keys))
        return Made({"loss_reconstruction": self.loss(images, said, hidden)})

    def pretrained(self) -> dict[str, Tensor]:
        """The tensors of the encoder that is kept: a ViT's without classifier."""
        return encoder_state(self.state_dict())

    def loss(self, images: Tensor, said: Tensor, hidden: Tensor) -> Tensor:
        """Mean squared error over the hidden patches ("Reconstruction target"), over all ranks; float32."""
        target = tokens_at(full_precision(to_patches(images, self.patch)), hidden)
        if self.normalised:
            mean, deviation = _spread(target)
            target = (target - mean) / deviation
        errors = (full_precision(said) - target).square().mean(2)
        return mean_loss(errors.sum(), torch.ones_like(errors).sum())

    @torch.no_grad()
    def reconstruct(self, images: Tensor, keys: Tensor) -> Reconstruction:
        """Pictures (N, C, H, W) with their hidden patches filled in; visible ones stay as they are.

        Where the network was taught differences from each patch's mean in deviations, it does not say what these are:
        they are the true patch's.
        """
        return self.filled(images, *self.predict(images, self.noise(images, keys)))

    @torch.no_grad()
    def filled(self, images: Tensor, said: Tensor, hidden: Tensor) -> Reconstruction:
        """Pictures with their hidden patches as they are said to be; `said` and `hidden` as `predict` gives them."""
        patches, grid = to_patches(images, self.patch), self._grid_of(images)
        if self.normalised:
            mean, deviation = _spread(tokens_at(patches, hidden))
            said = said * deviation + mean
        filled = patches.scatter(1, hidden[..., None].expand_as(said), said.to(patches.dtype))
        cells = torch.zeros(patches.shape[:2], dtype=torch.bool, device=images.device).scatter(1, hidden, True)
        where = cells.view(-1, 1, *grid).repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        return Reconstruction(to_pictures(filled, self.patch, grid), where)

    def _grid_of(self, images: Tensor) -> tuple[int, int]:
        height, width = images.shape[2], images.shape[3]
        if height % self.patch or width % self.patch:
            raise UserError(
                f"pictures of {height} x {width} pixels: their sides must be multiples of the patch's {self.patch}"
            )
        return height // self.patch, width // self.patch


def _spread(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch, (N, L, 1)."""
    return patches.mean(2, keepdim=True), (patches.var(2, keepdim=True) + _FLAT).sqrt()


def to_patches(images: Tensor, patch: int) -> Tensor:
    """(N, C, H, W) to (N, L, P × P × C): patches row by row, in each the pixels row by row, channels last."""
    n, channels, height, width = images.shape
    cells = images.reshape(n, channels, height // patch, patch, width // patch, patch).permute(0, 2, 4, 3, 5, 1)
    return cells.reshape(n, (height // patch) * (width // patch), patch * patch * channels)


def to_pictures(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """The way back, (N, C, h × P, w × P)."""
    n, channels = patches.shape[0], patches.shape[2] // (patch * patch)
    cells = patches.reshape(n, *grid, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
    return cells.reshape(n, channels, grid[0] * patch, grid[1] * patch)


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a ViT without classifier, out of a MAE's."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(DECODER)}


def mae_vit(
    size: str,
    patch: int,
    num_classes: None = None,
    *,
    image_size: int | Sequence[int] = 224,
    in_channels: int = 3,
    decoder: tuple[int, int, int] = (512, 8, 16),
    hide: float = 0.75,
    normalised: bool = True,
    heads: int | None = None,
) -> MAE:
    """MAE on a ViT "tiny" to "huge" with patches of `patch` pixels; the decoder's 8 blocks of 512 are the paper's."""
    width, depth, usual = SIZES[size]
    return MAE(
        width,
        depth,
        usual if heads is None else heads,
        patch=patch,
        image_size=image_size,
        in_channels=in_channels,
        decoder=decoder,
        hide=hide,
        normalised=normalised,
    )


def mae_on(
    encoder: Callable[[], nn.Module],
    *,
    decoder: tuple[int, int, int] = (512, 8, 16),
    hide: float = 0.75,
    normalised: bool = True,
) -> MAE:
    """MAE whose encoder is as large as the ViT that `encoder` makes. Raises ValueError: that makes another network."""
    like = encoder()
    if not isinstance(like, ViT):
        raise ValueError("it hides patches: choose a vision transformer, such as vit_base_patch16")
    first = like.blocks[0].attn
    assert isinstance(first, Attention)
    return MAE(
        like.channels[0],
        len(like.blocks),
        first.heads,
        patch=like.patch,
        image_size=(like.grid[0] * like.patch, like.grid[1] * like.patch),
        in_channels=like.patch_embed.proj.in_channels,
        decoder=decoder,
        hide=hide,
        normalised=normalised,
    )
