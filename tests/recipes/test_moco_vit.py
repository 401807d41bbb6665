"""MoCo v3 on a small vision transformer: what a run leaves, resumed, probed, fine-tuned, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import assert_same, checkpoints, killed

import tracesight as ts
from tracesight.cli import pretrain as command
from tracesight.errors import UserError
from tracesight.models.methods import build_method
from tracesight.recipes import classify, pretrain
from tracesight.recipes.pretrain import Config
from tracesight.recipes.probe import probe
from tracesight.training.config import resolve

pytestmark = pytest.mark.usefixtures("unreported")

SMALL: dict[str, Any] = {
    "method": "moco-v3", "model": "vit_tiny_patch4", "model_args": {"heads": 6}, "dim": 8, "hidden": 16,
    "temperature": 0.2, "key_momentum": 0.9, "key_momentum_rises": True, "image_size": 12, "max_steps": 4,
    "batch_size": 4, "optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.1, "validate_every": 0, "checkpoint_every": 2,
    "keep_checkpoints": 2, "samples": 0, "precision": "fp32", "device": "cpu", "workers": 0, "threads": 1,
}  # fmt: skip


def run(data: Any, out: Path, resume: bool = False, **changed: Any) -> dict[str, Any]:
    return pretrain.train(Config(**{**SMALL, **changed}), data, out, resume=resume, progress=lambda line: None)


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(pictures, out)
    return out


def test_patches_and_positions_stay_as_they_were_drawn(whole):
    args = {"image_size": 12, "positions": "sincos-yx", "heads": 6}
    bundle: Any = ts.load(whole / "last")
    assert bundle.spec == {"name": "vit_tiny_patch4", "num_classes": 0, "conventions": "tracesight", "args": args}
    assert bundle.model.blocks[0].attn.heads == 6 and bundle.metrics["knn"]["pictures"] == 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        begun = build_method("moco-v3", "vit_tiny_patch4", args, {"dim": 8, "hidden": 16}).state_dict()
    state = torch.load(checkpoints(whole)[-1], weights_only=False)["model"]
    assert state.keys() == begun.keys()
    for name, tensor in state.items():
        inner = name.partition("encoder.")[2]
        assert torch.equal(tensor, begun[name]) == inner.startswith(("patch_embed.", "pos_embed")), name
    for name, tensor in bundle.model.state_dict().items():
        assert torch.equal(tensor, state[f"base_encoder.{name}"])


def test_killed_and_resumed_equals_not_killed(whole, pictures, tmp_path):
    out = killed(whole, tmp_path / "run", 2)
    run(pictures, out, resume=True)
    assert_same(whole, out)


def test_probes_and_classifiers_begin_from_it(whole, pictures, tmp_path):
    keys = ("max_steps=1", "batch_size=4", "lr=0.1", "workers=0", "threads=1", "device=cpu", "precision=fp32",
            "warmup_steps=0")  # fmt: skip
    found = probe(
        [whole / "best"], {"train": pictures, "val": pictures}, tmp_path / "probes", kinds=("knn", "ridge", "linear"),
        keys=keys, progress=lambda line: None,
    )  # fmt: skip
    assert found["bundles"]["best"].keys() >= {"knn@0.07", "ridge", "linear"}
    config = classify.Config(
        model="vit_tiny_patch4", model_args={"positions": "learned"}, image_size=12, max_steps=1, batch_size=4,
        optimiser="adamw", lr=1e-2, weight_decay=0.0, layer_decay=0.5, samples=0, device="cpu", precision="fp32",
        workers=0, threads=1,
    )  # fmt: skip
    classify.train(config, pictures, tmp_path / "tuned", init=whole / "last", progress=lambda line: None)
    tuned: Any = ts.load(tmp_path / "tuned" / "last")
    assert list(tuned.categories.values()) == ["dark", "light"] and tuned.model.blocks[0].attn.heads == 6
    begun = ts.load(whole / "last").model.state_dict()
    # Adam's first step is as long as the rate: positions, which may learn now, lie 13 layers before the classifier.
    for name, rate in (("blocks.11.attn.proj.weight", 5e-3), ("pos_embed", 1.3e-6)):
        assert 0 < (tuned.model.state_dict()[name] - begun[name]).abs().max() <= 1.01 * rate, name


def test_the_methods_numbers_are_others_for_transformers():
    assert command._own_preset("moco-v3", ["method=moco-v3", "model=vit_base_patch16"]) == "moco-v3-vit"
    assert command._own_preset("moco-v3", ["model=resnet18"]) == command._own_preset("moco-v3", []) == "moco-v3"
    assert command._own_preset("mae", ["model=vit_base_patch16"]) == "mae" and command._own_preset(None, []) is None
    config = resolve(Config, "moco-v3-vit", None, ["model=vit_small_patch16", "model_args.heads=12"])
    assert config.lr == pytest.approx(1.5e-4 * config.batch_size / 256) and config.weight_decay == 0.1
    assert (config.optimiser, config.hidden, config.dim, config.frozen_patch_projection) == ("adamw", 4096, 256, True)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "cifar_resnet20", "model_args": {}, "frozen_patch_projection": True}, "this network has no patches"),
        ({"method": "mae", "dim": None, "hidden": None, "temperature": None, "frozen_patch_projection": True},
         "config key 'frozen_patch_projection': mae has none"),
        ({"model_args": {"drop_path": 0.1}}, "leave pool and drop_path as they are"),
        ({"accumulate": 2}, "accumulate=2: moco-v3"),
    ],
)  # fmt: skip
def test_keys_that_do_not_fit(pictures, tmp_path, changed, words):
    with pytest.raises(UserError, match=words):
        run(pictures, tmp_path / "run", **changed)
    assert not (tmp_path / "run").exists()
