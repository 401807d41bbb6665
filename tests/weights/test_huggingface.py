"""Hugging Face's ViT and ViTMAE: names of both versions, and figures that transformers gives, with it and without.

`FIGURES` are transformers' own (5.24.0), which the last tests find again where it is installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import tracesight as ts
from tracesight.cli import _status as main_status
from tracesight.errors import UserError
from tracesight.weights.huggingface import from_tracesight

WIDTH, DECODER = 192, 16
LAYER = {
    "layernorm_before": "norm",
    "attention.attention.query": (1, 1),
    "attention.attention.key": (1, 1),
    "attention.attention.value": (1, 1),
    "attention.output.dense": (1, 1),
    "layernorm_after": "norm",
    "intermediate.dense": (4, 1),
    "output.dense": (1, 4),
}
# How transformers 5 renames the hub's names in memory (its conversion_mapping.py).
RENAMED = {
    "encoder.layer.": "layers.",
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
# By (norm_pix_loss, layer_norm_eps): loss, and the mean square of what is said of the hidden patches.
FIGURES = {
    (True, 1e-12): (1.0501881, 0.0674441),
    (False, 1e-12): (0.5668228, 0.0674441),
    (False, 1e-6): (0.5668216, 0.0674419),
}
CONVENTIONS = {1e-12: "huggingface", 1e-6: "torchvision"}


def shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """The hub's names of a ViT-Ti/4 for 32 pixels: "classifier" of 7 classes, or "whole" MAE with a small decoder."""

    def layer(width: int) -> dict[str, tuple[int, ...]]:
        sizes: dict[str, tuple[int, ...]] = {}
        for part, times in LAYER.items():
            out = width if times == "norm" else width * times[0]
            sizes[f"{part}.weight"] = (out,) if times == "norm" else (out, width * times[1])
            sizes[f"{part}.bias"] = (out,)
        return sizes

    found: dict[str, tuple[int, ...]] = {
        "vit.embeddings.cls_token": (1, 1, WIDTH),
        "vit.embeddings.position_embeddings": (1, 65, WIDTH),
        "vit.embeddings.patch_embeddings.projection.weight": (WIDTH, 3, 4, 4),
        "vit.embeddings.patch_embeddings.projection.bias": (WIDTH,),
    }
    for number in range(12):
        found |= {f"vit.encoder.layer.{number}.{name}": shape for name, shape in layer(WIDTH).items()}
    found |= {"vit.layernorm.weight": (WIDTH,), "vit.layernorm.bias": (WIDTH,)}
    if kind == "classifier":
        return {**found, "classifier.weight": (7, WIDTH), "classifier.bias": (7,)}
    found |= {"decoder.mask_token": (1, 1, DECODER), "decoder.decoder_pos_embed": (1, 65, DECODER)}
    found |= {"decoder.decoder_embed.weight": (DECODER, WIDTH), "decoder.decoder_embed.bias": (DECODER,)}
    found |= {f"decoder.decoder_layers.0.{name}": shape for name, shape in layer(DECODER).items()}
    found |= {"decoder.decoder_norm.weight": (DECODER,), "decoder.decoder_norm.bias": (DECODER,)}
    return {**found, "decoder.decoder_pred.weight": (48, DECODER), "decoder.decoder_pred.bias": (48,)}


def numbers(count: int, begin: float) -> Tensor:
    """`count` numbers between -1 and 1 that depend on nothing else."""
    return torch.sin(torch.arange(count, dtype=torch.float64).square() * 0.37 + begin).float()


def hub(kind: str) -> dict[str, Tensor]:
    """A state as the hub has it; small at the beginning, so that layer norm's eps matters."""
    state = {}
    for index, (name, shape) in enumerate(shapes(kind).items()):
        tensor = numbers(int(torch.tensor(shape).prod()), index).view(shape)
        state[name] = 1 + 0.2 * tensor if "norm" in name and "weight" in name else 0.1 * tensor
        if "embeddings" in name:
            state[name] = 0.02 * tensor
    return state


