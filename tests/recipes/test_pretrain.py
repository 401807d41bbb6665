"""Pretraining on a few small pictures: what a run leaves, stopped and resumed, and bad input (MAE: test_mae_recipe)."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import assert_same, checkpoints, course, killed, two_kinds

import tracesight as ts
from tracesight.bundle import Bundle
from tracesight.cli import _status as main_status
from tracesight.data.formats import read_dataset
from tracesight.errors import PartialFailure, UserError
from tracesight.models.build import build
from tracesight.recipes import classify, pretrain
from tracesight.recipes.pretrain import Config
from tracesight.report.neighbours import neighbour_shots
from tracesight.training import collapse
from tracesight.training.config import presets, resolve
from tracesight.training.history import read_history
from tracesight.training.initial import build_detector
from tracesight.training.nearest import known_pictures, look_around
from tracesight.training.prepare import Splits
from tracesight.training.replay import replay

pytestmark = pytest.mark.usefixtures("unreported")

# Six steps of eight pictures; a look after 3 and 6, checkpoints of 2, 4 and 6.
SMALL: dict[str, Any] = {
    "method": "moco-v2", "model": "cifar_resnet20", "dim": 16, "queue": 16, "bn_group": 2, "image_size": 16,
    "max_steps": 6, "batch_size": 8, "lr": 0.05, "warmup_steps": 2, "validate_every": 3, "features_every": 2,
    "checkpoint_every": 2, "keep_checkpoints": 3, "samples": 2, "precision": "fp32", "device": "cpu", "workers": 0,
    "threads": 1,
}  # fmt: skip
V3 = {"method": "moco-v3", "queue": None, "bn_group": None, "hidden": 32, "optimiser": "lars", "lr": 1.0,
      "key_momentum": 0.9, "key_momentum_rises": True, "solarise_chance": (0.0, 0.5)}  # fmt: skip


def small(**changed: Any) -> Config:
    return Config(**{**SMALL, **changed})


def run(config: Config, data: Any, out: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    return pretrain.train(config, data, out, progress=said.append, **options), said


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures of two kinds, dark and light."""
    return two_kinds(tmp_path_factory.mktemp("kinds"), 10)


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run on labelled pictures."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(small(), pictures, out)
    return out


def test_a_run_leaves_what_it_promises(whole, pictures, tmp_path):
    rows = read_history(whole / "history.csv")
    learnt = [row for row in rows if "loss" in row]
    assert [row["step"] for row in learnt] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in learnt if "features_rank" in row] == [1, 3, 5]
    assert all(0 < row["features_deviation"] <= 1.1 for row in learnt if "features_deviation" in row)
    assert [row["step"] for row in rows if "val_image_knn" in row] == [3, 6]
    last = ts.load(whole / "last")
    assert (last.task, last.categories, last.spec["num_classes"]) == ("features", {}, 0)
    assert last.preprocessing["image_size"] == last.preprocessing["resize"] == 16
    # One of five is asked about, the others are known.
    assert last.metrics["knn"] | {"pictures": 4, "bank": 16, "k": 16} == last.metrics["knn"]
    assert last.lineage["recipe"] == "pretrain" and last.lineage["config"]["method"] == "moco-v2"
    with pytest.raises(UserError, match=r"names nothing.*--init"):
        last.predict(pictures / "dark" / "0.png")
    for words in (["evaluate", str(whole / "last"), str(pictures)],
                  ["predict", str(whole / "last"), str(pictures), "--out", str(tmp_path / "found")]):  # fmt: skip
        assert main_status(words) == 2
    # The encoder is the checkpoint's, without its head.
    state = torch.load(checkpoints(whole)[-1], weights_only=False)["model"]
    assert {"queue", "queue_ptr", "encoder_k.conv1.weight"} <= state.keys()
    for name, tensor in last.model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, state[f"encoder_q.{name}"])
    assert not torch.equal(state["encoder_k.conv1.weight"], state["encoder_q.conv1.weight"])


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_equals_not_killed(whole, pictures, tmp_path, workers):
    out = killed(whole, tmp_path / "run", 4 if workers else 2)
    _, said = run(small(workers=workers), pictures, out, resume=True)
    assert f"resuming at step {4 if workers else 2} of 6" in said
    assert_same(whole, out, but=("workers",))


def test_v3_with_lars_resumes_too(pictures, tmp_path):
    run(small(**V3), pictures, tmp_path / "whole")
    out = killed(tmp_path / "whole", tmp_path / "run", 4)
    run(small(**V3), pictures, out, resume=True)
    assert_same(tmp_path / "whole", out)
    momenta = [row["key_momentum"] for row in course(out) if "loss" in row]
    assert momenta[0] == 0.9 and momenta == sorted(momenta) and momenta[-1] > 0.99


def test_classifiers_and_detectors_begin_from_it(whole, pictures, tmp_path):
    bundle = ts.load(whole / "last")
    config = classify.Config(model="cifar_resnet20", image_size=16, crop="padded", max_steps=1, batch_size=4, lr=1e-9,
                             samples=0, device="cpu", workers=0, threads=1, momentum=0)  # fmt: skip
    classify.train(config, pictures, tmp_path / "run", init=whole / "last", progress=lambda line: None)
    begun = ts.load(tmp_path / "run" / "last")
    assert list(begun.categories.values()) == ["dark", "light"] and begun.lineage["init"] == bundle.digest
    torch.testing.assert_close(begun.model.conv1.weight, bundle.model.conv1.weight)
    encoder = Bundle.of(build("resnet18", 0), {}, image_size=64)
    options = {"categories": {1: "a"}, "max_objects": 5, "seed": 0, "begun": encoder}
    detector = build_detector("faster_rcnn_resnet18_fpn", {"norm": "frozen"}, **options)
    assert torch.equal(detector.backbone.body.layer4[1].conv2.weight, encoder.model.layer4[1].conv2.weight)


