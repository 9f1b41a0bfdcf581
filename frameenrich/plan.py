"""From wishes to a plan: the checks of `submit` that need no row, and the spec they make."""

from __future__ import annotations

import difflib
import enum
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast, get_args

from frameenrich.confidence import confidence_params
from frameenrich.cost import check_max_cost
from frameenrich.errors import (
    ColumnCollisionError,
    FrameEnrichWarning,
    OutputError,
    ParameterError,
    TemplateError,
)
from frameenrich.merge import output_columns, usage_columns
from frameenrich.model import (
    MAX_IMAGE_BYTES,
    ImageDetail,
    JobSpec,
    Message,
    OnNull,
    OutputKind,
    OutputSpec,
    Pace,
)
from frameenrich.output import Output
from frameenrich.prices import PricesLike, check_prices
from frameenrich.render import Prompt
from frameenrich.shard import strict_schema

Template = str | Path | Sequence[Mapping[str, str]]

ENDPOINTS = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/moderations",
)
_WITH_IMAGES = ENDPOINTS[:2]
_ONE_TEXT = ENDPOINTS[2:]
_DATA_KINDS: Mapping[str, OutputKind] = {
    "/v1/embeddings": "embedding",
    "/v1/moderations": "moderation",
}
_MAX_NAME = 80
_ROLES = ("system", "developer", "user", "assistant")
_OURS = frozenset({"model", "messages", "input", "prompt"})
_PARAMETER_TYPES = {
    "/v1/chat/completions": "openai.types.chat.completion_create_params",
    "/v1/responses": "openai.types.responses.response_create_params",
    "/v1/completions": "openai.types.completion_create_params",
    "/v1/embeddings": "openai.types.embedding_create_params",
    "/v1/moderations": "openai.types.moderation_create_params",
}


@dataclass(frozen=True)
class Plan:
    """A spec with what is needed to render it; what `preview`, `estimate` and `submit` share."""

    spec: JobSpec
    output: Output

    @property
    def prompt(self) -> Prompt:
        """The compiled templates."""
        return prompt_of(self.spec)


def ready_plan(
    output: Output,
    *,
    models: Iterable[str],
    url: str,
    provider: str,
    endpoint: str,
    name: str,
    prefix: str,
    max_enqueued_tokens: int | None,
    max_cost: float | None,
    prices: PricesLike | None,
) -> Plan:
    """The plan of requests that came ready: where they go, and how their answers are read.

    Raises
    ------
    InputError
        One of the wishes cannot be used; the message says which and why.
    """
    _check_name(name)
    _check_queue(max_enqueued_tokens)
    output = _endpoint_output(endpoint, output, {})
    spec = JobSpec(
        name=name,
        model=", ".join(sorted(models)),
        messages=(),
        endpoint=endpoint,
        url=url,
        provider=provider,
        output=output.spec,
        key=("custom_id",),
        prefix=prefix,
        max_enqueued_tokens=max_enqueued_tokens,
        max_cost=check_max_cost(max_cost),
        prices=check_prices(prices),
    )
    _check_columns(spec, output)
    return Plan(spec, output)


def prompt_of(spec: JobSpec) -> Prompt:
    """The templates of a job; compiled once for whoever renders them in this process."""
    return _prompt(spec.messages, spec.on_null, tuple(spec.sources.items()))


@lru_cache(maxsize=16)
def _prompt(
    messages: tuple[Message, ...], on_null: OnNull, sources: tuple[tuple[str, str], ...]
) -> Prompt:
    return Prompt(messages, on_null, dict(sources))


