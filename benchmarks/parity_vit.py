"""Do Tracesight, transformers and timm say the same? Vision transformers and masked autoencoders, same random weights.

Weights are drawn from a seed, the positions of a MAE are its own; pictures and the noise that hides patches are drawn
too and given to both sides. A MAE is compared with transformers' `ViTMAEForPreTraining`: the loss, what is said of
the hidden patches, and the pictures with these filled in. Logits of a ViT are compared with timm's and with those of
transformers' `ViTForImageClassification`, with the eps of each (1e-6, 1e-12). Exit status 1 where a difference is above
the limit, 2 where transformers or timm is not installed.

Columns: the largest difference of any value, and the largest value of the peer's; the peer's loss, and the difference
of ours relative to it. The limit is for both differences.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from figures import Missing, machine, row, run, show, write
from torch import Tensor, nn

import tracesight as ts
from tracesight.errors import PartialFailure
from tracesight.models.mae import MAE

LIMIT = 1e-5
# Width, blocks, heads, side of picture and patch; of the decoder width, blocks and heads.
SIZES = {
    "tiny": ("tiny_patch4", (192, 12, 3), (32, 4), (32, 2, 2)),
    "base": ("base_patch16", (768, 12, 12), (224, 16), (512, 8, 16)),
}
CLASSES = 1000
WIDTHS = (40, 11, 8, 11, 11)


def main() -> bool:
    """Whether everything held."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    transformers, timm = _peer("transformers"), _peer("timm")
    facts = {**machine(arguments.threads), "transformers": transformers.__version__, "timm": timm.__version__}
    show(facts)
    print(f"transformers {facts['transformers']}, timm {facts['timm']}")
    row(("", "difference", "largest", "loss", "difference"), WIDTHS)
    rows: dict[str, dict[str, float]] = {}
    for size in arguments.sizes:
        for normalised in (True, False):
            name = f"MAE {size}, {'normalised' if normalised else 'plain'} patches"
            rows |= _mae(transformers, name, size, normalised, arguments)
        rows |= _vit(timm, transformers, size, arguments)
    held = all(_held(figures) for figures in rows.values())
    print(f"limit: {LIMIT:g}")
    write(arguments.json, facts, {"seed": arguments.seed, "double": arguments.double, "rows": rows})
    print("held" if held else "NOT HELD")
    return held


