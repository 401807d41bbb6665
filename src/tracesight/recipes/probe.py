"""Judge features on labelled pictures: neighbours, a linear classifier in closed form, and a trained one.

The encoder stays as it is. kNN and ridge look at each picture once, from the middle; the trained probe is the recipe
`classify` with everything frozen but the last layer, as the papers have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tracesight.bundle import Bundle, load
from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_splits
from tracesight.errors import UserError
from tracesight.evaluation.knn import accuracy, neighbours, votes
from tracesight.evaluation.ridge import ridge
from tracesight.lineage.record import versions
from tracesight.models.vit import ViT
from tracesight.predict.features import dataset_features
from tracesight.recipes import classify
from tracesight.report.probes import write_probes
from tracesight.training.config import resolve
from tracesight.training.folder import write_metrics
from tracesight.training.nearest import Labelled, labelled
from tracesight.training.precision import choose_device
from tracesight.training.prepare import Data
from tracesight.training.progress import Display, Say

KINDS = ("knn", "ridge", "linear")
NEIGHBOURS, TEMPERATURES = 200, (0.07, 0.1)  # Wu et al. 2018; and what the notebook of MoCo's authors has on CIFAR
PRESET, OF_TRANSFORMERS = "linear-probe", "mae-linear"


def probe(
    bundles: Sequence[str | Path],
    data: Data,
    out: str | Path,
    *,
    kinds: Sequence[str] = ("knn", "ridge"),
    keys: Sequence[str] = (),
    format: str | None = None,
    device: str = "auto",
    progress: Say | None = None,
) -> dict[str, Any]:
    """Figures of each bundle on the val of `data`, by its name; written to `out/metrics.json` and `out/report.html`.

    kinds: some of `KINDS`. keys: key=value of `classify`, for the trained probe, whose runs lie in `out/linear/NAME`
    and go on where they were stopped. Of a classifier the features before its last layer are judged.
    Raises UserError: a bundle that finds objects, data without one label a picture, no val, an unknown kind.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UserError(f"--kind {unknown[0]}: use {', '.join(KINDS)}")
    display, out, place = Display(progress), Path(out), choose_device(device)
    loaded = _named(bundles)
    train, val, notes = read_splits(data, 0, format, needs="image labels")
    for note in notes:
        display.say(f"note: {note}")
    known, asked = labelled(train), None if val is None else labelled(val)
    if known is None or asked is None:
        raise UserError(f"{data}: no pictures with one label each in train and val; a probe needs both")
    found: dict[str, dict[str, Any]] = {}
    for name, bundle in loaded.items():
        if bundle.task not in ("features", "classify"):
            raise UserError(f"{name}: the bundle ({bundle.spec['name']}) finds objects; probes are for encoders")
        found[name] = {"model": bundle.spec["name"], "digest": bundle.digest}
        if "knn" in kinds or "ridge" in kinds:
            found[name] |= _by_features(bundle, known, asked, kinds, place, display)
        if "linear" in kinds:
            found[name] |= _trained(
                bundle, bundles[list(loaded).index(name)], data, out / "linear" / name, keys, display
            )
        display.say(f"{name}: " + ", ".join(f"{k} {v:.4f}" for k, v in found[name].items() if isinstance(v, float)))
    metrics = {"bundles": found, "data": _facts(known.dataset, asked.dataset), "notes": list(notes)}
    out.mkdir(parents=True, exist_ok=True)
    write_probes(out / "report.html", found, metrics["data"], notes, versions())
    write_metrics(out, metrics)
    return metrics


def _by_features(
    bundle: Bundle, known: Labelled, asked: Labelled, kinds: Sequence[str], place: torch.device, display: Display
) -> dict[str, float]:
    """Figures of kNN and of ridge regression."""
    categories, figures = len(known.dataset.categories), {}
    with display.job("features", len(known.dataset) + len(asked.dataset)) as job:

        def advance(done: int) -> None:
            for _ in range(done):
                job.advance()

        bank, queries = (dataset_features(bundle, s.dataset, device=place, progress=advance) for s in (known, asked))
    if "knn" in kinds:
        near = neighbours(queries, bank, NEIGHBOURS)
        for temperature in TEMPERATURES:
            scores = votes(near, known.labels, categories, temperature)
            figures[f"knn@{temperature:g}"] = accuracy(scores, asked.labels)
    if "ridge" in kinds:
        figures["ridge"] = accuracy(ridge(bank, known.labels, categories).scores(queries), asked.labels)
    return figures


def _trained(
    bundle: Bundle, folder: str | Path, data: Data, out: Path, keys: Sequence[str], display: Display
) -> dict[str, float]:
    """Top-1 of a last layer that was trained on the frozen encoder."""
    args = {key: value for key, value in bundle.spec["args"].items() if key not in ("in_channels", "norm")}
    fixed = {"model": bundle.spec["name"], "image_size": bundle.preprocessing["image_size"]}
    given = [*(f"{key}={value}" for key, value in fixed.items()), *keys]
    if isinstance(bundle.model, ViT):
        resolved = resolve(classify.Config, OF_TRANSFORMERS, None, given)
        changed: dict[str, Any] = {"tune_blocks": 0, "model_args": {**args, "head_norm": True}}
        return _top1(resolved.model_copy(update=changed), folder, data, out, display)
    body = sorted({n.split(".")[0] + "." for n, _ in bundle.model.named_parameters() if not n.startswith("fc.")})
    norms = any(name.endswith("running_mean") for name in bundle.model.state_dict())
    norm = "frozen" if norms else bundle.spec["args"].get("norm", "batch")
    resolved = resolve(classify.Config, PRESET, None, given)
    frozen = tuple(name for name in body if not (norms and name.startswith(("bn", "norm"))))
    config = resolved.model_copy(update={"freeze": frozen, "model_args": {**args, "norm": norm}})
    return _top1(config, folder, data, out, display)


def _top1(config: classify.Config, folder: str | Path, data: Data, out: Path, display: Display) -> dict[str, float]:
    metrics = classify.train(config, data, out, init=folder, resume=True, progress=display.say)
    return {"linear": float(metrics["image"]["top1"])}


def _named(bundles: Sequence[str | Path]) -> Mapping[str, Bundle]:
    """Bundles by the part of their path that tells them apart."""
    paths = [Path(bundle).resolve() for bundle in bundles]
    if len(set(paths)) < len(paths):
        raise UserError("a bundle is named twice; name each once")
    depth = next(d for d in range(1, 99) if len({path.parts[-d:] for path in paths}) == len(paths))
    return {"-".join(path.parts[-depth:]): load(path) for path in paths}


def _facts(train: Dataset, val: Dataset) -> dict[str, int]:
    return {"train": len(train), "val": len(val), "categories": len(train.categories)}