def given() -> tuple[Tensor, Tensor]:
    """Pictures (2, 3, 32, 32) and noise (2, 64)."""
    noise = torch.stack([torch.arange(64) * 37 % 101, torch.arange(64) * 53 % 103]) / 103
    return numbers(2 * 3 * 32 * 32, 0.5).view(2, 3, 32, 32), noise


def mae(eps: float = 1e-12, normalised: bool = True) -> Any:
    return ts.build("mae_vit_tiny_patch4", decoder=(DECODER, 1, 2), normalised=normalised, conventions=CONVENTIONS[eps])


def ours(state: dict[str, Tensor], normalised: bool, eps: float) -> tuple[float, Tensor]:
    """Loss, and what is said of the hidden patches, (2, 48, 48)."""
    model = mae(eps, normalised)
    ts.load_weights(model, state, source="huggingface", conventions=CONVENTIONS[eps])
    images, noise = given()
    with torch.inference_mode():
        said, hidden = model.predict(images, noise)
        return model.loss(images, said, hidden).item(), said


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    return hub("whole")


@pytest.fixture(scope="module")
def classifier() -> dict[str, Tensor]:
    return hub("classifier")


@pytest.mark.parametrize("figures", FIGURES)
def test_loss_and_patches_are_those_that_transformers_gave(whole, figures) -> None:
    loss, said = ours(whole, *figures)
    expected, power = FIGURES[figures]
    assert loss == pytest.approx(expected, rel=1e-5)
    assert said.square().mean().item() == pytest.approx(power, rel=1e-5)


def test_a_whole_mae_under_both_versions_names_and_back(whole) -> None:
    model = mae()
    receipt = ts.load_weights(model, whole, source="huggingface")
    assert (
        receipt.conventions == "huggingface" and receipt.dropped == receipt.new == () and "CC BY-NC" in receipt.licence
    )
    assert "norm_pix_loss" in receipt.notes[0] and len(receipt.matched) == len(model.state_dict())
    queries = whole["vit.encoder.layer.3.attention.attention.query.weight"]
    assert torch.equal(model.blocks[3].attn.qkv.weight[:WIDTH], queries)
    back = from_tracesight(model.state_dict())
    assert back.keys() == whole.keys() and all(torch.equal(back[name], whole[name]) for name in back)
    newer = {}
    for name, tensor in whole.items():
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        newer[name] = tensor
    again = mae()
    ts.load_weights(again, newer, source="huggingface")
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_an_encoder_of_a_whole_mae_and_of_a_file_without_prefix(whole) -> None:
    encoder = ts.build("vit_tiny_patch4", 0, conventions="huggingface")
    receipt = ts.load_weights(encoder, whole, source="huggingface")
    assert {name.split(".")[0].split("_")[0] for name in receipt.dropped} == {"mask", "decoder"}
    bare = {name.removeprefix("vit."): tensor for name, tensor in from_tracesight(encoder.state_dict()).items()}
    bare |= {"pooler.dense.weight": torch.zeros(WIDTH, WIDTH), "pooler.dense.bias": torch.zeros(WIDTH)}
    again = ts.build("vit_tiny_patch4", 0, conventions="huggingface")
    receipt = ts.load_weights(again, bare, source="huggingface")
    assert receipt.dropped == ("pooler.dense.weight", "pooler.dense.bias") and "0.5 and 0.5" in receipt.notes[0]
    assert torch.equal(again.features(given()[0])[0], encoder.features(given()[0])[0])


