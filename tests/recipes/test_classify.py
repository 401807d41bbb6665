"""Classifiers trained on pictures few and small enough to be learnt by heart."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import assert_same, course, killed, python, without_report

import tracesight as ts
from tracesight.cli import _status as main_status
from tracesight.data.formats import read_dataset
from tracesight.errors import PartialFailure, UserError
from tracesight.recipes import classify
from tracesight.recipes.classify import Config
from tracesight.training.history import read_history
from tracesight.training.replay import replay

KINDS = ("ant", "bee", "cat", "dog")
# Six steps of four pictures; validation after 3 and 6, checkpoints of 2, 4 and 6.
SMALL: dict[str, Any] = {
    "model": "cifar_resnet20", "image_size": 32, "crop": "padded", "padding": 2, "max_steps": 6, "batch_size": 4,
    "lr": 0.05, "validate_every": 3, "checkpoint_every": 2, "keep_checkpoints": 3, "samples": 0, "precision": "fp32",
    "device": "cpu", "workers": 0, "threads": 1,
}  # fmt: skip
# Everything that a resume must find again.
FULL = {
    "mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1, "ema": 0.9, "accumulate": 2, "colour": 0.3, "rand_augment": 1,
    "model_args": {"drop_path": 0.3, "zero_init": True}, "crop": "resized", "sampling": "class_balanced",
    "known_pictures": 3, "optimiser": "adamw", "lr": 1e-3,
}  # fmt: skip


def small(**changed: Any) -> Config:
    return Config(**{**SMALL, **changed})


def run(config: Config, data: Any, out: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    return classify.train(config, data, out, progress=said.append, **options), said


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with without_report():
        yield


def folder_of(place: Path, each: int, seed: int, kinds: tuple[str, ...] = KINDS) -> Path:
    """Pictures of coarse random colours, a folder a kind."""
    rng = np.random.default_rng(seed)
    for kind in kinds:
        (place / kind).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((32, 32)).save(place / kind / f"{number}.png")
    return place


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of four kinds to learn from, and four others."""
    folder = tmp_path_factory.mktemp("kinds")
    folder_of(folder / "train", 2, 0)
    folder_of(folder / "val", 1, 1)
    return folder


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with everything in it, undisturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(small(**FULL), pictures, out)
    return out


def test_eight_pictures_are_learnt_by_heart(pictures, tmp_path):
    both = {"train": pictures / "train", "val": pictures / "train"}
    metrics, _ = run(
        small(max_steps=40, batch_size=8, lr=0.1, padding=1, flip=False, warmup_steps=5), both, tmp_path / "r"
    )
    assert metrics["image"]["top1"] >= 0.9
    bundle = ts.load(tmp_path / "r" / "best")
    (scene,) = bundle.predict([pictures / "train" / "cat" / "0.png"])
    assert scene.categories[0].category == "cat" and scene.categories[0].score > 0.5
    assert (len(scene.categories), scene.objects) == (4, ())


def test_a_run_leaves_what_it_promises(whole):
    rows = read_history(whole / "history.csv")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    measured = [row for row in rows if "val_loss" in row]
    assert [row["step"] for row in measured] == [3, 6]
    assert all({"val_image_top1", "train_image_top1"} <= row.keys() for row in measured)
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["image"]["pictures"] == 4 and metrics["operating"] == {}
    last = ts.load(whole / "last")
    assert (last.task, last.multi_label, list(last.categories.values())) == ("classify", False, list(KINDS))
    assert last.preprocessing | {"image_size": 32, "resize": 32} == last.preprocessing
    assert last.thresholds == {"operating": 0.0, "temperature": metrics["image"]["temperature"]}
    assert last.lineage["data"]["train"]["pictures_of_category"] == {"1": 2, "2": 2, "3": 2, "4": 2}
    assert last.lineage["config"]["multi_label"] is False


@pytest.mark.parametrize(("step", "workers"), [(2, 0), (4, 2)])
def test_killed_and_resumed_equals_not_killed(whole, pictures, tmp_path, step, workers):
    out = killed(whole, tmp_path / "run", step)
    _, said = run(small(**FULL, workers=workers), pictures, out, resume=True)
    assert f"resuming at step {step} of 6" in said
    assert_same(whole, out, but=("workers",))


