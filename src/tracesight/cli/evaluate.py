"""`tracesight evaluate`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracesight.cli.options import Device, Nms, Precision, Proposals, Tile, TileOverlap, Tta, Views

if TYPE_CHECKING:
    from tracesight.bundle import Bundle
    from tracesight.data.dataset import Dataset
    from tracesight.training.ranks import Ranks


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle, such as RUN/best.")],
    data: Annotated[Path, typer.Argument(help="A data folder with train and val, or one set of labelled pictures.")],
    split: Annotated[
        str | None, typer.Option(help="train or val. Default: val; all of DATA where it is one set of pictures.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="How DATA is labelled. Default: recognised.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Code of errors in DATA to put right or leave out, not to refuse.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder that receives metrics.json and results.coco.json.")] = None,
    views: Views = "center",
    proposals: Proposals = None,
    tile: Tile = None,
    tile_overlap: TileOverlap = 0.2,
    tta: Tta = None,
    nms: Nms = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Score a bundle on labelled pictures: COCO's figures for boxes and masks, overall and by class; of a classifier
    top-1 and top-5, or mAP of several labels, and calibration.

    Where the bundle says in how many training pictures each class was, also for rare, common and frequent classes.
    Under torchrun its processes share the pictures: torchrun --nproc-per-node 2 -m tracesight evaluate …
    """
    from tracesight.bundle import load
    from tracesight.cli.show import note, progress
    from tracesight.data.kinds import check_codes
    from tracesight.data.one_class import one_class
    from tracesight.data.proposals import read_proposals
    from tracesight.data.tiles import Tiling
    from tracesight.errors import UserError
    from tracesight.training.prepare import checked
    from tracesight.training.progress import Display
    from tracesight.training.ranks import joined, of_first
    from tracesight.training.validate import of_proposer, results_of_all

    with joined(device) as (ranks, place):
        model = load(bundle)
        if model.task == "features":
            raise UserError(f"{bundle}: holds features alone and names nothing; judge it with `tracesight probe`")
        if model.task != "classify" and views != "center":
            raise UserError(f"--views {views}: is for classifiers, and this bundle finds objects")
        for option, value in (("tta", tta), ("nms", nms)):
            if model.task == "classify" and value is not None:
                raise UserError(f"--{option} {value}: is for detectors, and this bundle classifies; use --views")
        check_codes(allow or ())
        dataset = _dataset(model, data, split, format, allow or ())
        display = Display(note, interval=math.inf, quiet=not ranks.first)
        changed, notes = of_first(ranks, lambda: checked({"data": dataset}, model.in_channels, display, allow or ()))
        dataset = changed.get("data", dataset)
        for line in notes:
            display.say(f"note: {line}")
        dataset = one_class(dataset) if of_proposer(model) else dataset
        options = {"device": place, "precision": precision}
        with progress("evaluate", len(dataset), quiet=not ranks.first) as advance:
            if model.task == "classify":
                found = _scores(model, dataset, ranks, lambda _: advance(), views=views, **options)
            else:
                given = None if proposals is None else read_proposals(proposals)
                options |= of_proposer(model) | {
                    "proposals": given,
                    "tiling": None if tile is None else Tiling(tile, tile_overlap),
                    "tta": tta,
                    "nms": nms,
                }
                found = results_of_all(model, dataset, ranks, lambda _: advance(), **options)
        of_first(ranks, lambda: _score(model, dataset, found, out, as_json))


def _scores(model: Bundle, dataset: Dataset, ranks: Ranks, progress: Any, **options: Any) -> Any:
    """Scores and truth of a classifier; None on all ranks but the first."""
    from tracesight.data.image_labels import image_labels
    from tracesight.training.classification import scores_of_all

    labels, _ = image_labels(dataset, model.multi_label)
    return scores_of_all(model, dataset, labels, ranks, progress, **options)


def _score(model: Bundle, dataset: Dataset, found: Any, out: Path | None, as_json: bool) -> None:
    """The figures of what was found: printed, and written where that is wanted."""
    import json

    from tracesight import evaluation
    from tracesight.cli.show import note, print_json
    from tracesight.lineage.record import pictures_of_category
    from tracesight.models.proposals import proposes_only
    from tracesight.scene.values import write_whole
    from tracesight.training.validate import kinds_of

    if model.task == "classify":
        (scores, truth), options = found, {"several": model.multi_label, "temperature": model.thresholds["temperature"]}
        metrics = evaluation.evaluate_classes(scores, truth, model.categories, **options)
    else:
        metrics = evaluation.evaluate(
            found or [],
            dataset,
            max_objects=model.max_objects,
            kinds=kinds_of(model.model),
            train_pictures=pictures_of_category(model.lineage),
        )
        if proposes_only(model.model):
            metrics["proposals"] = evaluation.proposal_recall(found or [], dataset)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        if model.task != "classify":
            write_whole(out / "results.coco.json", json.dumps(found))
        write_whole(out / "metrics.json", json.dumps(metrics, indent=1))
    for warning in metrics["warnings"]:
        note(f"warning: {warning}")
    if as_json:
        print_json(metrics)
    else:
        typer.echo(evaluation.table(metrics))


def _dataset(model: Bundle, data: Path, split: str | None, format: str | None, allow: Sequence[str]) -> Dataset:
    """The labelled pictures that are meant."""
    from tracesight.data.formats import FORMATS, read_dataset, read_splits
    from tracesight.data.formats.places import ALL, places_of
    from tracesight.errors import UserError

    if split not in (None, "train", "val"):
        raise UserError(f"--split {split}: use train or val")
    if split is None and ALL in places_of(data, FORMATS, format):
        dataset = read_dataset(data, format, allow=allow)
    else:
        # Where a training had no val of its own, its seed says again which pictures it held out.
        needs = "image labels" if model.task == "classify" else "objects"
        train, val, _ = read_splits(data, int(model.lineage.get("seed", 0)), format, allow, needs)
        chosen = train if split == "train" else val
        if chosen is None:
            raise UserError(f"{data}: has no val; say --split train, or name one set of pictures")
        dataset = chosen
    return dataset.renamed(model.categories) if dataset.numbered else dataset
