"""Options that several commands have, each with its name's meaning and its help in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Views = Annotated[
    str, typer.Option(help="How a classifier sees a picture: center, ten-crop, or multi-scale (slower, better).")
]
Proposals = Annotated[
    Path | None,
    typer.Option(help="Where R-CNN and Fast R-CNN look: a file of `data propose`. Default: selective search."),
]
Tile = Annotated[
    int | None, typer.Option(min=32, help="Look at tiles of this side, in pixels. Default: as the bundle learnt.")
]
TileOverlap = Annotated[float, typer.Option(min=0, max=0.95, help="Share of a tile that its neighbour shows too.")]
Tta = Annotated[
    str | None,
    typer.Option(help="How else a detector sees each picture: flip, factors of its size, or both: flip,0.75,1.25."),
]
Nms = Annotated[
    str | None,
    typer.Option(
        help="Boxes that overlap a better one: hard (dropped), linear or gaussian (soft-NMS: scores lowered)."
        " Default: as the bundle has it."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: the GPU if there is one.")]
Precision = Annotated[str, typer.Option(help="fp32, or bf16: faster where the hardware has it.")]
