from __future__ import annotations

import pytest

from tracesight.errors import UserError
from tracesight.recipes import classify, pretrain
from tracesight.recipes.detect import Config, for_task
from tracesight.training.config import changed_key, config_yaml, presets, read_config, resolve


def test_precedence_is_defaults_preset_file_override(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("lr: 3e-3\nbatch_size: 7\nmodel_args: {fpn_channels: 96}\n")
    config = resolve(Config, "cpu", file, ["batch_size=9", "model_args.norm=batch"])
    assert config.seed == 0  # default
    assert config.optimiser == "adamw"  # preset
    assert config.lr == 0.003  # file, over the preset
    assert config.batch_size == 9  # override, over the file
    assert config.model_args["fpn_channels"] == 96 and config.model_args["norm"] == "batch"
    assert config.model_args["box_channels"] == 512  # of the preset, untouched by the others


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("btch_size=3", ("btch_size", "batch_size")),
        ("lr=fast", ("lr", "fast")),
        ("batch_size=0", ("batch_size",)),
        ("lr", ("key=value",)),
        ("scales=[2, 1]", ("scales",)),
        ("model_args.roi.max_objects=3", ("max_objects",)),
    ],
)
def test_wrong_keys_and_values_are_named_in_one_line(override, words):
    with pytest.raises(UserError) as caught:
        resolve(Config, overrides=[override])
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words)


def test_unknown_preset_and_unreadable_file(tmp_path):
    with pytest.raises(UserError, match="did you mean 'cpu'"):
        resolve(Config, "cpuu")
    with pytest.raises(UserError, match=r"none\.yaml"):
        resolve(Config, file=tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match=r"list\.yaml"):
        resolve(Config, file=tmp_path / "list.yaml")


@pytest.mark.parametrize("name", sorted(presets()))
def test_presets_resolve_and_survive_being_written(name, tmp_path):
    kind = (
        Config
        if name in ("cpu", "demo", "gpu")
        else pretrain.Config
        if name == "mae" or "moco" in name
        else classify.Config
    )
    config = resolve(kind, name)
    (tmp_path / "config.yaml").write_text(config_yaml(config))
    assert resolve(kind, file=tmp_path / "config.yaml") == config
    assert read_config(tmp_path / "config.yaml") == config.model_dump(mode="json")


def test_numbers_with_exponents_are_numbers_everywhere():
    assert resolve(Config, overrides=["model_args.x=1e-3"]).model_args["x"] == 0.001


def test_changed_key():
    old = Config().model_dump(mode="json")
    assert changed_key(old, {**old, "workers": 9}, ["workers"]) is None
    assert changed_key(old, {**old, "lr": 1.0}, ["workers"]).startswith("lr (")


def test_for_task():
    boxes = for_task(resolve(Config, "cpu"), "detect")
    assert boxes.model == "faster_rcnn_resnet18_fpn" and "mask_channels" not in boxes.model_args
    with pytest.raises(UserError, match="draws no masks"):
        for_task(boxes, "segment")
