"""The command line's options: groups of them as values, and what they become for a `Job`.

A command takes a group as one parameter; `spread` makes one option of each of its fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from frameenrich.cli.values import (
    import_named,
    read_params,
    read_prices,
    read_response_model,
    read_template,
    split_commas,
    text_of,
)

_ASK = "What to ask"


_IMAGES = "Images"


_ANSWER = "What an answer has to be"


_SEND = "Where to"


_WAIT = "Waiting"


_IN_OUT = "In and out"


@dataclass(frozen=True)
class PromptOptions:
    """What every request needs: a text of each row, a model, and what names the row."""

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
            help="Jinja2 text of the message, such as 'Colour of {{ title }}?'; @FILE reads it. "
            "@FILE.json holds a list of messages.",
            rich_help_panel=_ASK,
        ),
    ] = None
    template_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The same as --template @FILE.", rich_help_panel=_ASK),
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
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="The column that names a row; by default its position does. May be given again.",
            rich_help_panel=_ASK,
        ),
    ] = None
    on_null: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="What becomes of a row where an empty cell would be printed: raise, empty or "
            "skip.",
            rich_help_panel=_ASK,
            show_default="raise",
        ),
    ] = None

    def wishes(self) -> dict[str, Any]:
        """The keyword arguments that every verb with a template has."""
        return {
            "template": read_template(self.template, self.template_file),
            "model": self.model,
            **given(params=read_params(self.param), key=self.key, on_null=self.on_null),
        }


@dataclass(frozen=True)
class Images:
    """Which columns hold a row's images, and how they are sent."""

    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="A column with images: URLs, or paths under --image-root. May be given again.",
            rich_help_panel=_IMAGES,
        ),
    ] = None
    image_root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The folder that image paths stay in.",
            rich_help_panel=_IMAGES,
            show_default="the working folder",
        ),
    ] = None
    image_detail: Annotated[
        str | None,
        typer.Option(
            metavar="DETAIL",
            help="How closely the model looks, which decides the price: low, high or auto.",
            rich_help_panel=_IMAGES,
        ),
    ] = None
    image_max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            help="Make images whose longest side has more pixels smaller; takes Pillow.",
            rich_help_panel=_IMAGES,
        ),
    ] = None
    image_max_bytes: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="BYTES",
            help="The most that one image may have.",
            rich_help_panel=_IMAGES,
            show_default="20 MB",
        ),
    ] = None

    def wishes(self) -> dict[str, Any]:
        """The keyword arguments of ``submit`` that are about images."""
        return given(**vars(self))


@dataclass(frozen=True)
class AnswerOptions:
    """How answers are read, as ``submit`` takes it, and ``collect`` to read them in another way."""

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
    parser: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNC",
            help="A function from an answer's text to a value, or to a dict of columns.",
            rich_help_panel=_ANSWER,
        ),
    ] = None

    def wishes(self) -> dict[str, Any]:
        """The keyword arguments that say how answers are read."""
        return given(
            labels=None if self.labels is None else split_commas(self.labels),
            response_model=read_response_model(self.schema, self.response_model),
            parser=None if self.parser is None else import_named("--parser", self.parser),
        )


@dataclass(frozen=True)
class RequestOptions:
    """What makes requests of rows, as ``df.llmbatch.submit`` and ``preview`` take it."""

    subject: PromptOptions
    images: Images
    answering: AnswerOptions
    system: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|@FILE", help="Template of a system message.", rich_help_panel=_ASK
        ),
    ] = None
    endpoint: Annotated[
        str, typer.Option(metavar="PATH", help="The API's endpoint.", rich_help_panel=_ASK)
    ] = "/v1/chat/completions"
    logprobs: Annotated[
        bool,
        typer.Option(
            "--logprobs",
            help="With --labels: add a column on how sure the model was.",
            rich_help_panel=_ANSWER,
        ),
    ] = False
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Names the answers' column, the status columns and the job.",
            rich_help_panel=_ANSWER,
            show_default="llmbatch",
        ),
    ] = None
    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Put before the name of each answer's column.",
            rich_help_panel=_ANSWER,
        ),
    ] = None

    def wishes(self) -> dict[str, Any]:
        """The keyword arguments of ``preview``; `submit` takes them, too."""
        return {
            **self.subject.wishes(),
            **self.images.wishes(),
            **self.answering.wishes(),
            "endpoint": self.endpoint,
            **given(
                system=self.system and text_of(self.system),
                logprobs=self.logprobs or None,
                name=self.name,
                prefix=self.prefix,
            ),
        }