def test_ranks_learn_what_one_process_learns(pictures, tmp_path):
    """Pairs to mix stay on one rank, norms take statistics over both."""
    keys = {**SMALL, **FULL, "accumulate": 1, "max_steps": 3, "validate_every": 0, "colour": 0.0}
    (tmp_path / "keys.yaml").write_text(json.dumps(keys))
    arguments = ["train", "--task", "classify", str(pictures), "--config", str(tmp_path / "keys.yaml"), "--out"]
    split = python("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tracesight")
    ended = subprocess.run([*split, *arguments, str(tmp_path / "two")], capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    run(Config(**keys), pictures, tmp_path / "one")
    for row, same, error in zip(course(tmp_path / "one"), course(tmp_path / "two"), (1e-5, 1e-3, 5e-3, 1e-2)):
        assert row == pytest.approx(same, rel=error, abs=1e-6)


def test_objects_make_labels_of_their_pictures(trays, tmp_path):
    metrics, said = run(small(max_steps=2, image_size=64, crop="resized"), trays, tmp_path / "run")
    assert any("multi-label, since labels are those of objects" in line for line in said)
    assert 0 <= metrics["image"]["mAP"] <= 1 and metrics["operating"]["threshold"] is not None
    bundle = ts.load(tmp_path / "run" / "last")
    assert bundle.multi_label and bundle.threshold == metrics["operating"]["threshold"]
    record = read_dataset(trays / "val")[0]
    scene = bundle.predict(record.path)
    assert all(item.score >= bundle.threshold for item in scene.categories)


def test_a_training_begins_from_a_bundle(whole, pictures, tmp_path):
    same = small(max_steps=1, lr=1e-9, model_args={})
    run(same, pictures, tmp_path / "same", init=whole / "last")
    old, new = (ts.load(folder / "last").model for folder in (whole, tmp_path / "same"))
    assert new.drop_path == 0.3, "built as the bundle's was"
    assert torch.allclose(old.fc.weight, new.fc.weight, atol=1e-6)
    folder_of(tmp_path / "data" / "train", 2, 3, ("ant", "wasp"))
    folder_of(tmp_path / "data" / "val", 1, 4, ("ant", "wasp"))
    run(same, tmp_path / "data", tmp_path / "other", init=whole / "last")
    other = ts.load(tmp_path / "other" / "last").model
    assert other.fc.weight.shape[0] == 2
    assert torch.allclose(old.layer3[2].conv2.weight, other.layer3[2].conv2.weight, atol=1e-6)
    with pytest.raises(UserError, match=r"--init: layer1\.0\.conv1\.weight is|--init: .* has no"):
        run(small(model="cifar_preact_resnet164"), pictures, tmp_path / "wrong", init=whole / "last")


def test_a_loss_that_is_not_finite_is_saved_and_seen_again(pictures, tmp_path, monkeypatch):
    real = classify.build_classifier

    def poisoned(*args: Any, **options: Any) -> torch.nn.Module:
        model = real(*args, **options)
        with torch.no_grad():
            model.layer2[0].conv1.weight[0] = math.nan
        return model

    monkeypatch.setattr(classify, "build_classifier", poisoned)
    with pytest.raises(
        PartialFailure, match=r"step 0: loss_class is nan: weight layer2\.0\.conv1\.weight holds 144 values"
    ):
        run(small(**FULL), pictures, tmp_path / "run")
    saved = tmp_path / "run" / "bad-batch-00000000.pt"
    again = replay(saved, device="cpu", say=lambda line: None)
    assert again.reproduced and math.isnan(again.now["loss_class"]) and len(again.pictures) == 2


def odd(**changed: Any) -> dict[str, Any]:
    return changed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (odd(model="mask_rcnn_resnet18_fpn"), "finds objects; choose a classifier"),
        (odd(batch_size=3, mixup=0.2), "batch_size=3 over 1 processes leaves an odd number"),
        (odd(multi_label=False, data="trays"), "give each exactly one, or say multi_label=true"),
        (odd(pixels={"mean": [0.5], "std": [0.2]}), "pixels: give mean, and std above 0, of each of the 3 channels"),
        (odd(model_args={"shortcut": "D"}), "shortcut is 'D'"),
    ],
)
def test_what_cannot_be_trained_is_said(pictures, trays, tmp_path, changed, said):
    data = trays if changed.pop("data", None) else pictures
    with pytest.raises(UserError, match=said) as caught:
        run(small(**changed), data, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["crop=short_side", "image_size=300"], "short_sides are smaller than image_size"),
        (["area=[0.5, 2]"], "area is a share of the picture"),
        (["ratio=[2, 1]"], "(smallest, largest)"),
        (["in_channels=5", "lighting=0.1"], "are for RGB"),
        (["model_args={in_channels: 4}"], "set by in_channels"),
        (["mixup=-1"], "greater than or equal to 0"),
    ],
)
def test_keys_that_contradict_each_other_are_said(pictures, tmp_path, capsys, keys, said):
    asked = ["train", "--task", "classify", str(pictures), "--out", str(tmp_path / "run"), *keys]
    assert main_status(asked) == 2
    assert said in capsys.readouterr().err


def test_other_tasks_say_which_one_the_data_is_for(pictures, tmp_path, capsys):
    assert main_status(["train", "--task", "detect", str(pictures), "--out", str(tmp_path / "run")]) == 2
    assert "only labels of whole pictures: use --task classify" in capsys.readouterr().err


def test_compiled_and_resumed_without(monkeypatch, pictures, tmp_path):
    """How the network is computed is free: a run that began compiled goes on without, and says so."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, mode=None: real(function, backend="eager"))
    torch.compiler.reset()
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(small(compile="kernels"), pictures, whole)
    run(small(), pictures, out)
    assert [row["loss"] for row in course(whole) if "loss" in row] == [r["loss"] for r in course(out) if "loss" in r]
    killed(whole, tmp_path / "again", 2)
    _, said = run(small(), pictures, tmp_path / "again", resume=True)
    assert "going on with compile=none, before it was kernels" in said
    assert_same(tmp_path / "again", out, but=("compile",))