def test_a_file_becomes_a_bundle_as_its_tensors_show(classifier, tmp_path: Path, capsys) -> None:
    save_file(classifier, tmp_path / "model.safetensors")
    words = ["weights", "import", str(tmp_path / "model.safetensors"), "--source", "huggingface"]
    assert main_status([*words, "--model", "vit_tiny_patch4", "--out", str(tmp_path / "bundle")]) == 0
    bundle = ts.load(tmp_path / "bundle")
    assert (bundle.task, len(bundle.categories), bundle.spec["conventions"]) == ("classify", 7, "huggingface")
    # A training goes on with the same eps.
    assert bundle.model.blocks[0].norm1.eps == 1e-12
    assert main_status([*words, "--model", "resnet18", "--out", str(tmp_path / "b")]) == 2
    assert "source 'huggingface' has no weights for resnet18" in capsys.readouterr().err


def test_the_files_beside_it_say_what_no_tensor_shows(classifier, whole, tmp_path: Path, capsys) -> None:
    save_file(classifier, tmp_path / "model.safetensors")
    config: dict[str, Any] = {"model_type": "vit", "num_attention_heads": 3, "layer_norm_eps": 1e-6}
    config["id2label"] = {str(number): f"kind {number}" for number in range(7)}
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.4, 0.5, 0.6]}')

    def imported(config: dict[str, Any], model: str = "vit_tiny_patch4") -> tuple[int, str]:
        (tmp_path / "config.json").write_text(json.dumps(config))
        words = ["weights", "import", str(tmp_path / "model.safetensors"), "--source", "huggingface"]
        status = main_status([*words, "--model", model, "--out", str(tmp_path / model)])
        out, err = capsys.readouterr()
        return status, out + err

    status, said = imported(config)
    assert status == 0 and "read beside it: config.json, preprocessor_config.json" in said and "0.5 and" not in said
    bundle = ts.load(tmp_path / "vit_tiny_patch4")
    assert bundle.spec["conventions"] == "torchvision" and bundle.categories[6] == "kind 6"
    assert bundle.preprocessing["std"] == pytest.approx([0.4, 0.5, 0.6])
    for key, value, wrong in (
        ("num_attention_heads", 12, "num_attention_heads=12, and vit_tiny_patch4 has 3"),
        ("hidden_act", "relu", "hidden_act is 'relu'"),
        ("layer_norm_eps", 1e-5, "layer_norm_eps is 1e-05"),
        ("id2label", {"0": "a"}, "names 1 classes in id2label, and the checkpoint has 7"),
        ("id2label", [], "config.json or preprocessor_config.json is not transformers'"),
        ("model_type", "deit", "model_type is 'deit'"),
    ):
        status, said = imported({**config, key: value})
        assert status == 2 and wrong in said and said.count("\n") == 1
    save_file(whole, tmp_path / "model.safetensors")
    sizes = {"decoder_hidden_size": DECODER, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    status, said = imported({"model_type": "vit_mae", "num_attention_heads": 3, **sizes}, "mae_vit_tiny_patch4")
    assert status == 0 and "norm_pix_loss" not in said
    args = ts.load(tmp_path / "mae_vit_tiny_patch4").spec["args"]
    assert (args["decoder"], args["normalised"], args["hide"]) == ([DECODER, 1, 2], False, 0.75)


def test_what_does_not_fit_is_named_in_one_line(whole, classifier) -> None:
    query, key = (f"vit.encoder.layer.2.attention.attention.{one}" for one in ("query", "key"))
    without = {name: tensor for name, tensor in classifier.items() if name != f"{key}.weight"}
    narrow = {**classifier, f"{key}.weight": torch.zeros(64, WIDTH)}
    no_bias = {n: t for n, t in classifier.items() if not n.endswith(("query.bias", "key.bias", "value.bias"))}
    wrong: list[tuple[str, dict[str, Tensor], str]] = [
        ("vit_tiny_patch4", without, rf"'{key}\.weight' is missing, though '{query}\.weight' is there"),
        ("vit_tiny_patch4", narrow, r"shape \(64, 192\), and .* equal"),
        ("vit_tiny_patch4", no_bias, r"'blocks\.0\.attn\.qkv\.bias' of the model is missing .*11 more"),
        ("vit_tiny_patch4", ts.build("resnet18").state_dict(), r"'vit\.embeddings\.cls_token' is missing: this is no"),
        ("vit_tiny_patch4", {**classifier, "deit.x": torch.zeros(1)}, r"'deit\.x' of the checkpoint has no place"),
        ("vit_tiny_patch4", {**classifier, "layernorm.bias": torch.zeros(1)}, r"'layernorm\.bias' is there a second"),
        ("vit_tiny_patch4", whole, r"'head\.weight' of the model is missing .* build the model with num_classes=0"),
        ("vit_tiny_patch8", classifier, r"'pos_embed' has shape \(1, 65, 192\)"),
    ]
    names = {name for name, _, _ in wrong}
    models = {name: ts.build(name, 7, conventions="huggingface") for name in names}
    for name, state, said in wrong:
        with pytest.raises(UserError, match=said) as caught:
            ts.load_weights(models[name], state, source="huggingface")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="conventions 'huggingface', the model was built with 'tracesight'"):
        ts.load_weights(ts.build("vit_tiny_patch4", 7), classifier, source="huggingface")
    with pytest.raises(UserError, match=r"'fc_norm\.weight' has no place in a ViT .* pool='token' here"):
        from_tracesight(ts.build("vit_tiny_patch4", 7, pool="mean").state_dict())


