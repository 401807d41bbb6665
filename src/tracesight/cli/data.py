"""`tracesight data`: labelled pictures before anything is learned from them. One file a command, hung on `app` here."""

from __future__ import annotations

import typer

from tracesight.cli.data_check import check
from tracesight.cli.data_convert import convert
from tracesight.cli.data_diff import diff
from tracesight.cli.data_manifest import manifest
from tracesight.cli.data_propose import propose
from tracesight.cli.data_split import split

app = typer.Typer(help="Check, convert, split and describe labelled pictures.", rich_markup_mode=None)


@app.callback()
def _root() -> None:
    pass


app.command("check")(check)
app.command("convert")(convert)
app.command("manifest")(manifest)
app.command("split")(split)
app.command("diff")(diff)
app.command("propose")(propose)
