"""The command `tracesight`: a command parses, calls one function, prints. Exit statuses are decided here alone.

0: it did what was asked. 1: part of the work failed, and the message says which. 2: something the user got wrong, in
one line. 130, 143: ended by Ctrl-C, SIGTERM, after saving what could be saved.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from tracesight.cli import data, demo, evaluate, models, predict, pretrain, probe, train, weights
from tracesight.errors import Interrupted, PartialFailure, UserError

app = typer.Typer(
    name="tracesight",
    help="Pictures into scenes that programs can read, and where every object in them came from.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would take a third of the time that help may take
)


def _version(asked: bool) -> None:
    if asked:
        from tracesight import __version__

        typer.echo(f"tracesight {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("pretrain")(pretrain.pretrain)
app.command("probe")(probe.probe)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")
app.command("models")(models.models)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    sys.exit(_status(list(arguments) or ["--help"]))


def _status(arguments: list[str]) -> int:
    try:
        status = app(arguments, standalone_mode=False, prog_name="tracesight")
        # typer makes a status of Ctrl-C and says nothing.
        return _complain("interrupted", 130) if status == 130 else status if isinstance(status, int) else 0
    except UserError as error:
        return _complain(str(error), 2)
    except PartialFailure as error:
        # Where several processes train together, one of them has said it for all.
        return 1 if getattr(error, "silent", False) else _complain(str(error), 1)
    except Interrupted as error:
        return 128 + error.number if _rank() else _complain(str(error), 128 + error.number)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", 130)
    except PermissionError as error:
        return _complain(f"{error.filename or error}: access denied; change its permissions or name another place", 2)
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        sys.stderr.close()
        return 1
    except Exception as error:
        # Mistakes in the command line. The class belongs to click, which some versions of typer bring in themselves.
        describe = getattr(error, "format_message", None)
        if describe is None:
            if _is_out_of_memory(error):
                return _complain(f"out of memory ({' '.join(str(error).split())[:120]})", 1)
            raise
        return _complain(f"{describe()} (see `tracesight {_command(arguments)}--help`)", 2)


def _is_out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:  # then it is not torch's
        return isinstance(error, MemoryError)
    from tracesight.training.fit import is_out_of_memory

    return is_out_of_memory(error)


def _rank() -> str:
    """The number of this process among those that torchrun started; nothing for the first and for one alone."""
    rank = os.environ.get("RANK", "0")
    return "" if rank == "0" else rank


def _complain(message: str, status: int) -> int:
    who = f"rank {_rank()}: " if _rank() else ""
    typer.echo("error: " + who + " ".join(message.split("\n")).strip(), err=True)
    return status


def _command(arguments: list[str]) -> str:
    """The command that was meant, for the hint: its name and a space, or nothing."""
    names = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    return f"{arguments[0]} " if arguments[0] in names else ""
