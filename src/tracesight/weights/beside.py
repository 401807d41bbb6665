"""What Hugging Face keeps beside a checkpoint: config.json and preprocessor_config.json say what no tensor shows."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from tracesight.errors import UserError
from tracesight.models.build import CATALOGUE
from tracesight.models.conventions import CONVENTIONS
from tracesight.models.pixels import remember_pixels
from tracesight.weights.receipt import Receipt

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"


@dataclass(frozen=True)
class Beside:
    """conventions: by the eps of layer norms. heads: of the encoder. args: of the catalogue's `mae_vit_*`. categories:
    names by index. pixels: "mean" and "std" of each channel. files: names of those that were read. None, and {}: not
    said."""

    conventions: str | None = None
    heads: int | None = None
    args: dict[str, Any] | None = None
    categories: dict[int, str] | None = None
    pixels: dict[str, list[float]] | None = None
    files: tuple[str, ...] = ()


def beside(path: str | Path) -> Beside:
    """What the files in the folder of the checkpoint `path` say; nothing where there are none.

    Raises UserError: one cannot be read, or says something that no network of the catalogue has.
    """
    config, preprocessor = (_read(Path(path).parent / name) for name in (CONFIG, PREPROCESSOR))
    where = Path(path).parent / CONFIG
    if config:
        if (kind := config.get("model_type", "vit")) not in ("vit", "vit_mae"):
            raise UserError(f"{where}: model_type is '{kind}', and only 'vit' and 'vit_mae' are covered")
        if (act := config.get("hidden_act", "gelu")) != "gelu":
            raise UserError(f"{where}: hidden_act is '{act}', and every network here has 'gelu'")
    files = tuple(name for name, found in ((CONFIG, config), (PREPROCESSOR, preprocessor)) if found)
    try:
        return Beside(
            conventions=_conventions(config, where) if config else None,
            heads=config.get("num_attention_heads", 12) if config else None,
            args=_mae(config) if config.get("model_type") == "vit_mae" else None,
            categories={int(number): str(name) for number, name in config.get("id2label", {}).items()} or None,
            pixels=_pixels(preprocessor),
            files=files,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where.parent}: {CONFIG} or {PREPROCESSOR} is not transformers' ({error})") from error


def settle(network: nn.Module, receipt: Receipt, about: Beside) -> Receipt:
    """Give `network` the pixels that `about` has; the receipt that says so.

    Raises UserError: the network has other heads, channels or classes.
    """
    built: Any = network
    name, classes = built.spec["name"], built.spec["num_classes"]
    if about.heads is not None and about.heads != (heads := built.blocks[0].attn.heads):
        raise UserError(f"{CONFIG} says num_attention_heads={about.heads}, and {name} has {heads}")
    if classes and about.categories is not None and len(about.categories) != classes:
        raise UserError(f"{CONFIG} names {len(about.categories)} classes in id2label, and the checkpoint has {classes}")
    if about.pixels is not None:
        channels = built.pixel_mean.shape[1]
        if {len(values) for values in about.pixels.values()} != {channels} or min(about.pixels["std"]) <= 0:
            raise UserError(f"{PREPROCESSOR}: give image_mean, and image_std above 0, of each of {channels} channels")
        remember_pixels(network, about.pixels["mean"], about.pixels["std"])
    told = about.args if CATALOGUE[name].task == "pretrain" else about.pixels
    notes = () if told else receipt.notes
    return replace(receipt, notes=(*notes, f"read beside it: {', '.join(about.files)}")) if about.files else receipt


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {type(content).__name__} instead of names and values")
    return content


def _conventions(config: dict[str, Any], where: Path) -> str:
    eps = config.get("layer_norm_eps", CONVENTIONS["huggingface"].layer_norm_eps)
    for name in ("huggingface", "torchvision"):
        if math.isclose(eps, CONVENTIONS[name].layer_norm_eps, rel_tol=1e-6):
            return name
    raise UserError(f"{where}: layer_norm_eps is {eps}; networks here have 1e-12 or 1e-06")


def _mae(config: dict[str, Any]) -> dict[str, Any]:
    """transformers leaves out of the file what is its default."""
    decoder = [
        config.get("decoder_hidden_size", 512),
        config.get("decoder_num_hidden_layers", 8),
        config.get("decoder_num_attention_heads", 16),
    ]
    hide, normalised = config.get("mask_ratio", 0.75), config.get("norm_pix_loss", False)
    return {"decoder": decoder, "hide": hide, "normalised": normalised}


def _pixels(preprocessor: dict[str, Any]) -> dict[str, list[float]] | None:
    """Mean and deviation of pixels in 0–1."""
    if "image_mean" not in preprocessor or "image_std" not in preprocessor:
        return None
    mean, std = ([float(value) for value in preprocessor[key]] for key in ("image_mean", "image_std"))
    if not preprocessor.get("do_normalize", True):
        return {"mean": [0.0] * len(mean), "std": [1.0] * len(std)}
    return {"mean": mean, "std": std}
