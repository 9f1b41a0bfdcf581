"""The command line: one command per verb of a `Job`, no logic.

Data goes to standard output, all messages to standard error. Exit codes: 0 done, 1
no row has a usable answer, or fewer than ``--min-ok`` or ``--strict`` want, 2 the input, the store
or the command has to change, 3 the provider refused or broke, 4 there is more to come (the time of
``--timeout`` was up, or nobody waited), 130 interrupted, 141 nobody reads standard output any more.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from frameenrich.cli.commands.evaluate import compare, evaluate, second_opinion
from frameenrich.cli.commands.job import (
    cancel,
    collect,
    finish,
    give_up,
    import_responses,
    refetch,
    regenerate,
    report,
    requests,
    status,
    submit,
    withdraw_import,
)
from frameenrich.cli.commands.preview import estimate, pilot, preview
from frameenrich.cli.commands.review import add_review, review
from frameenrich.cli.commands.run import demo, embed, run
from frameenrich.cli.commands.shared import RESUME, STILL_RUNS
from frameenrich.cli.commands.store import clean, jobs
from frameenrich.cli.log import logged
from frameenrich.cli.phrases import in_flags
from frameenrich.cli.terminal import say
from frameenrich.errors import FrameEnrichError, ProviderError, WaitTimeoutError

_PROVIDER = 3


_INTERRUPTED = 130


_NO_READER = 141  # what a shell makes of SIGPIPE


_PANELS = (_WHOLE, _CHECK, _STEPS, _RIGHT, _STORE) = (
    "A job in one go",
    "Before paying",
    "A job step by step",
    "How right it is",
    "The store",
)


_EXAMPLES = """\
Try it without a key: frameenrich demo. With one:

  frameenrich run goods.csv out.csv -m gpt-5.4-mini -t "Colour of {{ title }}?"
"""


_ENVIRONMENT = """\
Environment variables:

  FRAMEENRICH_STORE                     where jobs are kept
  OPENAI_API_KEY, OPENAI_BASE_URL       providers openai and live
  AZURE_OPENAI_API_KEY, AZURE_OPENAI_ENDPOINT, OPENAI_API_VERSION
  GROQ_API_KEY, TOGETHER_API_KEY, ANTHROPIC_API_KEY, MISTRAL_API_KEY
  GOOGLE_API_KEY or GEMINI_API_KEY, GOOGLE_GEMINI_BASE_URL

A server on this machine needs no key:

  --provider live --base-url http://localhost:11434/v1
"""


_RUN_EXAMPLES = """\
Examples:

  frameenrich run goods.csv out.csv --model gpt-5.4-mini --key sku \\
      --template "Which department sells {{ title }}?" --labels Kitchen,Toys
  frameenrich run a.parquet b.parquet -m gpt-5.4-mini -t @ask.j2 --schema s.json
  frameenrich run - - --format jsonl -m gpt-5.4-mini -t @ask.j2 < a.jsonl | head
"""


_EMBED_EXAMPLES = """\
Examples:

  frameenrich embed a.csv b.parquet -t "{{ title }}" -m text-embedding-3-small
  frameenrich embed a.csv b.csv -t @text.j2 -m wordllama-256 --provider local
"""


_COLLECT_EXAMPLES = """\
Examples:

  frameenrich collect goods.csv out.csv --wait      # the newest for goods.csv
  frameenrich collect kind-1f0e goods.csv out.csv   # what came so far of kind
"""


_CLEAN_EXAMPLES = """\
Examples:

  frameenrich clean --older-than 30d --dry-run
  frameenrich clean --older-than 30d --remote --yes
