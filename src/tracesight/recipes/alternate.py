"""Faster R-CNN in four steps: Ren et al., "Faster R-CNN" (2015), section 3.2, "4-step alternating training".

1. The RPN is trained. 2. A Fast R-CNN is trained on its proposals; the two share nothing. 3. The RPN is trained anew on
the backbone of step 2, which stays as it is. 4. So is what Fast R-CNN has besides, on the new proposals. Then both
share a backbone and are one network. Each step is a training of `detect.py` in a folder of its own, with the same keys;
what is finished is left as it is when the whole is resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracesight.bundle import Bundle, load
from tracesight.data.formats import read_splits
from tracesight.errors import UserError
from tracesight.evaluation import evaluate, operating_threshold
from tracesight.models.build import CATALOGUE, build
from tracesight.predict import dataset_results
from tracesight.predict.propose import propose
from tracesight.recipes import detect
from tracesight.training.folder import check_run_folder, write_config, write_metrics
from tracesight.training.initial import detector_args
from tracesight.training.prepare import Data
from tracesight.training.progress import Display, Say
from tracesight.training.ranks import ranks_here

MOST = 2000  # proposals a picture


def halves(model: str) -> tuple[str, str]:
    """Names of the RPN alone and of the Fast R-CNN that "faster_rcnn_…" consists of. Raises UserError: it has none."""
    rest = model.removeprefix("faster_rcnn_")
    names = f"rpn_{rest}", f"fast_rcnn_{rest.removesuffix('_c4')}"
    if rest == model or not all(name in CATALOGUE for name in names):
        raise UserError(
            f"training=alternating: model={model} is not made of an RPN and a Fast R-CNN of the catalogue; "
            "choose faster_rcnn_resnetNN_c4, _dc5 or _fpn"
        )
    return names


def train(
    config: detect.Config,
    data: Data,
    out: str | Path,
    *,
    init: str | Path | None = None,
    resume: bool = False,
    format: str | None = None,
    allow: Sequence[str] = (),
    progress: Say | None = None,
) -> dict[str, Any]:
    """Train the four steps in `out/step1` to `out/step4`, and put the network together in `out/last` and `out/best`.

    Arguments and errors as `detect.train` has them. It runs in one process.
    """
    out, (rpn, fast), display = Path(out), halves(config.model), Display(progress)
    if ranks_here().count > 1:
        raise UserError("training=alternating runs in one process; start it without torchrun, or say training=joint")
    finished = check_run_folder(out, config, resume=resume)
    if finished is not None:
        display.say(f"the run in {out} is finished: nothing to do")
        return finished
    write_config(out, config)
    begun = load(init) if init is not None else None
    args = detector_args(config.model, config.model_args, begun, config.in_channels)
    if config.model.endswith("_c4"):
        args = {"pool": "align", **args}  # fast_rcnn_resnetNN has RoIPool unless it is told
    sets = [dataset for dataset in read_splits(data, config.seed, format, allow)[:2] if dataset is not None]
    pictures = [(record.path, record.name) for dataset in sets for record in dataset]

    def step(number: int, model: str, begin: str | Path | None, **keys: Any) -> Path:
        folder = out / f"step{number}"
        display.say(f"step {number} of 4: {model}")
        changed = config.model_copy(update={"model": model, "model_args": args, "training": "joint", **keys})
        again = resume and folder.exists()
        detect.train(changed, data, folder, init=begin, resume=again, format=format, allow=allow, progress=progress)
        return folder / "last"

    def proposed(number: int, bundle: Path) -> str:
        file = out / f"proposals{number}.safetensors"
        if not file.exists():
            display.say(f"proposals of step {number}")
            propose(pictures, file, bundle, most=MOST)
        return str(file)

    first = step(1, rpn, init)
    second = step(2, fast, init, proposals=proposed(1, first))
    third = step(3, rpn, second, freeze=("backbone.",))
    fourth = step(4, fast, second, proposals=proposed(3, third), freeze=("backbone.",))
    bundle = joined(config, load(third), load(fourth))
    metrics = measured(bundle, sets[1]) if len(sets) > 1 else {}
    for name in ("best", "last"):
        bundle.save(out / name)
    write_metrics(out, metrics)
    return metrics


def joined(config: detect.Config, rpn: Bundle, fast: Bundle) -> Bundle:
    """One network of the RPN of one and all else of the other; their backbones must be the same."""
    state, other = fast.model.state_dict(), rpn.model.state_dict()
    if any(not tensor.equal(state[name]) for name, tensor in other.items() if name.startswith("backbone.")):
        raise RuntimeError("the two halves have different backbones")
    spec = fast.spec
    model = build(config.model, spec["num_classes"], spec["conventions"], **spec["args"])
    model.load_state_dict(state | {name: tensor for name, tensor in other.items() if name.startswith("rpn.")})
    return Bundle.of(
        model.eval(),
        fast.categories,
        image_size=config.image_size,
        max_size=config.max_size,
        max_objects=config.max_objects,
        lineage={**fast.lineage, "rpn": rpn.digest, "fast": fast.digest},
    )


def measured(bundle: Bundle, val: Any) -> dict[str, Any]:
    """The figures of the whole on val; its operating threshold becomes the bundle's."""
    val = val.renamed(bundle.categories) if val.numbered else val
    results = dataset_results(bundle, val)
    metrics = evaluate(results, val, max_objects=bundle.max_objects, kinds=("bbox",))
    operating = operating_threshold(results, val, kind="bbox")
    bundle.thresholds["operating"] = operating["threshold"]
    bundle.metrics.update(metrics)
    return {**metrics, "operating": operating}
