"""Check the options of `submit` that need no row, and make a job's plan from them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, cast, get_args

import pandas as pd

from frameenrich.answers.column_names import JobColumns
from frameenrich.answers.confidence import confidence_params
from frameenrich.answers.output import Output
from frameenrich.errors import OutputError, ParameterError
from frameenrich.model import (
    TAG_LENGTH,
    ImageDetail,
    JobSpec,
    Json,
    Message,
    OnBadImage,
    OnNull,
    OutputKind,
    OutputSpec,
    Pace,
)
from frameenrich.prepare.batch_options import check_confirm_seconds, check_metadata
from frameenrich.prepare.caching import check_cache
from frameenrich.prepare.codebook import with_definitions
from frameenrich.prepare.examples import rows_of_examples, with_example_hashes, with_examples
from frameenrich.prepare.image_sizes import side_looked_at
from frameenrich.prepare.json_modes import (
    Asking,
    asking_by,
    check_json_mode,
    choose_asking,
    warn_how_asked,
)
from frameenrich.prepare.output_options import output_from_options
from frameenrich.prepare.params import check_params
from frameenrich.prepare.samples import check_takes_samples, with_samples
from frameenrich.prepare.submit_options import Options
from frameenrich.pricing.money import check_max_cost
from frameenrich.pricing.prices import check_prices
from frameenrich.providers.protocol import Provider
from frameenrich.rendering.body import request_body
from frameenrich.rendering.caching import with_marks
from frameenrich.rendering.prompt import Prompt, prompt_of
from frameenrich.rendering.template_source import Template, read_template
from frameenrich.text import kind_of, shortened

ENDPOINTS = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/moderations",
)


_WITH_IMAGES = ENDPOINTS[:2]


_ONE_TEXT = ENDPOINTS[2:]  # one row a request: inputs in one would share a custom_id


_DATA_KINDS: Mapping[str, OutputKind] = {
    "/v1/embeddings": "embedding",
    "/v1/moderations": "moderation",
}


_MAX_NAME = 80


@dataclass(frozen=True)
class Plan:
    """A spec and what is needed to render it, for `preview`, `estimate` and `submit` alike.

    ``written`` are the messages without a description of the answer's structure, where the spec's
    have one; ``shown`` are the rows that the messages show as examples.
    """

    spec: JobSpec
    output: Output
    written: tuple[Message, ...] | None = None
    shown: pd.DataFrame | None = None

    @property
    def prompt(self) -> Prompt:
        """The compiled templates."""
        return prompt_of(self.spec)

    @cached_property
    def columns(self) -> JobColumns:
        """The columns that the job will make."""
        return JobColumns.of(self.spec, self.output)

    def check_uses_rows(self, columns: Sequence[Any], rows: int) -> None:
        """Refuse a job that would send the same request for each of several rows."""
        if not self.spec.image and self.spec.messages:
            self.prompt.check_uses_rows(columns, rows)

    def sent_to(self, provider: str, url: str, server: str = "") -> Self:
        """Return the plan for a provider, with its name of the endpoint.

        The server decides how the job asks for structure; the user is warned of the consequences.
        """
        routed = replace(self, spec=replace(self.spec, provider=provider, url=url))
        plan = routed.asking(choose_asking(routed.spec, server))
        warn_how_asked(plan.spec, self.spec.messages)
        return plan

    def asking(self, asking: Asking) -> Self:
        """Return the plan of the same job that asks for structure in another way."""
        written = self.spec.messages if self.written is None else self.written
        spec = asking_by(self.spec, written, asking)
        if self.shown is not None:  # an input hash is of all messages, and these have changed
            spec = with_example_hashes(spec, self.shown)
        return replace(self, spec=spec, written=written)


def make_plan(template: Template, model: str, options: Options, *, pilot: bool = False) -> Plan:
    """Check the options that need neither a frame nor a provider, and make a plan of them.

    Parameters
    ----------
    template, model, options
        As ``df.llmbatch.submit`` takes them.
    pilot : bool
        Whether the job is a pilot: a job of its own, of some rows, sent before the whole.

    Raises
    ------
    InputError
        One of them cannot be used; the message says which and why.
    """
    check_name(options.name)
    check_model(model)
    _check_queue(options.max_enqueued_tokens)
    if options.on_null not in get_args(OnNull):
        raise ParameterError(
            f"on_null={options.on_null!r} is not known.", "Use 'raise', 'empty' or 'skip'."
        )
    endpoint, params = options.endpoint, {} if options.params is None else options.params
    if endpoint not in ENDPOINTS:
        raise ParameterError(
            f"endpoint={endpoint!r} is not supported.",
            f"Use one of: {', '.join(ENDPOINTS)}.",
        )
    output = _output(endpoint, options)
    if options.logprobs:
        if output.spec.kind != "labels":
            raise ParameterError(
                "logprobs=True says how sure a label is, and there are no labels=.",
                "Give labels=, or ask for logprobs in params=.",
            )
        params = confidence_params(endpoint, params)
    messages, sources = read_template(template, options.system)
    # The schema holds the labels alone, so a codebook's definitions go into the prompt.
    if isinstance(options.labels, Mapping):
        labels = output.fields[0].categories
        messages = with_definitions(messages, labels, list(options.labels.values()))
    checked = check_params(params, endpoint, output.spec, options.json_mode)
    # `True == 1`, so check the type, too; then `with_samples` refuses it.
    if type(options.samples) is not int or options.samples != 1:
        output = with_samples(output, options.samples, endpoint, checked)
        # After `check_params`, which refuses an `n` from the user.
        checked = dict(sorted({**checked, "n": options.samples}.items()))
    spec = JobSpec(
        name=options.name,
        model=model,
        messages=messages,
        endpoint=endpoint,
        url=endpoint,
        provider="",  # both are set by `Plan.sent_to`, once the provider is known
        params=checked,
        output=output.spec,
        json_mode=check_json_mode(options.json_mode, output.spec),
        key=key_parts(options.key),
        prefix=options.prefix,
        on_null=cast("OnNull", options.on_null),
        sources=sources,
        max_enqueued_tokens=options.max_enqueued_tokens,
        max_cost=check_max_cost(options.max_cost),
        prices=check_prices(options.prices),
        pace=pace_of(options),
        pilot=pilot,
        image=_image_columns(options),
        image_root=os.fspath(options.image_root),
        image_detail=options.image_detail,
        image_max_pixels=None if options.image_max_pixels == "auto" else options.image_max_pixels,
        # Pictures are made smaller only by the default: who gave a size has said what is wanted.
        image_side=side_looked_at(model, options.image_detail)
        if options.image is not None and options.image_max_pixels == "auto"
        else None,
        image_max_bytes=options.image_max_bytes,
        on_bad_image=_on_bad_image(options),
        metadata=check_metadata(options.metadata),
        completion_window=options.completion_window,
        tag=new_tag(),
        confirm_seconds=check_confirm_seconds(options.confirm_seconds),
        cache=check_cache(options.cache),
    )
    _check_messages(spec)
    # Last, as examples are rendered by the finished spec and checked by its output.
    shown = None
    if options.examples is not None:
        shown = rows_of_examples(options.examples)
        spec = with_example_hashes(with_examples(spec, output, shown), shown)
    plan = Plan(spec, output, shown=shown)
    plan.columns.check()
    return plan


def plan_ready(models: Iterable[str], endpoint: str, options: Options) -> Plan:
    """Plan ready requests: how their answers are read, and what they may cost.

    Raises
    ------
    InputError
        One of the options cannot be used; the message says which and why.
    """
    check_name(options.name)
    _check_queue(options.max_enqueued_tokens)
    output = _output(endpoint, options)
    spec = JobSpec(
        name=options.name,
        model=", ".join(sorted(models)),
        messages=(),
        endpoint=endpoint,
        url=endpoint,
        provider="",
        output=output.spec,
        key=("custom_id",),
        prefix=options.prefix,
        max_enqueued_tokens=options.max_enqueued_tokens,
        max_cost=check_max_cost(options.max_cost),
        prices=check_prices(options.prices),
        pace=pace_of(options),
        metadata=check_metadata(options.metadata),
        completion_window=options.completion_window,
        confirm_seconds=check_confirm_seconds(options.confirm_seconds),
        tag=new_tag(),
    )
    plan = Plan(spec, output)
    plan.columns.check()
    return plan


def new_tag() -> str:
    """Make the tag that ends the custom_ids of one job, so that a line says whose it is."""
    # Random, as it is needed before the first row and the job's id is known after the last.
    return secrets.token_hex(TAG_LENGTH // 2)


def pace_of(options: Options) -> Pace | None:
    """Return the limits of live calls; None where the user gives none."""
    limits = (
        options.requests_per_minute,
        options.tokens_per_minute,
        options.request_timeout_seconds,
    )
    in_flight = options.max_in_flight
    if in_flight is None and limits == (None, None, None):
        return None
    return Pace(Pace().max_in_flight if in_flight is None else in_flight, *limits)


def _output(endpoint: str, options: Options) -> Output:
    """Make the output of the options; an endpoint that answers with data has one form."""
    output = output_from_options(options.labels, options.response_model, options.parser)
    kind = _DATA_KINDS.get(endpoint)
    if kind is None:
        return output
    if output.spec.kind != "text":
        given = "a vector" if kind == "embedding" else "a verdict"
        raise OutputError(
            f"endpoint={endpoint!r} answers with {given}, which has one form.",
            "Leave out labels=, response_model= and parser=, or use '/v1/chat/completions'.",
        )
    # Other kinds of params are refused later, with all other parameters.
    params = options.params if isinstance(options.params, Mapping) else {}
    dimensions = _dimensions(params) if kind == "embedding" else None
    return Output(OutputSpec(kind, dimensions=dimensions))


def _dimensions(params: Mapping[str, Any]) -> int | None:
    dimensions = params.get("dimensions")
    if dimensions is None:
        return None
    # The reader needs the length, so it is checked here and not only at the provider.
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 1:
        raise ParameterError(
            f"dimensions={dimensions!r} is not the length of a vector.",
            "Give a whole number above 0.",
        )
    return dimensions


def _image_columns(options: Options) -> tuple[str, ...]:
    image, detail, max_pixels = options.image, options.image_detail, options.image_max_pixels
    columns = () if image is None else _names(image)
    if columns is None or (image is not None and not columns):
        raise ParameterError(
            f"image={image!r} names no column.", "Give the name of a column, or a list of names."
        )
    if detail is not None and detail not in get_args(ImageDetail):
        raise ParameterError(
            f"image_detail={detail!r} is not known.", "Use 'low', 'high' or 'auto'."
        )
    word = isinstance(max_pixels, str) and max_pixels == "auto"
    if not (word or max_pixels is None or _is_limit(max_pixels)):
        raise ParameterError(
            f"image_max_pixels={kind_of(max_pixels)} is not a number of pixels.",
            "Give a whole number of pixels from 1 on, 'auto' (what the model looks at), or None "
            "(as they are).",
        )
    if not _is_limit(options.image_max_bytes):
        raise ParameterError(
            f"image_max_bytes={options.image_max_bytes!r} is not a size of an image.",
            "Give a whole number of bytes from 1 on.",
        )
    if not columns and (detail is not None or isinstance(max_pixels, int)):
        raise ParameterError(
            "image_detail= or image_max_pixels= is given, and image= is not.",
            "Name the column with the images: image='photo'.",
        )
    return columns


def _is_limit(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _on_bad_image(options: Options) -> OnBadImage:
    policy = options.on_bad_image
    if policy not in get_args(OnBadImage):
        raise ParameterError(f"on_bad_image={policy!r} is not known.", "Use 'raise' or 'skip'.")
    if options.image is None and policy != "raise":
        raise ParameterError(
            f"on_bad_image={policy!r} is given, and image= is not.",
            "Name the column with the images: image='photo'.",
        )
    return cast("OnBadImage", policy)


def _check_messages(spec: JobSpec) -> None:
    """Refuse messages that the endpoint has no room for."""
    endpoint = spec.endpoint
    if endpoint in _ONE_TEXT and (len(spec.messages) > 1 or spec.output.schema):
        raise ParameterError(
            f"endpoint={endpoint!r} takes one text"
            + (" and gives plain text." if endpoint == "/v1/completions" else "."),
            "Leave out system=, labels= and response_model=, or use '/v1/chat/completions'.",
        )
    if spec.image and endpoint not in _WITH_IMAGES:
        raise ParameterError(
            f"endpoint={endpoint!r} takes no images.", f"Use one of: {', '.join(_WITH_IMAGES)}."
        )
    if spec.image and not any(message.role == "user" for message in spec.messages):
        raise ParameterError(
            "image= needs a message of the role 'user' to put the images in.",
            'Add {"role": "user", "content": "..."} to the template.',
        )


def check_model(model: object) -> None:
    """Refuse a ``model=`` that names no model.

    Raises
    ------
    ParameterError
        It is empty, or no text.
    """
    example = "Name a model, such as 'gpt-4o-mini'."
    if model is None or (isinstance(model, str) and not model.strip()):
        raise ParameterError("model= is empty.", example)
    if not isinstance(model, str):
        raise ParameterError(f"model= is {kind_of(model)}, which names no model.", example)
    if "{{" in model:  # both are texts, so the order is easily mistaken
        raise ParameterError(
            f"model= is {shortened(model)!r}, which is a template.",
            "The template comes first, then the model.",
        )


def key_parts(key: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the columns that ``key=`` names; None for the index."""
    if key is None:
        return None
    names = _names(key)
    if not names:
        raise ParameterError(
            f"key={kind_of(key)} names no column." if names is None else "key= names no column.",
            "Name one or more, as texts, or leave key= out to use the index.",
        )
    return names


