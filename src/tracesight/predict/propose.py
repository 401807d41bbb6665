"""Making a file of proposals: by selective search, or by the region proposal network of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tracesight.bundle import Bundle, load
from tracesight.data.batch import predict_batch
from tracesight.data.pictures import open_picture
from tracesight.data.proposals import ProposalSet, Row, Source, write_proposals
from tracesight.data.selective_search import available, require, selective_search
from tracesight.errors import UserError
from tracesight.lineage import file_digest
from tracesight.models.proposals import GivenProposals


def needs_proposals(bundle: Bundle) -> bool:
    """Whether the model finds none of its own."""
    return isinstance(getattr(bundle.model, "rpn", None), GivenProposals)


def source_of(bundle: Bundle, given: ProposalSet | Source | None) -> Source | None:
    """Where a bundle's proposals come from: those `given`, or selective search; None for a model that finds its own.

    Raises UserError: they are needed, none are given, and selective search is not installed.
    """
    if not needs_proposals(bundle):
        return None
    if isinstance(given, ProposalSet):
        return given.find
    if given is None and not available():
        raise UserError(
            f"{bundle.spec['name']} needs proposals: give --proposals FILE (`tracesight data propose` makes one), or "
            "install selective search: pip install 'tracesight[proposals]'"
        )
    if given is None:
        require()
    return selective_search if given is None else given


def propose(
    pictures: Sequence[tuple[Path, str]],
    out: str | Path,
    bundle: str | Path | Bundle | None = None,
    *,
    most: int = 2000,
    side: int = 320,
    thorough: bool = False,
    progress: Callable[[], None] | None = None,
) -> ProposalSet:
    """Write the proposals of pictures, (path, NAME) each, into the file `out`.

    bundle: whose RPN makes them; None: selective search, of which `side` and `thorough` are. most: boxes a picture.
    Pictures of the same content get one row. Raises UserError: a picture that cannot be read, a bundle without an RPN.
    """
    if bundle is None:
        require()
        source: Source = partial(selective_search, side=side, most=most, thorough=thorough)
        method, channels = f"selective search, {'quality' if thorough else 'fast'}, side {side}", 3
    else:
        made = bundle if isinstance(bundle, Bundle) else load(bundle)
        source, method, channels = by_rpn(made, most), f"RPN of {made.digest[:12]}", made.in_channels

    def rows() -> Iterator[Row]:
        seen: set[str] = set()
        for path, name in pictures:
            sha256, pixels = file_digest(path), open_picture(path, channels)
            if sha256 not in seen:
                seen.add(sha256)
                full = name if name.endswith(path.suffix) else name + path.suffix
                yield Row(full, sha256, (pixels.shape[0], pixels.shape[1]), source(path, sha256, pixels))
            if progress is not None:
                progress()

    return write_proposals(out, rows(), method)


def by_rpn(bundle: Bundle, most: int) -> Source:
    """A `Source` that asks the first stage of a bundle. Raises UserError: it has none."""
    if bundle.task in ("classify", "features") or needs_proposals(bundle):
        raise UserError(f"a bundle of {bundle.spec['name']} has no region proposal network")
    model: Any = bundle.model.eval()
    prepared = bundle.preprocessing

    def find(path: Path, sha256: str, pixels: np.ndarray) -> np.ndarray:
        batch = predict_batch([pixels], prepared["image_size"], prepared["max_size"])
        with torch.inference_mode():
            proposals, _ = model.rpn(model.backbone(model.standardise(batch)), batch, None)
        boxes = proposals.boxes[0, proposals.valid[0]][:most].double().numpy()
        height, width = pixels.shape[:2]
        inner = batch.sizes[0].tolist()
        scaled = boxes * ([width / inner[1], height / inner[0]] * 2)
        # Wide enough still after rounding to 32 bits.
        return scaled[((scaled[:, 2:] - scaled[:, :2]) > 1e-2).all(1)].astype(np.float32)

    return find
