"""The command line: one command per verb, no logic.

Exit codes: 0 done, 2 the input, the store or the command has to change, 3 the provider refused or
broke, 130 interrupted.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from frameenrich.errors import FrameEnrichError, ProviderError, WaitTimeoutError


class _Verbs(TyperGroup):
    """The commands, with our errors told in one line each."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an error of ours becomes its message and an exit code."""
        try:
            return super().invoke(ctx)
        except FrameEnrichError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            typer.echo("Interrupted; a store keeps every answer that came.", err=True)
            raise typer.Exit(130) from None


def exit_code(error: FrameEnrichError) -> int:
    """3 where the provider is at fault or late, 2 where the caller has something to change.

    Examples
    --------
    >>> exit_code(ProviderError("It broke.", "Try again.")), exit_code(FrameEnrichError("No.", ""))
    (3, 2)
    """
    return 3 if isinstance(error, ProviderError | WaitTimeoutError) else 2


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from frameenrich import __version__  # noqa: PLC0415 - for this option only

        typer.echo(f"frameenrich {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """DataFrame rows become LLM batch requests; answers become columns."""


@app.command()
def demo(
    rows: Annotated[
        int, typer.Option(min=1, max=200, help="How many rows of the sample catalogue.")
    ] = 60,
    store: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Keep the job here; by default it goes at the end."),
    ] = None,
) -> None:
    """Run a whole job on sample data with the embedded model: no key, no network."""
    from frameenrich import demo as show  # noqa: PLC0415 - heavy

    show.run(rows, store)


def main() -> None:
    """What the ``frameenrich`` script calls."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # titles in twelve languages, any terminal
    app()