def make_plan(
    template: Template,
    model: str,
    output: Output,
    *,
    url: str,
    provider: str,
    system: str | None = None,
    name: str = "llmbatch",
    key: str | Sequence[str] | None = None,
    params: Mapping[str, Any] | None = None,
    endpoint: str = "/v1/chat/completions",
    on_null: str = "raise",
    prefix: str = "",
    max_enqueued_tokens: int | None = None,
    max_cost: float | None = None,
    prices: PricesLike | None = None,
    max_in_flight: int | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    pilot: bool = False,
    logprobs: bool = False,
    image: str | Sequence[str] | None = None,
    image_root: str | os.PathLike[str] = ".",
    image_detail: ImageDetail | None = None,
    image_max_pixels: int | None = None,
    image_max_bytes: int = MAX_IMAGE_BYTES,
) -> Plan:
    """Check every wish that needs no frame, and put them together.

    Raises
    ------
    InputError
        One of them cannot be used; the message says which and why.
    """
    _check_name(name)
    check_model(model)
    _check_queue(max_enqueued_tokens)
    if on_null not in get_args(OnNull):
        raise ParameterError(
            f"on_null={on_null!r} is not known.", "Use 'raise', 'empty' or 'skip'."
        )
    if endpoint not in ENDPOINTS:
        raise ParameterError(
            f"endpoint={endpoint!r} is not one this version answers for.",
            f"Use one of: {', '.join(ENDPOINTS)}.",
        )
    output = _endpoint_output(endpoint, output, params or {})
    if logprobs:
        if output.spec.kind != "labels":
            raise ParameterError(
                "logprobs=True tells how sure a label is, and there are no labels=.",
                "Give labels=, or ask for logprobs in params=.",
            )
        params = confidence_params(endpoint, params or {})
    messages, sources = read_template(template, system)
    columns = _image_columns(image, image_detail, image_max_pixels, image_max_bytes)
    spec = JobSpec(
        name=name,
        model=model,
        messages=messages,
        endpoint=endpoint,
        url=url,
        provider=provider,
        params=check_params(params or {}, endpoint, output.spec),
        output=output.spec,
        key=key_parts(key),
        prefix=prefix,
        on_null=cast("OnNull", on_null),
        sources=sources,
        max_enqueued_tokens=max_enqueued_tokens,
        max_cost=check_max_cost(max_cost),
        prices=check_prices(prices),
        pace=_pace(max_in_flight, requests_per_minute, tokens_per_minute),
        pilot=pilot,
        image=columns,
        image_root=os.fspath(image_root),
        image_detail=image_detail,
        image_max_pixels=image_max_pixels,
        image_max_bytes=image_max_bytes,
    )
    _check_messages(spec)
    _check_columns(spec, output)
    warn_unless_strict(output.spec)
    return Plan(spec, output)


def _pace(in_flight: int | None, requests: int | None, tokens: int | None) -> Pace | None:
    if in_flight is None and requests is None and tokens is None:
        return None
    return Pace(Pace().max_in_flight if in_flight is None else in_flight, requests, tokens)


def _endpoint_output(endpoint: str, output: Output, params: Mapping[str, Any]) -> Output:
    """What an endpoint that answers with data gives; the others as they were."""
    kind = _DATA_KINDS.get(endpoint)
    if kind is None:
        return output
    if output.spec.kind != "text":
        given = "a vector" if kind == "embedding" else "a verdict"
        raise OutputError(
            f"endpoint={endpoint!r} answers with {given}, which has one form.",
            "Leave out labels=, response_model= and parser=, or use '/v1/chat/completions'.",
        )
    return Output(OutputSpec(kind, dimensions=_dimensions(params) if kind == "embedding" else None))


def _dimensions(params: Mapping[str, Any]) -> int | None:
    dimensions = params.get("dimensions")
    if dimensions is None:
        return None
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 1:
        raise ParameterError(
            f"dimensions={dimensions!r} is no length of a vector.", "Give a whole number above 0."
        )
    return dimensions


def _image_columns(
    image: str | Sequence[str] | None, detail: str | None, max_pixels: int | None, max_bytes: int
) -> tuple[str, ...]:
    columns = () if image is None else _names(image)
    if columns is None or (image is not None and not columns):
        raise ParameterError(
            f"image={image!r} names no column.", "Give the name of a column, or a list of names."
        )
    if detail is not None and detail not in get_args(ImageDetail):
        raise ParameterError(
            f"image_detail={detail!r} is not known.", "Use 'low', 'high' or 'auto'."
        )
    for name, limit in (("image_max_pixels", max_pixels), ("image_max_bytes", max_bytes)):
        if limit is not None and limit < 1:
            raise ParameterError(f"{name}={limit} lets no image through.", "Give 1 or more.")
    if not columns and (detail is not None or max_pixels is not None):
        raise ParameterError(
            "image_detail= or image_max_pixels= is given, and image= is not.",
            "Name the column with the images: image='photo'.",
        )
    return columns


