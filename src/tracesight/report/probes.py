"""One page that compares the features of several bundles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracesight.report.page import listed, made_with, pairs, table, write_page

MEANINGS = {
    "knn@0.07": "200 nearest neighbours by cosine, weighted by exp(similarity / 0.07)",
    "knn@0.1": "the same at temperature 0.1",
    "ridge": "a linear classifier in closed form (ridge regression), its penalty chosen by leaving each picture out",
    "linear": "a last layer trained by SGD on the frozen encoder",
}


def write_probes(
    path: str | Path,
    found: Mapping[str, Mapping[str, Any]],
    data: Mapping[str, int],
    notes: Sequence[str],
    versions: Mapping[str, Any],
) -> None:
    """Write the page: a row for each bundle of `found`, its figures by kind, "model" and "digest" among them."""
    kinds = [kind for kind in MEANINGS if any(kind in row for row in found.values())]
    rows = [[name, str(row["model"]), *(row.get(kind) for kind in kinds)] for name, row in found.items()]
    meanings = [[kind, MEANINGS[kind]] for kind in kinds]
    figures = table(["bundle", "network", *kinds], rows) + table(["figure", "what it is"], meanings, text=(1,))
    facts = {"pictures known": data["train"], "pictures asked about": data["val"], "categories": data["categories"]}
    write_page(
        path,
        title="Probes",
        heading="Probes",
        lead=f"Share of {data['val']:,} pictures named rightly by features that were not trained for it.",
        top="",
        sections=[
            ("figures", "Figures", figures),
            ("notes", "Please note", listed(notes)),
            ("data", "The data", pairs(facts)),
            ("bundles", "Bundles", pairs({name: row["digest"] for name, row in found.items()})),
            ("versions", "Versions", pairs(versions)),
        ],
        foot=made_with(versions),
    )