@dataclass(frozen=True)
class Embedding:
    """What makes requests for vectors of rows, as ``df.llmbatch.embed`` takes it."""

    subject: PromptOptions
    dimensions: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="NUMBER", help="How long the vectors have to be.", rich_help_panel=_ASK
        ),
    ] = None
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Names the vectors' column, the status columns and the job.",
            rich_help_panel=_ANSWER,
        ),
    ] = "embedding"

    def wishes(self) -> dict[str, Any]:
        """The keyword arguments of ``submit`` for an embedding."""
        asked = self.subject.wishes()
        params = {**asked.pop("params", {}), **given(dimensions=self.dimensions)}
        return {**asked, "params": params, "endpoint": "/v1/embeddings", "name": self.name}


@dataclass(frozen=True)
class BudgetOptions:
    """What a job may cost, and what its model costs."""

    max_cost: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="USD",
            help="What the whole job may cost, later rounds too; else nothing is sent.",
            rich_help_panel=_SEND,
        ),
    ] = None
    prices: Annotated[
        str | None,
        typer.Option(
            metavar="INPUT,OUTPUT[,CACHED]",
            help="The model's price, in live USD per million tokens, where it is not known.",
            rich_help_panel=_SEND,
        ),
    ] = None

    def wishes(self) -> dict[str, Any]:
        """The keyword arguments ``max_cost`` and ``prices``, those that were given."""
        prices = None if self.prices is None else read_prices(self.prices)
        return given(max_cost=self.max_cost, prices=prices)


@dataclass(frozen=True)
class ProviderOptions:
    """Where requests go, and how."""

    provider: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="openai (Batch API), live (one call a request), azure, groq, together, anthropic, "
            "local (embedded model), file (nowhere), or another.",
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
    max_in_flight: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="REQUESTS",
            help="With --provider live: how many requests may wait for their answers at once.",
            rich_help_panel=_SEND,
            show_default="64",
        ),
    ] = None
    requests_per_minute: Annotated[
        int | None,
        typer.Option(
            "--rpm",
            min=1,
            metavar="REQUESTS",
            help="With --provider live: requests a minute.",
            rich_help_panel=_SEND,
        ),
    ] = None
    tokens_per_minute: Annotated[
        int | None,
        typer.Option(
            "--tpm",
            min=1,
            metavar="TOKENS",
            help="With --provider live: tokens a minute.",
            rich_help_panel=_SEND,
        ),
    ] = None
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Ask everything anew, and pay for it.", rich_help_panel=_SEND),
    ] = False
    spending: BudgetOptions = BudgetOptions()

    def wishes(self) -> dict[str, Any]:
        """The keyword arguments that ``submit`` has beside those of `RequestOptions`."""
        return {
            "provider": self.provider,
            "fresh": self.fresh,
            **given(
                max_enqueued_tokens=self.max_enqueued_tokens,
                max_in_flight=self.max_in_flight,
                requests_per_minute=self.requests_per_minute,
                tokens_per_minute=self.tokens_per_minute,
            ),
            **self.spending.wishes(),
        }


@dataclass(frozen=True)
class InputOptions:
    """How the table is read."""

    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="csv, tsv or jsonl, where no file ending says it, as for -.",
            rich_help_panel=_IN_OUT,
        ),
    ] = None
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="ROWS", help="The first rows only.", rich_help_panel=_IN_OUT),
    ] = None


@dataclass(frozen=True)
class StreamInputOptions(InputOptions):
    """How the table is read, where it may be larger than memory."""

    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            help="Whether IN is read a chunk at a time, which takes the same memory however large "
            "it is.",
            rich_help_panel=_IN_OUT,
            show_default="where it is larger than 256 MB",
        ),
    ] = None


@dataclass(frozen=True)
class CollectOptions:
    """How long to wait, what is written, and what is told of it."""

    usage: Annotated[
        bool,
        typer.Option(
            "--usage",
            help="Add columns on model, attempts, tokens and the raw answer.",
            rich_help_panel=_IN_OUT,
        ),
    ] = False
    flatten: Annotated[
        bool,
        typer.Option(
            "--flatten",
            help="Give nested objects a column for each member, field.sub.",
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
            rich_help_panel=_WAIT,
        ),
    ] = 0
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="How long to wait; for ever by default.",
            rich_help_panel=_WAIT,
        ),
    ] = None
    poll_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Between two looks; by default more and more.",
            rich_help_panel=_WAIT,
        ),
    ] = None

    def wishes(self) -> dict[str, Any]:
        """The keyword arguments of ``collect``."""
        return {
            "usage": self.usage,
            "flatten": self.flatten,
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


def given(**options: Any) -> dict[str, Any]:
    """The options that somebody gave."""
    return {name: value for name, value in options.items() if value is not None}
