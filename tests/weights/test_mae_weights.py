from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tracesight as ts
from tracesight.cli import _status as main_status
from tracesight.errors import UserError
from tracesight.models.mae import mae_vit
from tracesight.weights.mae import from_tracesight


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    """A whole file's state: ViT-Ti/4 and a small decoder, under the authors' names; the catalogue has larger ones."""
    torch.manual_seed(0)
    return mae_vit("tiny", 4, image_size=32, decoder=(16, 1, 2)).state_dict()


def test_an_encoder_of_a_whole_file_and_of_its_own(whole, tmp_path: Path) -> None:
    torch.save({"model": whole, "epoch": 3}, tmp_path / "full.pth")
    encoder = ts.build("vit_tiny_patch4", 0)
    receipt = ts.load_weights(encoder, tmp_path / "full.pth", source="mae")
    assert receipt.new == () and "CC BY-NC" in receipt.licence
    assert {name.split("_")[0] for name in receipt.dropped} == {"mask", "decoder"}
    assert len(receipt.matched) + len(receipt.dropped) == len(whole)
    back = from_tracesight(encoder.state_dict())
    assert back.keys() == set(receipt.matched) and all(torch.equal(back[name], whole[name]) for name in back)
    again = ts.build("vit_tiny_patch4", 0)
    assert ts.load_weights(again, back, source="mae").dropped == ()


def test_a_classifier_is_fine_tuned_from_it(whole) -> None:
    with pytest.raises(UserError, match=r"build the model with num_classes=0, or leave .* skip=\('head',\)"):
        ts.load_weights(ts.build("vit_tiny_patch4"), whole, source="mae")
    model: Any = ts.build("vit_tiny_patch4", 7)
    receipt = ts.load_weights(model, whole, source="mae", skip=("head",))
    assert receipt.new == ("head.weight", "head.bias")
    assert torch.equal(model.blocks[3].attn.qkv.weight, whole["blocks.3.attn.qkv.weight"])


def test_a_fine_tuned_classifier_is_known_by_its_tensors(tmp_path: Path) -> None:
    """The authors' fine-tuned networks are timm's with a mean over the patches: `fc_norm` and `head`, and no `norm`."""
    import timm

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"img_size": 48, "patch_size": 4, "embed_dim": 192, "num_heads": 3, "num_classes": 7}
    theirs = timm.models.VisionTransformer(**sizes, global_pool="avg").eval()
    for parameter in theirs.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    torch.save({"model": theirs.state_dict(), "epoch": 99}, tmp_path / "finetuned.pth")
    words = ["weights", "import", str(tmp_path / "finetuned.pth"), "--source", "mae", "--model", "vit_tiny_patch4"]
    assert main_status([*words, "--out", str(tmp_path / "bundle")]) == 0
    bundle = ts.load(tmp_path / "bundle")
    assert (bundle.task, len(bundle.categories), bundle.preprocessing["image_size"]) == ("classify", 7, 48)
    assert bundle.spec["args"]["pool"] == "mean" and "CC BY-NC" in bundle.lineage["weights"]["licence"]
    images = torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        logits = bundle.model(images)
        assert logits.std() > 0.1 and torch.allclose(logits, theirs(images), rtol=0, atol=1e-5)
    back = from_tracesight(bundle.model.state_dict())
    assert all(torch.equal(tensor, back[name]) for name, tensor in theirs.state_dict().items())
    with pytest.raises(UserError, match=r"'fc_norm\.weight' of the checkpoint has no place .* with pool='mean'"):
        ts.load_weights(ts.build("vit_tiny_patch4", 7, image_size=48), theirs.state_dict(), source="mae")


def test_other_files_are_refused(whole) -> None:
    with pytest.raises(UserError, match="'cls_token' is missing"):
        ts.load_weights(ts.build("vit_tiny_patch4", 0), ts.build("resnet18").state_dict(), source="mae")
    with pytest.raises(UserError, match="source 'mae' has no weights for resnet18"):
        ts.load_weights(ts.build("resnet18"), whole, source="mae")
    with pytest.raises(UserError, match=r"'decoder_embed\.weight' of the model is missing|has shape"):
        ts.load_weights(ts.build("mae_vit_base_patch16"), whole, source="mae")


def test_timms_vit_both_ways_says_what_pictures_it_wants() -> None:
    import timm

    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 4, "embed_dim": 192, "num_heads": 3, "num_classes": 10}
    theirs = timm.models.VisionTransformer(**sizes)
    ours = ts.build("vit_tiny_patch4")
    receipt = ts.load_weights(ours, theirs.state_dict(), source="timm")
    assert receipt.dropped == receipt.new == () and "want 0.5 and 0.5" in receipt.notes[0]
    back = timm.models.VisionTransformer(**sizes)
    back.load_state_dict(ours.state_dict(), strict=True)
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in back.state_dict().items())
