"""The command line's options: groups of them as values, and what they become for a `Job`.

A command takes a group as one parameter; `spread` makes one option of each of its fields.
"""

from __future__ import annotations

import csv
import functools
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from frameenrich.errors import OutputError, ParameterError, TemplateError

_ASK = "What to ask"
_ANSWER = "What an answer has to be"
_SEND = "Where to"
_IN_OUT = "In and out"


@dataclass(frozen=True)
class Asking:
    """What makes requests of rows, as ``df.llmbatch.submit`` and ``preview`` take it."""

    model: Annotated[
        str,
        typer.Option("--model", "-m", help="The model's name.", rich_help_panel=_ASK),
    ]
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            "-t",
            metavar="TEXT|@FILE",
            help="Jinja2 text of the message, such as 'Colour of {{ title }}?'; @FILE reads it.",
            rich_help_panel=_ASK,
        ),
    ] = None
    template_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The same as --template @FILE.", rich_help_panel=_ASK),
    ] = None
    system: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|@FILE", help="Template of a system message.", rich_help_panel=_ASK
        ),
    ] = None
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A request parameter, such as temperature=0; the value is JSON, else text. "
            "May be given again.",
            rich_help_panel=_ASK,
        ),
    ] = None
    endpoint: Annotated[str, typer.Option(help="The API's endpoint.", rich_help_panel=_ASK)] = (
        "/v1/chat/completions"
    )
    image: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN[,COLUMN]", help="Columns with a row's images.", rich_help_panel=_ASK
        ),
    ] = None
    image_root: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="The folder that image paths stay in.", rich_help_panel=_ASK
        ),
    ] = None
    key: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN[,COLUMN]",
            help="Columns that name a row; by default its position does.",
            rich_help_panel=_ASK,
        ),
    ] = None
    on_null: Annotated[
        str | None,
        typer.Option(
            metavar="raise|empty|skip",
            help="What happens to a row where an empty cell would be printed.",
            rich_help_panel=_ASK,
            show_default="raise",
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="One of these; a label with a comma goes in double quotes.",
            rich_help_panel=_ANSWER,
        ),
    ] = None
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A JSON Schema in a file: one column a property.",
            rich_help_panel=_ANSWER,
        ),
    ] = None
    response_model: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:CLASS",
            help="A pydantic class: one column a field.",
            rich_help_panel=_ANSWER,
        ),
    ] = None
    name: Annotated[
        str | None,
        typer.Option(
            help="Names the answers' column, the status columns and the job.",
            rich_help_panel=_ANSWER,
            show_default="llmbatch",
        ),
    ] = None
    prefix: Annotated[
        str | None,
        typer.Option(help="Put before the name of each answer's column.", rich_help_panel=_ANSWER),
    ] = None

    def wishes(self) -> dict[str, Any]:
        """The keyword arguments of ``preview``; `submit` takes them, too."""
        return {
            "template": read_template(self.template, self.template_file),
            "model": self.model,
            "endpoint": self.endpoint,
            "params": read_params(self.param),
            **_given(
                system=self.system and _text_of(self.system),
                image=self.image and split_commas(self.image),
                image_root=self.image_root,
                key=self.key and split_commas(self.key),
                on_null=self.on_null,
                labels=self.labels and split_commas(self.labels),
                response_model=read_response_model(self.schema, self.response_model),
                name=self.name,
                prefix=self.prefix,
            ),
        }


@dataclass(frozen=True)
class Sending:
    """Where requests go, and how."""

    provider: Annotated[
        str,
        typer.Option(
            help="openai (Batch API), local (embedded model), file (nowhere), or another.",
            rich_help_panel=_SEND,
        ),
    ] = "openai"
    max_enqueued_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="TOKENS",
            help="How many prompt tokens may wait at the provider at once.",
            rich_help_panel=_SEND,
        ),
    ] = None
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Ask everything anew, and pay for it.", rich_help_panel=_SEND),
    ] = False

    def wishes(self) -> dict[str, Any]:
        """The keyword arguments that ``submit`` has beside those of `Asking`."""
        return {
            "provider": self.provider,
            "fresh": self.fresh,
            **_given(max_enqueued_tokens=self.max_enqueued_tokens),
        }


@dataclass(frozen=True)
class Reading:
    """How the table is read."""

    format: Annotated[
        str | None,
        typer.Option(
            metavar="csv|tsv|jsonl",
            help="The format where no file ending says it, as for -.",
            rich_help_panel=_IN_OUT,
        ),
    ] = None
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="ROWS", help="The first rows only.", rich_help_panel=_IN_OUT),
    ] = None


