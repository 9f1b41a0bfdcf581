"""From wishes to a plan: the checks of `submit` that need no row, and the spec they make."""

from __future__ import annotations

import difflib
import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from frameenrich.errors import ParameterError, TemplateError
from frameenrich.model import JobSpec, Message, OnNull, OutputSpec
from frameenrich.output import Output
from frameenrich.render import Prompt

Template = str | Path | Sequence[Mapping[str, str]]

ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/completions")
_MAX_NAME = 80
_OURS = frozenset({"model", "messages", "input", "prompt"})
_PARAMETER_TYPES = {
    "/v1/chat/completions": "openai.types.chat.completion_create_params",
    "/v1/responses": "openai.types.responses.response_create_params",
    "/v1/completions": "openai.types.completion_create_params",
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


def prompt_of(spec: JobSpec) -> Prompt:
    """The templates of a job."""
    return Prompt(spec.messages, spec.on_null, spec.sources)


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
) -> Plan:
    """Check every wish that needs no frame, and put them together.

    Raises
    ------
    InputError
        One of them cannot be used; the message says which and why.
    """
    _check_name(name)
    if not isinstance(model, str) or not model.strip():
        raise ParameterError("model= is empty.", "Name a model, such as 'gpt-4o-mini'.")
    if max_enqueued_tokens is not None and max_enqueued_tokens < 1:
        raise ParameterError(
            f"max_enqueued_tokens={max_enqueued_tokens} lets nothing through.",
            "Give the model's limit of enqueued prompt tokens, or leave it out.",
        )
    if on_null not in get_args(OnNull):
        raise ParameterError(
            f"on_null={on_null!r} is not known.", "Use 'raise', 'empty' or 'skip'."
        )
    if endpoint not in ENDPOINTS:
        raise ParameterError(
            f"endpoint={endpoint!r} is not one this version answers for.",
            f"Use one of: {', '.join(ENDPOINTS)}.",
        )
    messages, sources = read_template(template, system)
    spec = JobSpec(
        name=name,
        model=model,
        messages=messages,
        endpoint=endpoint,
        url=url,
        provider=provider,
        params=check_params(params or {}, endpoint, output.spec),
        output=output.spec,
        key=_key_columns(key),
        prefix=prefix,
        on_null=cast("OnNull", on_null),
        sources=sources,
        max_enqueued_tokens=max_enqueued_tokens,
    )
    if endpoint == "/v1/completions" and (len(messages) > 1 or output.spec.schema):
        raise ParameterError(
            "endpoint='/v1/completions' takes one text and gives plain text.",
            "Leave out system=, labels= and response_model=, or use '/v1/chat/completions'.",
        )
    return Plan(spec, output)


def _key_columns(key: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if key is None or isinstance(key, str):
        return None if key is None else (key,)
    if not key:
        raise ParameterError(
            "key= names no column.", "Name one or more, or leave key= out to use the index."
        )
    return tuple(key)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not name.strip() or len(name) > _MAX_NAME:
        raise ParameterError(
            f"name={name!r} cannot name a column.", f"Give 1 to {_MAX_NAME} characters."
        )
    if not name.isprintable():
        raise ParameterError(
            f"name={name!r} holds control characters.", "Use printable characters only."
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
        if isinstance(role, str) and isinstance(content, str):
            return Message(role, content)
    raise TemplateError(
        f"A message of the template is {item!r}.",
        'Write each as {"role": "user", "content": "... {{ column }} ..."}.',
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
        if isinstance(item, type) and item.__name__.endswith("CreateParamsBase"):
            names |= set(item.__annotations__)
    return frozenset(names | {"stream"})


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value