def _names(columns: Any) -> tuple[str, ...] | None:
    """Return columns given as one text or several; None where they are neither."""
    if isinstance(columns, str):  # first, as a text is an iterable of its letters
        return (columns,)
    if not isinstance(columns, Iterable):
        return None
    names = tuple(columns)
    return names if all(isinstance(name, str) for name in names) else None


def check_name(name: str) -> None:
    """Refuse a name that cannot name a column.

    Raises
    ------
    ParameterError
        It is empty, too long, or not printable.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > _MAX_NAME:
        raise ParameterError(
            f"name={name!r} cannot name a column.", f"Give 1 to {_MAX_NAME} characters."
        )
    if not name.isprintable():
        raise ParameterError(
            f"name={name!r} holds control characters.", "Use printable characters only."
        )


def _check_queue(max_enqueued_tokens: int | None) -> None:
    if max_enqueued_tokens is not None and max_enqueued_tokens < 1:
        raise ParameterError(
            f"max_enqueued_tokens={max_enqueued_tokens} lets nothing through.",
            "Give the model's limit of enqueued prompt tokens, or leave it out.",
        )


def check_request(
    provider: Provider, spec: JobSpec, params: Mapping[str, Json] | None = None
) -> None:
    """Let a provider refuse what its API cannot carry, before anything is written or sent.

    Raises
    ------
    ParameterError
        It cannot carry the job's requests, or not with `params` in place of their own.
    """
    check_takes_samples(provider, spec)
    check = getattr(provider, "check", None)
    if check is not None:
        # One body with empty texts stands for all: what an API refuses does not depend on a row.
        image = ("data:image/png;base64,",) if spec.image else ()
        if spec.messages:
            body = with_marks(spec, request_body(spec, [""] * len(spec.messages), image))
        else:  # the requests came ready, and were checked as they are
            body = {"model": spec.models[0], "messages": [{"role": "user", "content": ""}]}
        check({**body, **(params or {})})