@dataclass(frozen=True)
class Writing:
    """How long to wait, what is written, and what is told of it."""

    usage: Annotated[
        bool,
        typer.Option(
            "--usage",
            help="Add columns on model, attempts, tokens and the raw answer.",
            rich_help_panel=_IN_OUT,
        ),
    ] = False
    safe_csv: Annotated[
        bool,
        typer.Option(
            "--safe-csv",
            help="Put ' before answers that a spreadsheet would run as a formula (CSV, TSV).",
            rich_help_panel=_IN_OUT,
        ),
    ] = False
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with 1 where a row has no good answer; the result is written all the same.",
            rich_help_panel=_IN_OUT,
        ),
    ] = False
    max_rounds: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="ROUNDS",
            help="How often rows without a good answer are asked again by itself.",
            rich_help_panel=_SEND,
        ),
    ] = 0
    timeout: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="How long to wait; for ever by default."),
    ] = None
    poll_seconds: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Between two looks; by default more and more."),
    ] = None

    def wishes(self) -> dict[str, Any]:
        """The keyword arguments of ``collect``."""
        return {
            "usage": self.usage,
            "timeout": self.timeout,
            "poll_seconds": self.poll_seconds,
            **({"max_rounds": self.max_rounds} if self.max_rounds else {}),
        }


Store = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|URL",
        help="Where jobs are kept.",
        envvar="FRAMEENRICH_STORE",
        show_default=".frameenrich",
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print the summary as JSON."),
]


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of the groups that it takes."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    options: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = groups.get(parameter.name)
        options += inspect.signature(kind).parameters.values() if kind else [parameter]
        hints |= get_type_hints(kind, include_extras=True) if kind else {}

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        for name, kind in groups.items():
            own = {field.name: given.pop(field.name) for field in fields(kind)}
            given[name] = kind(**own)
        command(**given)

    as_options = [
        option.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[option.name])
        for option in options
    ]
    vars(with_options)["__signature__"] = inspect.Signature(as_options)
    with_options.__annotations__ = {option.name: option.annotation for option in as_options}
    return with_options


# --- from texts to values -----------------------------------------------------------------------


def split_commas(text: str) -> list[str]:
    """Comma-separated texts; one that holds a comma stands in double quotes.

    Examples
    --------
    >>> split_commas('Kitchen, Garden,"Toys, games"')
    ['Kitchen', 'Garden', 'Toys, games']
    """
    return [item.strip() for item in next(csv.reader([text], skipinitialspace=True), [])]


def read_params(pairs: list[str] | None) -> dict[str, Any]:
    """Request parameters from ``name=value``; the value is JSON, or the text that it is.

    Examples
    --------
    >>> read_params(["temperature=0.2", "stop=[1, 2]", "service_tier=flex"])
    {'temperature': 0.2, 'stop': [1, 2], 'service_tier': 'flex'}
    """
    params: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ParameterError(
                f"--param {pair} is no pair.", "Write --param NAME=VALUE, such as temperature=0."
            )
        try:
            params[name] = json.loads(value)
        except ValueError:
            params[name] = value
    return params


def read_template(text: str | None, path: Path | None) -> str | Path:
    """The template that was given, as text or as the file that it is in."""
    if (text is None) == (path is None):
        problem = "No template was given." if text is None else "Two templates were given."
        raise TemplateError(problem, "Give --template TEXT, --template @FILE or --template-file.")
    if path is not None:
        return path
    text = text or ""
    if text.startswith("@"):
        return Path(text[1:])
    if "{" not in text and os.path.isfile(text):
        raise TemplateError(
            f"The template {text!r} is the name of a file.", f"Write --template @{text} to read it."
        )
    return text


def _text_of(text: str) -> str:
    if not text.startswith("@"):
        return text
    return _read_text(Path(text[1:]), TemplateError)


def _read_text(path: Path, error_type: type[TemplateError | OutputError]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise error_type(f"{path} cannot be read: {reason}.", "Check the path.") from None


def read_response_model(schema: Path | None, name: str | None) -> Any:
    """What ``response_model=`` takes: a JSON Schema out of a file, or a class by its name."""
    if schema is not None and name is not None:
        raise OutputError("Both --schema and --response-model were given.", "Give one of them.")
    if name is not None:
        return _import_class(name)
    if schema is None:
        return None
    try:
        return json.loads(_read_text(schema, OutputError))
    except ValueError as error:
        raise OutputError(f"{schema} is not JSON: {error}.", "Mend the file.") from None


def _import_class(name: str) -> Any:
    """The class that ``module:Class`` names; modules of the working folder are found, too."""
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise OutputError(
            f"--response-model {name} names no class.", "Write MODULE:CLASS, as in answers:Product."
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    except Exception as error:
        raise OutputError(
            f"--response-model {name} cannot be imported: {type(error).__name__}: {error}.",
            "Check the module, the class, and the folder you are in.",
        ) from error
