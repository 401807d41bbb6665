"""`tracesight weights`: other people's checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import nn

app = typer.Typer(help="Bring in other people's weights.", rich_markup_mode=None)


@app.callback()
def _root() -> None:
    pass


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .pth, .pt, .th or .safetensors file; no code in it is run.")],
    source: Annotated[
        str, typer.Option(help="Who made it: torchvision, timm, huggingface, cifar, mae, moco (v1, v2), moco_v3.")
    ],
    model: Annotated[str, typer.Option(help="A name that `tracesight models` lists.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle to write.")],
    num_classes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of the checkpoint; a detector's count background. Default: a ViT's own; else 91, 1000, 10, or none.",
        ),
    ] = None,
    categories: Annotated[
        Path | None,
        typer.Option(help="Names: a text file with one a line, or COCO's JSON. Built in for COCO's 91 classes."),
    ] = None,
    conventions: Annotated[
        str | None,
        typer.Option(
            help="What no tensor shows: torchvision, torchvision-coco-v1 (batch norm with eps 0), or huggingface "
            "(layer norm with eps 1e-12). Default: that of the published file, or config.json's, or the source's."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the receipt as JSON.")] = False,
) -> None:
    """Make a bundle of a checkpoint that another library wrote, and say what became of every tensor."""
    from tracesight.bundle import Bundle
    from tracesight.cli.show import print_json
    from tracesight.data.points import PERSON
    from tracesight.models.build import CATALOGUE, build
    from tracesight.models.keypoint_head import keypoints_of
    from tracesight.weights import built_as, conventions_of, load_weights
    from tracesight.weights.beside import Beside, beside, settle

    about = beside(file) if source == "huggingface" else Beside()
    stated = conventions_of(file, source, conventions or about.conventions)
    shown = built_as(file, source, model)
    if model in CATALOGUE and CATALOGUE[model].task == "pretrain":
        shown |= about.args or {}
    its_own = shown.pop("num_classes", 0 if source in ("moco", "moco_v3") else None)  # what is pretrained has none
    names = None if categories is None else _read_categories(categories)
    classifies = model in CATALOGUE and CATALOGUE[model].task in ("classify", "pretrain")
    if num_classes is None and names is not None:
        num_classes = len(names) + (not classifies)
    network = build(model, its_own if num_classes is None else num_classes, stated, **shown)
    receipt = settle(network, load_weights(network, file, source, conventions=stated), about)
    if names is None:
        names = about.categories if about.categories and its_own else _known_categories(network, classifies)
    lineage = {"weights": receipt.to_json()}
    size = shown.get("image_size") or (800 if not classifies else 32 if network.small else 224)
    # The only keypoints that a known checkpoint finds are those of COCO's person.
    points = dict.fromkeys(names, PERSON) if keypoints_of(network) == len(PERSON.names) else None
    bundle = Bundle.of(network, names, image_size=size, lineage=lineage, keypoints=points)
    bundle.save(out)
    if as_json:
        print_json({"out": str(out), "bundle": bundle.digest, **receipt.to_json()})
    else:
        typer.echo(f"{receipt}\nbundle: {out}")


def _known_categories(network: nn.Module, classifies: bool) -> dict[int, str]:
    from tracesight.data.points import PERSON
    from tracesight.errors import UserError
    from tracesight.models.keypoint_head import keypoints_of
    from tracesight.weights.torchvision import coco_categories

    classes: int = network.spec["num_classes"]  # type: ignore[index, assignment]
    if classifies:
        # A classifier serves as a backbone; its own answer is the number of a class.
        return {number: str(number) for number in range(classes)}
    if classes == 91:
        return coco_categories()
    if classes == 2 and keypoints_of(network) == len(PERSON.names):
        return {1: "person"}
    raise UserError(f"the names of {classes - 1} categories are not known: give them with --categories FILE")


def _read_categories(path: Path) -> dict[int, str]:
    """Names by id: lines of text are numbered from 1; JSON is COCO's, its list of categories, or {"1": "name"}."""
    import json

    from tracesight.errors import UserError

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() != ".json":
            return dict(enumerate((line.strip() for line in text.splitlines() if line.strip()), start=1))
        value: Any = json.loads(text)
        rows = value["categories"] if isinstance(value, dict) and "categories" in value else value
        if isinstance(rows, dict):
            return {int(number): str(name) for number, name in rows.items()}
        return {int(row["id"]): str(row["name"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: no category names can be read from it ({reason}); give one name a line") from error