def test_neighbours_are_drawn(whole, pictures):
    dataset = read_dataset(pictures)
    known = known_pictures(Splits(dataset, None, ()), 100, 3, 0.07)
    assert known is not None and len(known.asked.dataset) == 4
    from tracesight.training.progress import Display
    from tracesight.training.run import Run

    bundle = ts.load(whole / "last")
    model = bundle.model
    run_now = Run(model=model, network=model, optimiser=torch.optim.SGD(model.parameters()), total=1, identity={})
    looked = look_around(bundle, known, run_now, Display(lambda line: None))
    assert looked is not None and looked.figures == {"val_image_knn": looked.metrics["knn"]["top1"]}
    shots = neighbour_shots(looked.results, 2)
    assert len(shots) == 2 and "nearest: " in shots[0].caption and shots[0].title.endswith("of 3")


def test_collapse_is_named(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(collapse, "LEAST_DEVIATION", 2.0)
    metrics, said = run(small(validate_every=0), pictures, tmp_path / "run")
    assert any(line.startswith("warning: step 1: the features have collapsed") for line in said)
    assert any("queue holds random vectors for the first 2 of " in line for line in said)
    assert any("collapsed" in note for note in metrics["notes"])


def test_a_loss_that_is_not_finite_can_be_run_again(pictures, tmp_path, monkeypatch):
    real = pretrain.build_method

    def poisoned(*args: Any) -> torch.nn.Module:
        method: Any = real(*args)
        with torch.no_grad():
            method.encoder_q.layer2[0].conv1.weight[0] = math.nan
        return method

    monkeypatch.setattr(pretrain, "build_method", poisoned)
    with pytest.raises(PartialFailure, match=r"step 0: loss_contrast is nan: weight encoder_q\.layer2\.0\.conv1"):
        run(small(), pictures, tmp_path / "run")
    again = replay(tmp_path / "run" / "bad-batch-00000000.pt", device="cpu", say=lambda line: None)
    assert again.reproduced and again.found is not None and "encoder_q.layer2.0.conv1.weight" in again.found


def test_unlabelled_pictures_and_a_broken_one(pictures, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for number, path in enumerate(sorted(pictures.rglob("*.png"))):
        shutil.copy(path, data / f"{number}.png")
    content = (data / "3.png").read_bytes()
    (data / "3.png").write_bytes(content[:-40])
    metrics, _ = run(small(image_size=32, symmetric=True, broken=1), data, tmp_path / "run")
    assert "knn" not in metrics and (tmp_path / "run" / "best").is_dir()
    assert any("20 of 20 pictures are smaller than image_size=32" in note for note in metrics["notes"])
    assert any("3.png" in note and "passed over" in note for note in metrics["notes"])
    with pytest.raises(UserError, match=r"3\.png.*broken=0"):
        run(small(broken=0), data, tmp_path / "other")


def test_a_queue_that_takes_long_to_fill():
    line = collapse.slow_to_fill(4096, 64, 3907)
    assert line is not None and "first 64 of 3907 steps" in line and "queue=2496 " in line
    assert collapse.slow_to_fill(512, 128, 1954) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"batch_size": 32}, "20 pictures are fewer than batch_size=32"),
        ({"queue": 12}, "queue=12 is no multiple of the 8 keys of a batch: use queue=8"),
        ({"queue": 24}, "queue=24 is more than the 20 pictures.*use queue=16"),
        ({"bn_group": 3}, "bn_group=3 does not divide the 8 pictures.*use bn_group=2"),
        ({"bn_group": 8}, "bn_group=8 is all pictures.*use bn_group=4"),
        ({"bn_group": 8, "accumulate": 2}, "bn_group=8 does not divide the 4 pictures"),
        ({**V3, "accumulate": 2}, "accumulate=2: moco-v3"),
        ({"hidden": 5}, "config key 'hidden': moco-v2 has none"),
        ({"model": "mask_rcnn_resnet18_fpn"}, "finds objects"),
    ],
)
def test_keys_that_do_not_fit(pictures, tmp_path, changed, words):
    with pytest.raises(UserError, match=words):
        run(small(**changed), pictures, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_presets_and_the_command(pictures, tmp_path, capsys):
    for name in ("moco-v1", "moco-v2", "moco-v3", "moco-v3-vit", "moco-cifar", "mae"):
        assert name in presets()
        resolve(Config, name)
    assert main_status(["pretrain", str(pictures), "--out", str(tmp_path / "run")]) == 2
    assert "--method is missing: moco-v1" in capsys.readouterr().err
    assert main_status(["pretrain", str(pictures), "--method", "moco-v9", "--out", str(tmp_path / "run")]) == 2
    (tmp_path / "empty").mkdir()
    assert main_status(["pretrain", str(tmp_path / "empty"), "--method", "moco-v2", "--out", str(tmp_path / "r")]) == 2
    assert "the folder is empty" in capsys.readouterr().err
