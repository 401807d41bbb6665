"""`tracesight predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracesight.cli.options import Device, Nms, Precision, Proposals, Tile, TileOverlap, Tta, Views


def predict(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle, such as RUN/best.")],
    images: Annotated[list[str], typer.Argument(help="Pictures, folders (with all below them) and globs.")],
    out: Annotated[Path, typer.Option(help="Folder that receives scenes, overlays and tables.")],
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least score of an object or a category. Default: the operating threshold."),
    ] = None,
    max_objects: Annotated[
        int | None, typer.Option(min=1, help="Most objects, or categories, a picture. Default: the bundle's.")
    ] = None,
    views: Views = "center",
    proposals: Proposals = None,
    tile: Tile = None,
    tile_overlap: TileOverlap = 0.2,
    tta: Tta = None,
    nms: Nms = None,
    device: Device = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures read at a time.")] = None,
    precision: Precision = "fp32",
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Find the objects in pictures, or with a classifier their categories.

    Writes OUT/scenes/NAME.json, OUT/overlays/NAME.png, OUT/results.coco.json (its picture numbers are explained in
    OUT/pictures.coco.json) and OUT/objects.csv; of a classifier OUT/categories.csv instead of the last three. A picture
    that cannot be read is reported and the rest goes on: exit status 1 when some failed, 2 when all did.
    """
    from tracesight import predict as prediction
    from tracesight.bundle import load
    from tracesight.cli.show import note, print_json, progress
    from tracesight.data.proposals import read_proposals
    from tracesight.data.tiles import Tiling
    from tracesight.training.precision import choose_device

    model = load(bundle)
    pictures = prediction.find_pictures(images, exclude=out)
    with progress("predict", len(pictures)) as advance:
        done = prediction.write(
            model,
            pictures,
            out,
            threshold=threshold,
            max_objects=max_objects,
            device=choose_device(device),
            batch_size=batch_size,
            precision=precision,
            views=views,
            tiling=None if tile is None else Tiling(tile, tile_overlap),
            proposals=None if proposals is None else read_proposals(proposals),
            tta=tta,
            nms=nms,
            progress=lambda _: advance(),
        )
    for failure in done.failures:
        note(f"failed: {failure.reason}")
    if as_json:
        failures = [{"path": str(failure.path), "reason": failure.reason} for failure in done.failures]
        facts = {"out": str(done.out), "pictures": done.pictures, "objects": done.objects, "failed": failures}
        print_json({**facts, "bundle": model.digest, "threshold": model.threshold if threshold is None else threshold})
    else:
        read = done.pictures - len(done.failures)
        what = "categories" if model.task == "classify" else "objects"
        typer.echo(f"{done.objects} {what} in {read} of {done.pictures} pictures: {done.out}")
    if done.failures:
        raise prediction.failed(done.failures, done.pictures)
