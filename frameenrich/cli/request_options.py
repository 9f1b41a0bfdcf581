"""Define the command line's options on requests, and turn them into arguments of ``submit``.

A field with the name of an option of `submit` is passed on as it is: a new option needs only its
field here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from frameenrich.cli.option_groups import given
from frameenrich.cli.values import (
    import_named,
    pixels_of,
    read_params,
    read_response_model,
    read_rows,
    read_template,
    split_commas,
    text_of,
)
from frameenrich.model import JsonMode

_ASK = "What to ask"
_IMAGES = "Images"
_ANSWER = "What an answer has to be"


@dataclass(frozen=True)
class PromptOptions:
    """Options that every request needs: a template, a model, and the row's key."""

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

    def kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of every verb with a template."""
        # Three ways to write a template on the command line, and one argument of `submit`.
        template = read_template(self.template, self.template_file)
        params = read_params(self.param)
        return given(self, template=template, template_file=None, params=params, param=None)


@dataclass(frozen=True)
class Images:
    """Options on columns with images, and on how images are sent."""

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
        str | None,
        typer.Option(
            metavar="PIXELS",
            help="Make images whose longest side has more pixels smaller, which takes Pillow; none "
            "sends them as they are.",
            rich_help_panel=_IMAGES,
            show_default="what the model looks at",
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
    on_bad_image: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="What becomes of a row with an image that cannot be used: raise, or skip (not "
            "sent; its status is 'skipped', with the reason).",
            rich_help_panel=_IMAGES,
            show_default="raise",
        ),
    ] = None

    def kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of ``submit`` that are about images."""
        # `given` drops what was left out, so that a default has one place: the signature of
        # `submit`.
        kwargs = given(self)
        if self.image_max_pixels is not None:
            kwargs["image_max_pixels"] = pixels_of(self.image_max_pixels)
        return kwargs


@dataclass(frozen=True)
class AnswerOptions:
    """Options on reading answers, for ``submit``, and for ``collect`` to read them differently."""

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

    def kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments that say how answers are read."""
        return given(
            self,
            labels=None if self.labels is None else split_commas(self.labels),
            schema=None,
            response_model=read_response_model(self.schema, self.response_model),
            parser=None if self.parser is None else import_named("--parser", self.parser),
        )


@dataclass(frozen=True)
class RequestOptions:
    """Options that turn rows into requests, for ``submit`` and ``preview``."""

    prompt: PromptOptions
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
    examples: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A table of examples with their answers, shown to the model: the template's "
            "columns, and one called as the answers' or 'answer'.",
            rich_help_panel=_ASK,
        ),
    ] = None
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="Answers to each row, in one request: the value is what most of them say.",
            rich_help_panel=_ANSWER,
            show_default="1",
        ),
    ] = None
    json_mode: Annotated[
        JsonMode | None,
        typer.Option(
            metavar="MODE",
            help="How structure is asked for: schema, object, tools or prompt.",
            rich_help_panel=_ANSWER,
            show_default="auto",
        ),
    ] = None
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

    def kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of ``preview``; `submit` takes them, too."""
        return {
            **self.prompt.kwargs(),
            **self.images.kwargs(),
            **self.answering.kwargs(),
            **given(
                self,
                system=self.system and text_of(self.system),
                examples=None if self.examples is None else read_rows(self.examples),
            ),
        }


@dataclass(frozen=True)
class Embedding:
    """Options that turn rows into embedding requests, for ``embed``."""

    prompt: PromptOptions
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

    def kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of ``submit`` for an embedding."""
        # `submit` has no option for it: the endpoint takes it as a request parameter.
        options = {**self.prompt.kwargs(), **given(self, dimensions=None)}
        if self.dimensions is not None:
            options["params"] = {**options["params"], "dimensions": self.dimensions}
        return {**options, "endpoint": "/v1/embeddings"}
