from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from tracesight.errors import UserError
from tracesight.models.build import build
from tracesight.models.vit import ViT, positions_at, sincos_table
from tracesight.ops.attention import FORMS, attention


def pair(pool: str = "token") -> tuple[Any, Any]:
    """Ours and timm's of one size, for pictures of 48 × 32, with the same random weights, none of which is 0."""
    torch.manual_seed(0)
    ours = ViT(32, 3, 4, 5, patch=8, image_size=(48, 32), in_channels=2, pool=pool).eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, 0.1, 0.2)
    theirs: Any = timm.models.VisionTransformer(
        img_size=(48, 32), patch_size=8, in_chans=2, num_classes=5, embed_dim=32, depth=3, num_heads=4,
        global_pool="avg" if pool == "mean" else "token", dynamic_img_size=True, dynamic_img_pad=True,
    ).eval()  # fmt: skip
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("pool", ["token", "mean"])
@pytest.mark.parametrize("size", [(48, 32), (40, 56), (21, 70)])
def test_logits_and_gradients_are_timms_at_any_size(pool, size):
    ours, theirs = pair(pool)
    images = torch.randn(2, 2, *size)
    logits, expected = ours(images), theirs(images)
    assert expected.std() > 0.1
    assert torch.allclose(logits, expected, rtol=0, atol=1e-5)
    logits.square().sum().backward()
    expected.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert (parameter.grad - gradients[name]).norm() <= 1e-5 * gradients[name].norm() + 1e-6, name


def test_features_are_the_patches_as_a_map():
    ours, theirs = pair()
    images = torch.randn(2, 2, 41, 56)
    (stage,) = ours.features(images)
    assert stage.shape == (2, 32, 6, 7)
    assert torch.allclose(stage.flatten(2).mT, theirs.forward_features(images)[:, 1:], rtol=0, atol=1e-5)


def test_both_forms_of_attention_are_equal():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 9, 8, dtype=torch.float64)
    by_hand = torch.softmax(torch.einsum("nhid,nhjd->nhij", q, k) / 8**0.5, 3) @ v
    for form in FORMS:
        assert torch.allclose(attention(q, k, v, form), by_hand, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="form is 'quick'"):
        attention(q, k, v, "quick")


def test_positions_of_another_grid():
    table = sincos_table(8, (2, 3))
    # Row 1, column 2: sines and cosines of the column times 1 and 1/100, then of the row.
    angles = torch.tensor([2.0, 0.02]), torch.tensor([1.0, 0.01])
    expected = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())])
    assert torch.allclose(table[0, 1 + 1 * 3 + 2], expected) and not table[0, 0].any()
    assert positions_at(table, (2, 3), (2, 3)) is table
    larger = positions_at(table, (2, 3), (5, 4))
    cells = table[:, 1:].view(1, 2, 3, 8).permute(0, 3, 1, 2)
    upward = F.interpolate(cells, (5, 4), mode="bicubic", antialias=True).flatten(2).mT
    assert torch.equal(larger, torch.cat([table[:, :1], upward], 1))


def test_blocks_are_left_out_by_key():
    torch.manual_seed(0)
    model = ViT(16, 4, 2, 3, patch=4, image_size=8, drop_path=0.9)
    images = torch.randn(6, 3, 8, 8)
    keys = torch.stack([torch.full((6,), 7), torch.arange(6)], 1)
    dropped, whole = model(images, keys), model(images)
    assert not torch.allclose(dropped, whole, atol=1e-3)
    # Of the picture, and not of its place in the batch.
    assert torch.allclose(model(images.flip(0), keys.flip(0)).flip(0), dropped, atol=1e-5)
    assert torch.equal(model(images), whole)


def test_fixed_positions_do_not_learn_and_an_encoder_has_no_classifier():
    model: Any = build("vit_tiny_patch4", 0, positions="sincos", pool="mean")
    assert not model.pos_embed.requires_grad and torch.equal(model.pos_embed, sincos_table(192, (8, 8)))
    assert model.small and model.head is None and model.features(torch.rand(1, 3, 32, 32))[0].shape == (1, 192, 8, 8)
    with pytest.raises(RuntimeError, match="without a classifier"):
        model(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"positions": "fixed"}, "positions is 'fixed'; it can be 'learned', 'sincos'"),
        ({"pool": "max"}, "pool is 'max'"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"image_size": [32]}, r"image_size is \[32\]"),
        ({"norm": "group"}, "has no argument 'norm'"),
    ],
)
def test_wrong_arguments_are_named(args, said):
    with pytest.raises(UserError, match=said):
        build("vit_tiny_patch4", 3, **args)