def _mae(transformers: Any, name: str, size: str, normalised: bool, arguments: argparse.Namespace) -> dict[str, Any]:
    """Loss, patches and pictures of a MAE beside transformers'."""
    model_name, (width, blocks, heads), (side, patch), decoder = SIZES[size]
    generator = _seeded(arguments.seed)
    theirs = transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(
            **_config(width, blocks, heads, side, patch),
            decoder_hidden_size=decoder[0],
            decoder_num_hidden_layers=decoder[1],
            decoder_num_attention_heads=decoder[2],
            decoder_intermediate_size=4 * decoder[0],
            norm_pix_loss=normalised,
        )
    ).eval()
    ours: Any = ts.build(
        f"mae_vit_{model_name}", decoder=list(decoder), normalised=normalised, conventions="huggingface"
    )
    assert isinstance(ours, MAE)
    # transformers leaves these empty where nothing is loaded; ours are the paper's.
    theirs.vit.embeddings.position_embeddings.data.copy_(ours.pos_embed)
    theirs.decoder.decoder_pos_embed.data.copy_(ours.decoder_pos_embed)
    _stir((p for n, p in theirs.named_parameters() if "pos" not in n), generator)
    ts.load_weights(ours, theirs.state_dict(), source="huggingface")
    images = torch.randn(arguments.pictures, 3, side, side, generator=generator)
    noise = torch.rand(arguments.pictures, (side // patch) ** 2, generator=generator)
    if arguments.double:
        theirs, ours, images, noise = theirs.double(), ours.double(), images.double(), noise.double()
    with torch.inference_mode():
        made = theirs(images, noise=noise)
        said, hidden = ours.predict(images, noise)
        if not torch.equal(hidden, made.mask.nonzero()[:, 1].view(hidden.shape)):
            raise PartialFailure(f"{name}: other patches are hidden")
        their_said = made.logits[made.mask.bool()].view(said.shape)
        loss = ours.loss(images, said, hidden)
        filled = ours.filled(images, said, hidden).images
        expected = _filled_by_them(theirs, images, made, normalised)
    return {
        f"{name}: patches": _line(f"{name}: patches", said, their_said, loss, made.loss),
        f"{name}: pictures": _line(f"{name}: pictures", filled, expected),
    }


def _filled_by_them(theirs: Any, images: Tensor, made: Any, normalised: bool) -> Tensor:
    """Pictures with the hidden patches as transformers says them; it has no way of its own to undo normalisation."""
    true, said = theirs.patchify(images), made.logits
    if normalised:
        said = said * (true.var(dim=-1, keepdim=True) + 1e-6) ** 0.5 + true.mean(dim=-1, keepdim=True)
    mask = made.mask[..., None]
    return theirs.unpatchify(said * mask + true * (1 - mask))


def _vit(timm: Any, transformers: Any, size: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Logits beside timm's and transformers'."""
    name, (width, blocks, heads), (side, patch), _ = SIZES[size]
    generator = _seeded(arguments.seed)
    peers = {
        "timm": timm.models.VisionTransformer(
            img_size=side, patch_size=patch, embed_dim=width, depth=blocks, num_heads=heads, num_classes=CLASSES
        ),
        "huggingface": transformers.ViTForImageClassification(
            transformers.ViTConfig(**_config(width, blocks, heads, side, patch), num_labels=CLASSES)
        ),
    }
    images = torch.randn(arguments.pictures, 3, side, side, generator=generator)
    rows = {}
    for source, theirs in peers.items():
        _stir(theirs.parameters(), generator)
        conventions = "huggingface" if source == "huggingface" else "tracesight"
        ours = ts.build(f"vit_{name}", CLASSES, conventions)
        ts.load_weights(ours, theirs.state_dict(), source=source)
        theirs.eval()
        given = images
        if arguments.double:
            theirs, ours, given = theirs.double(), ours.double(), images.double()
        with torch.inference_mode():
            logits, expected = ours(given), theirs(given)
        title = f"ViT {size}: logits, {'timm' if source == 'timm' else 'transformers'}"
        rows[title] = _line(title, logits, getattr(expected, "logits", expected))
    return rows


def _config(width: int, blocks: int, heads: int, side: int, patch: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "image_size": side,
        "patch_size": patch,
    }


def _seeded(seed: int) -> torch.Generator:
    """A generator, and the peers' own weights drawn from the same seed."""
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def _stir(parameters: Iterable[nn.Parameter], generator: torch.Generator) -> None:
    """Random weights of which none is 0: those of norms near 1, all others near 0."""
    for parameter in parameters:
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def _line(name: str, ours: Tensor, theirs: Tensor, *losses: Tensor) -> dict[str, float]:
    """Print and return the differences. losses: ours and theirs."""
    figures = {"difference": float((ours - theirs).abs().max()), "largest": float(theirs.abs().max())}
    cells = [f"{figures['difference']:.1e}", f"{figures['largest']:.2f}"]
    if losses:
        our, their = (float(loss) for loss in losses)
        figures |= {"loss": their, "loss difference": abs(our - their) / abs(their)}
        cells += [f"{their:.7f}", f"{figures['loss difference']:.1e}"]
    line = (name, *cells)
    row(line if _held(figures) else (*line, "above the limit"), (*WIDTHS, 16))
    return figures


def _held(figures: dict[str, float]) -> bool:
    return figures["difference"] <= LIMIT and figures.get("loss difference", 0.0) <= LIMIT


def _peer(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Missing(f"{name} is not installed: pip install {name}") from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="of the networks (all)")
    parser.add_argument("--pictures", type=int, default=2, help="in the batch (2)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, pictures and noise (0)")
    parser.add_argument("--double", action="store_true", help="in double precision, where rounding decides nothing")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