@pytest.mark.parametrize(("normalised", "eps"), [(True, 1e-12), (False, 1e-12), (False, 1e-6)])
def test_transformers_mae_says_the_same(whole, normalised, eps, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
    config = transformers.ViTMAEConfig(
        hidden_size=WIDTH, num_attention_heads=3, intermediate_size=4 * WIDTH, image_size=32, patch_size=4,
        decoder_hidden_size=DECODER, decoder_num_attention_heads=2, decoder_num_hidden_layers=1,
        decoder_intermediate_size=4 * DECODER, norm_pix_loss=normalised, layer_norm_eps=eps,
    )  # fmt: skip
    model = mae()
    ts.load_weights(model, whole, source="huggingface")
    config.save_pretrained(tmp_path)
    save_file(from_tracesight(model.state_dict()), tmp_path / "model.safetensors", {"format": "pt"})
    theirs, about = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(about[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    images, noise = given()
    with torch.inference_mode():
        made = theirs.eval()(images, noise=noise)
    loss, said = ours(theirs.state_dict(), normalised, eps)
    assert loss == pytest.approx(made.loss.item(), rel=1e-5)
    expected = made.logits[made.mask.bool()].view(said.shape)
    assert expected.std() > 0.1 and torch.allclose(said, expected, rtol=0, atol=1e-5)
    assert (made.loss.item(), expected.square().mean().item()) == pytest.approx(FIGURES[normalised, eps], rel=1e-5)
    if normalised:  # what transformers writes is read too
        theirs.save_pretrained(tmp_path / "again")
        again = mae()
        ts.load_weights(again, tmp_path / "again" / "model.safetensors", source="huggingface")
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize("eps", [1e-12, 1e-6])
def test_transformers_vit_says_the_same(classifier, eps, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
    model = ts.build("vit_tiny_patch4", 7, conventions=CONVENTIONS[eps]).eval()
    ts.load_weights(model, classifier, source="huggingface", conventions=CONVENTIONS[eps])
    transformers.ViTConfig(
        hidden_size=WIDTH, num_attention_heads=3, intermediate_size=4 * WIDTH, image_size=32, patch_size=4,
        num_labels=7, layer_norm_eps=eps,
    ).save_pretrained(tmp_path)  # fmt: skip
    save_file(from_tracesight(model.state_dict()), tmp_path / "model.safetensors", {"format": "pt"})
    theirs, about = transformers.ViTForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(about[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.inference_mode():
        logits, expected = model(given()[0]), theirs.eval()(given()[0]).logits
    assert expected.std() > 0.1 and torch.allclose(logits, expected, rtol=0, atol=1e-5)