def _check_columns(spec: JobSpec, output: Output) -> None:
    """Refuse fields whose columns would be one another's, or those that tell of the row."""
    names = [*output_columns(spec, output), *usage_columns(spec.name)]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ColumnCollisionError(
            f"Two of the columns that the answers go to would be called {twice[0]!r}.",
            "Pass another name=, or prefix= for the fields.",
            columns=twice,
        )


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
    """Refuse what names no model.

    Raises
    ------
    ParameterError
        It is empty, or no text.
    """
    if not isinstance(model, str) or not model.strip():
        raise ParameterError("model= is empty.", "Name a model, such as 'gpt-4o-mini'.")


def key_parts(key: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The columns that ``key=`` names; None for the index."""
    if key is None:
        return None
    names = _names(key)
    if not names:
        raise ParameterError(
            f"key={key!r} names no column." if key else "key= names no column.",
            "Name one or more, as texts, or leave key= out to use the index.",
        )
    return names


def _names(columns: Any) -> tuple[str, ...] | None:
    """The columns that were named by one text or several; None where that is none of both."""
    if isinstance(columns, str):
        return (columns,)
    if not isinstance(columns, Iterable):
        return None
    names = tuple(columns)
    return names if all(isinstance(name, str) for name in names) else None


def warn_unless_strict(output: OutputSpec) -> None:
    """Say it where the provider cannot be held to the schema; answers are validated all the same.

    Warns
    -----
    FrameEnrichWarning
        The schema has a part that strict structured output does not take.
    """
    if output.schema is not None and not strict_schema(output.schema)[1]:
        warnings.warn(
            "response_model= has a part that strict output does not take (a free-form object, a "
            "tuple, allOf or the like), so the model is asked for it but not held to it; answers "
            "that do not fit are flagged.",
            FrameEnrichWarning,
            stacklevel=5,  # the user's own line
        )


def _check_name(name: str) -> None:
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


def read_template(
    template: Template, system: str | None
) -> tuple[tuple[Message, ...], dict[str, str]]:
    """The messages of a prompt, and the other templates a file includes.

    Raises
    ------
    TemplateError
        It is empty, cannot be read, or is no list of role and content.
    """
    sources: dict[str, str] = {}
    if isinstance(template, Path):
        text = _read_file(template)
        sources = _included(text, template.parent)
        messages = [Message("user", text)]
    elif isinstance(template, str):
        _refuse_file_name(template)
        messages = [Message("user", template)]
    elif isinstance(template, Sequence):
        messages = [_message(item) for item in template]
    else:
        raise TemplateError(
            f"The template is a {type(template).__name__}.",
            "Give Jinja2 text, a Path to a template file, or a list of messages.",
        )
    if system is not None:
        messages.insert(0, _message({"role": "system", "content": system}))
    if not messages or not any(message.content.strip() for message in messages):
        raise TemplateError("The template is empty.", "Write what each row should ask.")
    return tuple(messages), sources


def _message(item: Any) -> Message:
    if isinstance(item, Mapping) and set(item) == {"role", "content"}:
        role, content = item["role"], item["content"]
        if role in _ROLES and isinstance(content, str):
            return Message(role, content)
    raise TemplateError(
        f"A message of the template is {item!r}.",
        'Write each as {"role": "user", "content": "... {{ column }} ..."}; '
        f"the roles are {', '.join(_ROLES)}.",
    )


def _refuse_file_name(template: str) -> None:
    """Else each row would ask the model for the name of a file."""
    if "{" not in template and template.strip() and os.path.isfile(template):
        raise TemplateError(
            f"The template {template!r} is the name of a file.",
            f"Pass pathlib.Path({template!r}) to read it.",
        )


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise TemplateError(
            f"The template {path} cannot be read: {reason}.", "Check the path.", path=str(path)
        ) from None


def _included(text: str, folder: Path) -> dict[str, str]:
    """The sources that a template file refers to, by name, so that the job stands alone."""
    import jinja2  # noqa: PLC0415 - used by this one function here
    from jinja2 import meta  # noqa: PLC0415

    sources: dict[str, str] = {}
    waiting = [text]
    while waiting:
        try:
            tree = jinja2.Environment(autoescape=False).parse(waiting.pop())  # noqa: S701 - text
        except jinja2.TemplateSyntaxError:
            continue  # said properly, with its line, when the prompt is compiled
        for name in meta.find_referenced_templates(tree):
            if name is None:
                raise TemplateError(
                    "The template includes a file whose name is computed.", "Write the name out."
                )
            path = (folder / name).resolve()
            if name not in sources:
                if folder.resolve() not in path.parents:
                    raise TemplateError(
                        f"The template includes {name!r}, which lies outside {folder}.",
                        "Keep included templates beside the template.",
                    )
                sources[name] = _read_file(path)
                waiting.append(sources[name])
    return sources


def check_params(params: Mapping[str, Any], endpoint: str, output: OutputSpec) -> dict[str, Any]:
    """The request parameters, each known to the endpoint; ``extra_body`` passes the rest as it is.

    Raises
    ------
    ParameterError
        One is unknown, or is ours to set.
    """
    if not isinstance(params, Mapping):
        raise ParameterError(
            f"params= is a {type(params).__name__}.", 'Give a dict, such as {"temperature": 0}.'
        )
    extra = params.get("extra_body") or {}
    if not isinstance(extra, Mapping):
        raise ParameterError(
            f"params= holds an extra_body of type {type(extra).__name__}.",
            'Write params={"extra_body": {"name": value}}.',
            name="extra_body",
        )
    given = {name: _plain(value) for name, value in params.items() if name != "extra_body"}
    known = _known_parameters(endpoint)
    for name in [*extra, *given]:
        if name in _OURS:
            raise ParameterError(
                f"params= sets {name!r}, which submit() sets itself.",
                "Use model=, template= and system= instead.",
                name=name,
            )
        if name in given and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ParameterError(
                f"params= holds {name!r}, which {endpoint} does not know.",
                (f"Did you mean {close[0]!r}? " if close else "")
                + 'For a server\'s own parameter write params={"extra_body": {...}}.',
                name=name,
            )
    merged = {**given, **{name: _plain(value) for name, value in extra.items()}}
    _check_values(merged, output)
    return dict(sorted(merged.items()))  # their order makes no other request


def _check_values(params: Mapping[str, Any], output: OutputSpec) -> None:
    for name, value in params.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ParameterError(
                f"params= sets {name!r} to {value!r}, which JSON cannot carry ({error}).",
                "Give plain numbers, texts, booleans, lists and dicts.",
                name=name,
            ) from None
    if params.get("stream"):
        raise ParameterError("params= asks for a stream.", "Leave out 'stream': batches have none.")
    if params.get("n", 1) != 1:
        raise ParameterError(
            "params= asks for several answers a row (n).", "Leave out 'n', or repeat the rows."
        )
    taken = {"response_format", "text"} & set(params)
    if output.schema is not None and taken:
        name = taken.pop()
        raise ParameterError(
            f"params= sets {name!r} beside labels= or response_model=, which set it too.",
            "Give one of them.",
        )


def _known_parameters(endpoint: str) -> frozenset[str]:
    """The endpoint's parameters, as the installed `openai` package's own types list them."""
    from importlib import import_module  # noqa: PLC0415 - the types are heavy; only when sending

    module = import_module(_PARAMETER_TYPES[endpoint])
    names: set[str] = set()
    for item in vars(module).values():
        if isinstance(item, type) and item.__name__.endswith(("CreateParams", "CreateParamsBase")):
            names |= set(item.__annotations__)
    return frozenset(names | {"stream"})


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value
