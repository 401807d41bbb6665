"""Does a masked autoencoder learn what nuclei look like in an hour of one core, from pictures without labels?

4,000 steps of 64 views of 64 × 64 pixels, ViT-Ti with patches of 8 and a decoder of two blocks, on `nuclei/train`
brought to a short side of 256 and magnified, so that a nucleus is some patches wide; pixels as they are
(normalised=false), since a network that learns normalised patches does not say how light they are. What is measured is
the error over the hidden pixels of `nuclei/val`, beside two fillings that need no learning: the mean colour of the
visible patches, and the mean colour of the nearest visible one. Wanted: less than both. OUT/reconstructions holds the
pictures, a file a look.

The run lies in --out and goes on where it stopped. Keys as key=value change the recipe.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from figures import data_folder, machine, row, run, show, write
from PIL import Image

from tracesight.bundle import load
from tracesight.data.formats import read_dataset
from tracesight.recipes import pretrain
from tracesight.training.config import resolve

SIDE, SHORT, MAGNIFIED, PICTURES = 64, 256, 512, 96
KEYS = (
    "model=vit_tiny_patch8", "decoder=[96,2,3]", "normalised=false", "max_steps=4000", "batch_size=64", "lr=1e-3",
    "warmup_steps=200", f"image_size={SIDE}", f"test_resize={MAGNIFIED}", "area=[0.01,0.03]", "validate_every=500",
    "samples=6", "knn_pictures=0", "checkpoint_every=100", "workers=0", "threads=1", "precision=fp32", "device=cpu",
)  # fmt: skip


def main() -> bool:
    arguments = _arguments()
    facts = machine(1)
    show(facts)
    with tempfile.TemporaryDirectory() as folder:
        data = {split: smaller(data_folder("nuclei") / split, Path(folder, split)) for split in ("train", "val")}
        config = resolve(pretrain.Config, "mae", overrides=[*KEYS, *arguments.keys])
        metrics = pretrain.train(config, data, arguments.out, resume=True)
        found = errors(arguments.out / "whole", data["val"])
    for name, error in found.items():
        row((name, f"{error:.2f}"), (40, 10))
    good = found["network"] < min(error for name, error in found.items() if name != "network")
    print(
        f"{metrics['steps']} steps, {metrics['seconds']} s; less than both: {'held' if good else 'NOT HELD'}",
        flush=True,
    )
    write(arguments.json, facts, {"errors": found, "seconds": metrics["seconds"], "steps": metrics["steps"]})
    return good


def smaller(source: Path, folder: Path) -> Path:
    """The pictures of `source` with a short side of 256 pixels."""
    folder.mkdir()
    for record in read_dataset(source):
        with Image.open(record.path) as picture:
            scale = SHORT / min(picture.size)
            size = tuple(max(SHORT, round(side * scale)) for side in picture.size)
            picture.convert("RGB").resize(size, Image.Resampling.BOX).save(folder / f"{record.path.stem}.png")  # type: ignore[arg-type]
    return folder


def errors(bundle: Path, val: Path) -> dict[str, float]:
    """Root of the mean squared error over hidden pixels, in levels of 255: of the network, and of both fillings."""
    import numpy as np
    import torch

    from tracesight.data.pictures import open_picture
    from tracesight.data.whole import centre_view
    from tracesight.models.mae import to_patches
    from tracesight.models.pixels import standardised

    model: Any = load(bundle).model
    paths = sorted(val.iterdir())[:PICTURES]
    views = np.stack([centre_view(open_picture(path, 3), SIDE, MAGNIFIED) for path in paths])
    images = torch.from_numpy(views / np.float32(255)).permute(0, 3, 1, 2).contiguous()
    keys = torch.tensor([[1, number] for number in range(len(paths))])
    made = model.reconstruct(standardised(model, images), keys)
    filled = (made.images * model.pixel_std + model.pixel_mean).clamp(0, 1)
    true, said = (to_patches(pixels, model.patch) for pixels in (images, filled))  # (N, L, P × P × 3)
    hidden = to_patches(made.hidden.float(), model.patch)[..., 0] > 0.5
    colours = true.view(*true.shape[:2], -1, 3).mean(2)  # (N, L, 3)
    weights = (~hidden).float()[..., None]
    mean = (colours * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    at = torch.cartesian_prod(*(torch.arange(float(side)) for side in (SIDE // model.patch,) * 2))
    apart = torch.cdist(at, at)[None] + hidden[:, None] * 1e6  # to visible ones only
    nearest = colours.gather(1, apart.argmin(2)[..., None].expand(-1, -1, 3))

    def error(filling: torch.Tensor) -> float:
        return 255 * float((filling - true)[hidden].square().mean().sqrt())

    count = true.shape[2] // 3
    return {
        "network": error(said),
        "mean of the visible patches": error(mean.expand_as(colours).repeat(1, 1, count)),
        "mean of the nearest visible patch": error(nearest.repeat(1, 1, count)),
    }


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", help="key=value of the recipe")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