"""


class _Verbs(TyperGroup):
    """The group of all commands; prints our errors in one line, and how to go on."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the commands in the order in which help shows them."""
        panels = {
            name: getattr(self.commands[name], "rich_help_panel", None) for name in self.commands
        }
        at = {name: _PANELS.index(p) if p in _PANELS else -1 for name, p in panels.items()}
        return sorted(super().list_commands(ctx), key=at.__getitem__)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; turn our errors into a message and an exit code."""
        try:
            return super().invoke(ctx)
        except FrameEnrichError as error:
            say(f"error: {in_flags(str(error))}")
            # With exit code 2 something has to change first: the same command would fail again.
            if exit_code(error) in (_PROVIDER, STILL_RUNS) and RESUME in ctx.meta:
                say(f"To go on: {ctx.meta[RESUME]}")
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            say(
                "Interrupted. What was sent runs on at the provider and is paid; "
                "the store keeps every answer that came."
            )
            if RESUME in ctx.meta:
                say(f"To go on: {ctx.meta[RESUME]}")
            raise typer.Exit(_INTERRUPTED) from None
        except BrokenPipeError:  # the reader of standard output, such as head, has ended
            # Python flushes it once more at exit, which would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_NO_READER) from None
        except Exception as error:  # typer's own; the class for an unknown option is private
            if hasattr(error, "possibilities"):
                error.possibilities = _near_options(error.option_name, error.ctx)  # type: ignore[attr-defined]
            if hasattr(error, "message"):
                error.message = _in_plain_words(str(error.message))
            raise


_OF_A_VALUE = (
    (re.compile("Value error, "), ""),
    (re.compile(r"Input should be a valid integer.*"), "Give a whole number, such as 10."),
    (re.compile(r"Input should be a valid number.*"), "Give a number, such as 5 or 0.5."),
    (re.compile(r"Input should be greater than or equal to (\S+)"), r"Give \1 or more."),
    # The only limit above is that of a share, and who writes 95 means 0.95.
    (re.compile(r"Input should be less than or equal to 1"), "Give a share, such as 0.95."),
)


def _in_plain_words(message: str) -> str:
    """Say what to write instead of a value that an option does not take.

    Examples
    --------
    >>> _in_plain_words("Input should be a valid integer, unable to parse string as an integer")
    'Give a whole number, such as 10.'
    """
    for pattern, words in _OF_A_VALUE:
        message = pattern.sub(words, message)
    return message


def _near_options(flag: str, ctx: Any) -> list[str]:
    """Return what to write instead of an option that a command has not; at most one.

    typer's own suggestions know no request parameters, which most unknown options are.
    """
    import difflib  # noqa: PLC0415 - only where an option is misspelt

    from frameenrich.prepare.params import request_parameters  # noqa: PLC0415

    flags = [each for param in ctx.command.params for each in param.opts if each[:2] == "--"]
    as_params = (
        {f"--{name.replace('_', '-')}": f"--param {name}=..." for name in request_parameters()}
        if "--param" in flags
        else {}
    )
    near = difflib.get_close_matches(flag.replace("_", "-"), [*flags, *as_params], n=1, cutoff=0.7)
    # Where both are as near, the command's own option is meant.
    return [each if each in flags else as_params[each] for each in near]


def exit_code(error: FrameEnrichError) -> int:
    """Return 4 where the time was up, 3 where the provider is at fault, else 2.

    Examples
    --------
    >>> exit_code(ProviderError("It broke.", "Try again.")), exit_code(FrameEnrichError("No.", ""))
    (3, 2)
    """
    if isinstance(error, ProviderError):
        # Live calls are made while they are sent, so their time is up before any waiting begins.
        return STILL_RUNS if error.impatient and error.passing else _PROVIDER
    return STILL_RUNS if isinstance(error, WaitTimeoutError) else 2


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=f"{_EXAMPLES}\n{_ENVIRONMENT}",
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


_COMMANDS: Mapping[str, Sequence[Callable[..., None]]] = {
    _WHOLE: (run, embed, demo),
    _CHECK: (preview, estimate, pilot),
    _STEPS: (
        submit,
        requests,
        collect,
        status,
        report,
        regenerate,
        finish,
        cancel,
        give_up,
        import_responses,
        withdraw_import,
        refetch,
    ),
    _RIGHT: (review, add_review, evaluate, second_opinion, compare),
    _STORE: (jobs, clean),
}


_NAMES: Mapping[Callable[..., None], str] = {
    give_up: "give-up",
    import_responses: "import",
    withdraw_import: "withdraw-import",
}


_EXAMPLES_OF: Mapping[Callable[..., None], str] = {
    run: _RUN_EXAMPLES,
    embed: _EMBED_EXAMPLES,
    collect: _COLLECT_EXAMPLES,
    clean: _CLEAN_EXAMPLES,
}


for _panel, _commands in _COMMANDS.items():
    for _command in _commands:
        # Wrapped here and not by decorators: so no command can lack the log's options.
        app.command(
            _NAMES.get(_command), rich_help_panel=_panel, epilog=_EXAMPLES_OF.get(_command)
        )(logged(_command))


def main() -> None:
    """Run the ``frameenrich`` script; ends the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal's encoding may lack the data's signs
    # Warnings are written for Python; here they name flags, without a file and line of ours.
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {in_flags(str(message))}")
    try:
        app()
    except SystemExit as end:
        _end(end.code if isinstance(end.code, int) else int(end.code is not None))
    _end(0)


def _end(code: int) -> None:
    """Exit at once: Arrow's threads sometimes abort an interpreter that is shutting down.

    Every file is closed by now, and scripts would see exit code 134 (apache/arrow issue 34314).
    """
    for stream in (sys.stdout, sys.stderr):  # `os._exit` flushes nothing
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
