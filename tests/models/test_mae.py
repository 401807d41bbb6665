"""Masked autoencoding beside an implementation of its own, after the paper's section 3 and appendix A.1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tracesight.errors import UserError
from tracesight.models.build import build
from tracesight.models.mae import MAE, encoder_state, to_patches, to_pictures
from tracesight.models.vit import ViT
from tracesight.ops.random import keyed_uniform

KEYS = torch.tensor([[3, 0], [3, 1], [4, 0]])


def small(normalised: bool = True) -> MAE:
    torch.manual_seed(0)
    model = MAE(
        16, 2, 2, patch=4, image_size=(16, 24), in_channels=2, decoder=(12, 2, 3), normalised=normalised
    )  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.05, 0.3)
    return model


def block(w: dict[str, Tensor], name: str, x: Tensor, heads: int) -> Tensor:
    """One block on the tokens of one picture (L, D)."""
    width = x.shape[1]

    def norm(which: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (width,), w[f"{name}.{which}.weight"], w[f"{name}.{which}.bias"], 1e-6)

    def linear(which: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.{which}.weight"].T + w[f"{name}.{which}.bias"]

    q, k, v = linear("attn.qkv", norm("norm1", x)).split(width, 1)
    size = width // heads
    found = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        found.append(torch.softmax(q[:, part] @ k[:, part].T / size**0.5, 1) @ v[:, part])
    x = x + linear("attn.proj", torch.cat(found, 1))
    return x + linear("mlp.fc2", F.gelu(linear("mlp.fc1", norm("norm2", x))))


def by_hand(w: dict[str, Tensor], image: Tensor, noise: Tensor, normalised: bool) -> tuple[Tensor, Tensor]:
    """Loss and reconstruction of one picture (C, H, W) with patches of 4 pixels; both networks after section 3.

    As the authors' figure 1 has it: shuffle by noise, keep the first quarter, unshuffle behind the encoder.
    """
    rows, columns = image.shape[1] // 4, image.shape[2] // 4
    cut = [image[:, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4] for r in range(rows) for c in range(columns)]
    projection = w["patch_embed.proj.weight"].flatten(1)
    patches = torch.stack([projection @ p.flatten() + w["patch_embed.proj.bias"] for p in cut])
    patches = patches + w["pos_embed"][0, 1:]
    order = noise.argsort()
    kept = order[: int(len(cut) * 0.25)]
    x = torch.cat([w["cls_token"][0] + w["pos_embed"][0, :1], patches[kept]])
    for number in range(2):
        x = block(w, f"blocks.{number}", x, 2)
    x = F.layer_norm(x, (16,), w["norm.weight"], w["norm.bias"], 1e-6)
    x = x @ w["decoder_embed.weight"].T + w["decoder_embed.bias"]
    shuffled = torch.cat([x[1:], w["mask_token"][0].expand(len(cut) - len(kept), -1)])
    x = torch.cat([x[:1], shuffled[order.argsort()]]) + w["decoder_pos_embed"][0]
    for number in range(2):
        x = block(w, f"decoder_blocks.{number}", x, 3)
    x = F.layer_norm(x, (12,), w["decoder_norm.weight"], w["decoder_norm.bias"], 1e-6)
    said = (x @ w["decoder_pred.weight"].T + w["decoder_pred.bias"])[1:]
    total, filled = torch.zeros(()), image.clone()
    for index in order[len(kept) :].tolist():
        true = cut[index].permute(1, 2, 0).flatten()
        mean, deviation = (true.mean(), (true.var() + 1e-6).sqrt()) if normalised else (0.0, 1.0)
        total = total + ((said[index] - (true - mean) / deviation) ** 2).mean()
        pixels = (said[index] * deviation + mean).reshape(4, 4, -1).permute(2, 0, 1)
        r, c = divmod(index, columns)
        filled[:, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4] = pixels
    return total / (len(cut) - len(kept)), filled


@pytest.mark.parametrize("normalised", [True, False])
def test_loss_gradients_and_reconstruction_by_hand(normalised):
    model = small(normalised)
    images = torch.randn(3, 2, 16, 24)
    noise = keyed_uniform(KEYS, "mask", 24)
    weights = {name: p.detach().clone().requires_grad_(p.requires_grad) for name, p in model.named_parameters()}
    pairs = [by_hand(weights, image, row, normalised) for image, row in zip(images, noise)]
    expected = torch.stack([loss for loss, _ in pairs]).mean()
    loss = model(images, KEYS).losses["loss_reconstruction"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    made = model.reconstruct(images, KEYS)
    assert torch.allclose(made.images, torch.stack([filled for _, filled in pairs]).detach(), rtol=0, atol=1e-5)
    assert made.hidden.shape == (3, 1, 16, 24) and made.hidden.float().mean() == 0.75
    seen = ~made.hidden.expand_as(images)
    assert torch.equal(made.images[seen], images[seen]) and not torch.equal(made.images, images)
    loss.backward()
    expected.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            theirs = weights[name].grad
            assert theirs is not None and parameter.grad is not None
            assert (parameter.grad - theirs).norm() <= 1e-5 * theirs.norm() + 1e-6, name
    assert model.pos_embed.grad is None and model.decoder_pos_embed.grad is None


def test_what_is_hidden_belongs_to_the_picture():
    model = small()
    images = torch.randn(3, 2, 16, 24)
    hidden = model.reconstruct(images, KEYS).hidden
    assert torch.equal(model.reconstruct(images.flip(0), KEYS.flip(0)).hidden.flip(0), hidden)
    assert not torch.equal(hidden[0], hidden[1]) and not torch.equal(hidden[0], hidden[2])


def test_another_grid_than_the_one_it_was_built_for():
    model = small()
    made = model.reconstruct(torch.randn(1, 2, 32, 8), KEYS[:1])
    assert made.images.shape == (1, 2, 32, 8) and made.images.isfinite().all()
    with pytest.raises(UserError, match=r"pictures of 16 x 22 pixels: .* multiples of the patch's 4"):
        model(torch.randn(1, 2, 16, 22), KEYS[:1])


def test_patches_and_back():
    images = torch.arange(2 * 3 * 8 * 12.0).view(2, 3, 8, 12)
    patches = to_patches(images, 4)
    assert patches.shape == (2, 6, 48)
    assert torch.equal(patches[1, 4].view(4, 4, 3), images[1, :, 4:8, 4:8].permute(1, 2, 0))
    assert torch.equal(to_pictures(patches, 4, (2, 3)), images)


def test_it_learns_and_its_encoder_is_a_vit():
    torch.manual_seed(0)
    model = MAE(16, 2, 2, patch=4, image_size=16, in_channels=1, decoder=(16, 1, 2))
    rows = torch.linspace(-1, 1, 16)
    images = torch.stack([rows.view(1, 16, 1).expand(1, 16, 16), rows.view(1, 1, 16).expand(1, 16, 16)])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(80):
        keys = torch.tensor([[0, 2 * step], [0, 2 * step + 1]])
        loss = model(images, keys).losses["loss_reconstruction"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 0.8 and sum(losses[-10:]) / 10 < 0.4
    encoder = ViT(16, 2, 2, None, patch=4, image_size=16, in_channels=1)
    encoder.load_state_dict(encoder_state(model.state_dict()), strict=True)
    assert torch.equal(encoder.features(images)[0], model.features(images)[0])


def test_a_share_that_hides_all_is_refused():
    with pytest.raises(UserError, match="hide is 1: it is a share"):
        build("mae_vit_base_patch16", hide=1)
