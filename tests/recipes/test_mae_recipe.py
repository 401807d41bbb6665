"""Masked autoencoding on a few small pictures: what a run leaves, resumed, fine-tuned, probed, and bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import assert_same, checkpoints, course, killed, python

import tracesight as ts
from tracesight.data.formats import read_dataset
from tracesight.errors import UserError
from tracesight.recipes import classify, pretrain
from tracesight.recipes.pretrain import Config
from tracesight.recipes.probe import probe
from tracesight.report.reconstructions import middle, reconstruction_shots
from tracesight.training.history import read_history
from tracesight.training.replay import replay, save_replay

pytestmark = pytest.mark.usefixtures("unreported")

SMALL: dict[str, Any] = {
    "method": "mae", "model": "vit_tiny_patch4", "decoder": (16, 1, 2), "image_size": 16, "max_steps": 4,
    "batch_size": 8, "optimiser": "adamw", "lr": 1e-3, "beta2": 0.95, "validate_every": 2, "checkpoint_every": 2,
    "keep_checkpoints": 2, "samples": 2, "jitter_chance": 0.0, "grey_chance": 0.0, "blur_chance": (0.0, 0.0),
    "precision": "fp32", "device": "cpu", "workers": 0, "threads": 1,
}  # fmt: skip


def small(**changed: Any) -> Config:
    return Config(**{**SMALL, **changed})


def run(config: Config, data: Any, out: Path, **options: Any) -> dict[str, Any]:
    return pretrain.train(config, data, out, progress=lambda line: None, **options)


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(small(), pictures, out)
    return out


def test_a_run_leaves_what_it_promises(whole, pictures):
    rows = read_history(whole / "history.csv")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "val_image_knn" in row] == [2, 4]
    assert not {"key_momentum", "features_rank"} & set().union(*rows)
    encoder, full = ts.load(whole / "last"), ts.load(whole / "whole")
    assert (encoder.task, full.task) == ("features", "features")
    assert encoder.spec["name"] == "vit_tiny_patch4" and encoder.spec["args"] == {"image_size": 16}
    assert full.spec["name"] == "mae_vit_tiny_patch4" and full.lineage["config"]["method"] == "mae"
    state = torch.load(checkpoints(whole)[-1], weights_only=False)["model"]
    for bundle in (encoder, full):
        assert all(torch.equal(tensor, state[name]) for name, tensor in bundle.model.state_dict().items())
    assert full.model.state_dict().keys() == state.keys()
    with pytest.raises(UserError, match=r"names nothing.*--init"):
        encoder.predict(pictures / "dark" / "0.png")


def test_figures_show_what_the_network_fills_in(whole, pictures):
    drawn = sorted((whole / "reconstructions").iterdir())
    assert [path.name for path in drawn] == ["00000002.png", "00000004.png"]
    model: Any = ts.load(whole / "whole").model
    options = {"sides": (16, 16), "resize": None, "channels": 3, "seed": 0}
    first, second = reconstruction_shots(model, read_dataset(pictures), 2, **options)
    assert first.caption.endswith("0.png") and second.caption.endswith("0.png")
    sheet = np.asarray(Image.open(drawn[1]))
    # Two strips below each other, each of three pictures of 160 pixels.
    assert sheet.shape[0] == 2 * first.image.height and sheet.shape[1] == first.image.width > 3 * 160
    assert np.array_equal(sheet[: first.image.height], np.asarray(first.image))
    strip = np.asarray(first.image)[-160:]
    gap = (strip.shape[1] - 3 * 160) // 2
    masked, filled, true = (strip[:, k * (160 + gap) : k * (160 + gap) + 160] for k in range(3))
    hidden = (masked == 127).all(2)
    assert 0.7 < hidden.mean() < 0.8
    closer, _ = reconstruction_shots(model, read_dataset(pictures), 2, **{**options, "resize": 32})
    assert not np.array_equal(np.asarray(closer.image)[-160:, -160:], true)  # half of the middle, magnified
    assert np.array_equal(filled[~hidden], true[~hidden]) and not np.array_equal(filled[hidden], true[hidden])


def test_the_middle_of_a_picture_has_the_shape_that_is_asked_for():
    image = np.zeros((20, 60, 1), np.uint8)
    image[:, 20:40] = 200
    assert (middle(image, (10, 10)) == 200).all()
    assert middle(image, (5, 30)).shape == (5, 30, 1)
    image[8:12, 28:32] = 50
    assert (middle(image, (10, 10), 0.2) == 50).all()
    assert np.array_equal(middle(image, (8, 8), 0.4), image[6:14, 26:34])


def test_killed_and_resumed_equals_not_killed(whole, pictures, tmp_path):
    out = killed(whole, tmp_path / "run", 2)
    run(small(), pictures, out, resume=True)
    assert_same(whole, out)


@pytest.mark.long  # training/test_spread_pretraining.py has the same without torchrun
@pytest.mark.skipif(os.name == "nt", reason="torchrun there needs a torch with libuv")
def test_two_processes_with_shards_leave_what_one_leaves(whole, pictures, tmp_path):
    out, keys = tmp_path / "run", tmp_path / "keys.yaml"
    keys.write_text(json.dumps(small(distributed="fsdp").model_dump(mode="json")))
    launch = python("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tracesight", "pretrain")
    ended = subprocess.run([*launch, pictures, "--config", keys, "--out", out], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    # One process goes on from what two have saved.
    moved = killed(out, tmp_path / "moved", 2)
    run(small(), pictures, moved, resume=True)
    for other in (out, moved):
        for row, same, error in zip(course(other), course(whole), (2e-5, 1e-3, 5e-3, 5e-3, 5e-3, 5e-3)):
            assert row == pytest.approx(same, rel=error)
        assert sorted(path.name for path in (other / "reconstructions").iterdir()) == ["00000002.png", "00000004.png"]
        for name in ("last", "whole"):
            states = [ts.load(run / name).model.state_dict() for run in (other, whole)]
            assert states[0].keys() == states[1].keys() and ts.load(other / name).spec == ts.load(whole / name).spec
            # Adam steps by the rate whatever the gradient, and where that is near 0 rounding decides which way.
            assert all((a - b).abs().max() < 8e-3 for a, b in zip(states[0].values(), states[1].values()))


def test_five_channels_and_oblong_views(tmp_path):
    import tifffile

    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(1)
    for number in range(4):
        planes = rng.integers(0, 60000, (5, 30, 40), dtype=np.uint16)
        tifffile.imwrite(data / f"{number}.tif", planes, photometric="minisblack")
    config = small(in_channels=5, image_size=(16, 24), batch_size=4, max_steps=2, accumulate=2, validate_every=0)
    run(config, data, tmp_path / "run")
    bundle = ts.load(tmp_path / "run" / "last")
    assert bundle.spec["args"] == {"image_size": [16, 24], "in_channels": 5}
    assert len(bundle.preprocessing["mean"]) == 5 and 0.3 < bundle.preprocessing["mean"][4] < 0.6
    assert ts.load(tmp_path / "run" / "whole").model.grid == (4, 6)
    assert Image.open(tmp_path / "run" / "reconstructions" / "00000002.png").width > 3 * 160


def tuned(bundle: Path, pictures: Path, out: Path, **changed: Any) -> Any:
    """The network of a short fine-tuning."""
    config = classify.Config(
        model="vit_tiny_patch4", image_size=16, max_steps=1, batch_size=4, optimiser="adamw", lr=1e-2, samples=0,
        device="cpu", precision="fp32", workers=0, threads=1, **changed,
    )  # fmt: skip
    classify.train(config, pictures, out, init=bundle, progress=lambda line: None)
    return ts.load(out / "last").model


def moved(model: Any, bundle: Path) -> dict[str, float]:
    """By how much the parameters that the bundle has too have changed, at most."""
    before = dict(ts.load(bundle).model.named_parameters())
    return {
        name: (parameter - before[name]).abs().max().item()
        for name, parameter in model.named_parameters()
        if name in before
    }


def test_fine_tuning_as_mae_has_it(whole, pictures, tmp_path):
    args = {"pool": "mean", "drop_path": 0.2}
    options: dict[str, Any] = {"model_args": args, "layer_decay": 0.5, "mixup": 0.8, "cutmix": 1.0,
                               "label_smoothing": 0.1, "weight_decay": 0.0}  # fmt: skip
    model = tuned(whole / "last", pictures, tmp_path / "run", **options)
    assert model.fc_norm is not None and model.norm is None and model.drop_path == 0.2
    changes = moved(model, whole / "last")
    # Adam's first step is as long as the rate, whatever the gradient: patches lie 13 layers before the classifier.
    assert changes["blocks.11.attn.proj.weight"] == pytest.approx(1e-2 * 0.5, rel=1e-2)
    assert changes["blocks.9.mlp.fc1.weight"] == pytest.approx(1e-2 * 0.5**3, rel=1e-2)
    assert 0 < changes["patch_embed.proj.weight"] < 1e-2 * 0.5**12


def test_partial_fine_tuning_and_a_probe_with_batch_norm(whole, pictures, tmp_path):
    model = tuned(whole / "last", pictures, tmp_path / "one", tune_blocks=1, weight_decay=0.0)
    for name, change in moved(model, whole / "last").items():
        assert (change > 0) == name.startswith(("blocks.11.", "norm.")), name
    with pytest.raises(UserError, match="tune_blocks=13: vit_tiny_patch4 has 12 blocks"):
        tuned(whole / "last", pictures, tmp_path / "many", tune_blocks=13)
    found = probe(
        [whole / "best"], {"train": pictures, "val": pictures}, tmp_path / "probes", kinds=("ridge", "linear"),
        keys=("max_steps=3", "batch_size=10", "lr=0.1", "workers=0", "threads=1", "device=cpu", "precision=fp32",
              "warmup_steps=0"), progress=lambda line: None,
    )  # fmt: skip
    assert found["bundles"]["best"].keys() >= {"ridge", "linear"}
    probed: Any = ts.load(tmp_path / "probes" / "linear" / "best" / "last").model
    assert not any(moved(probed, whole / "best").values())
    assert [type(part).__name__ for part in probed.head] == ["Norm1d", "Linear"]
    assert float(probed.head[0].running_var.sub(1).abs().max()) > 0 and not list(probed.head[0].parameters())


def test_a_saved_step_of_one_view_can_be_run_again(pictures, tmp_path):
    from tracesight.data.batch import Loaded
    from tracesight.data.view_batch import ViewBatches
    from tracesight.data.views import View
    from tracesight.models.methods import build_method
    from tracesight.training.pretraining import made_of

    dataset = read_dataset(pictures)
    made = ViewBatches(dataset, (View(16),), raw=False)([dataset[0], dataset[1]], np.array([[0, 0], [0, 1]]))
    loaded = Loaded(*made, [0, 1], [(20, 24)] * 2)
    method = build_method("mae", "vit_tiny_patch4", {"image_size": 16}, {"decoder": [16, 1, 2]})
    losses = {name: loss.item() for name, loss in made_of(method, method, loaded).losses.items()}
    assert save_replay(
        tmp_path / "bad.pt", step=0, losses=losses, found="", config=small().model_dump(), spec=method.spec,
        model_state=method.state_dict(), loaded=loaded, pictures=["a", "b"],
    )  # fmt: skip
    again = replay(tmp_path / "bad.pt", device="cpu", say=lambda line: None)
    assert again.now == pytest.approx(losses) and list(losses) == ["loss_reconstruction"]


def test_a_broken_picture_is_passed_over_in_figures_too(pictures, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(pictures / "dark", data)
    content = (data / "0.png").read_bytes()
    (data / "0.png").write_bytes(content[:-40])
    metrics = run(small(batch_size=4, max_steps=1, broken=1), data, tmp_path / "run")
    assert any("passed over" in note for note in metrics["notes"])
    assert Image.open(tmp_path / "run" / "reconstructions" / "00000001.png").height < 2 * 200


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"image_size": 18}, r"image_size=\[18, 18\]: sides must be multiples of the patch's 4"),
        ({"queue": 8}, "config key 'queue': mae has none"),
        ({"model": "cifar_resnet20"}, "choose a vision transformer"),
        ({"model": "mae_vit_tiny_patch4"}, "is a method of its own"),
        ({"method": "moco-v2", "decoder": None}, "moco-v2 is for residual networks; .* use method=moco-v3"),
        ({"batch_size": 32}, "10 pictures are fewer than batch_size=32"),
    ],
)
def test_keys_that_do_not_fit(pictures, tmp_path, changed, words):
    with pytest.raises(UserError, match=words):
        run(small(**changed), pictures, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_changes_of_colour_are_for_rgb():
    with pytest.raises(ValueError, match="are for RGB: set them to 0"):
        small(in_channels=5, grey_chance=0.2)
