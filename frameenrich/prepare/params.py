"""Check the request parameters that a user passes as `params=`."""

from __future__ import annotations

import ast
import contextlib
import difflib
import enum
import functools
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frameenrich.errors import ParameterError
from frameenrich.model import JsonMode, OutputSpec
from frameenrich.pricing.tokens import LARGEST_CAP
from frameenrich.text import kind_of

# One of these in params= would replace the row's own text, or the model that prices are of.
_OURS = frozenset({"model", "messages", "input", "prompt"})


_PARAMETER_TYPES = {
    "/v1/chat/completions": "openai.types.chat.completion_create_params",
    "/v1/responses": "openai.types.responses.response_create_params",
    "/v1/completions": "openai.types.completion_create_params",
    "/v1/embeddings": "openai.types.embedding_create_params",
    "/v1/moderations": "openai.types.moderation_create_params",
}


def check_params(
    params: Mapping[str, Any] | None,
    endpoint: str,
    output: OutputSpec,
    json_mode: JsonMode = "auto",
) -> dict[str, Any]:
    """Check that the endpoint knows each parameter; ``extra_body`` passes others unchecked.

    Raises
    ------
    ParameterError
        One is unknown, or is ours to set.
    """
    params = {} if params is None else params
    example = 'Give a dict, such as {"temperature": 0}.'
    if not isinstance(params, Mapping):
        raise ParameterError(f"params= is {kind_of(params)}.", example)
    if not all(isinstance(name, str) for name in params):
        raise ParameterError("params= holds a name that is no text.", example)
    extra = params.get("extra_body") or {}
    if not isinstance(extra, Mapping):
        raise ParameterError(
            f"params= holds an extra_body of type {type(extra).__name__}.",
            'Write params={"extra_body": {"name": value}}.',
            name="extra_body",
        )
    given = {name: _plain(value) for name, value in params.items() if name != "extra_body"}
    # Reading `openai`'s types takes time, so only where there is a parameter to check.
    known = _known_parameters(endpoint) if given else {}
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
    _check_values(merged, output, json_mode)
    for name, value in given.items():
        if name in CAPS:
            _check_cap(name, value)
        else:
            _check_type(name, value, known[name])
    # Sorted, so that the order in which a user writes them makes no other request hash.
    return dict(sorted(merged.items()))


CAPS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
"""The names of the cap on an answer's tokens, at one endpoint or another."""


def _check_cap(name: str, value: Any) -> None:
    """Refuse a cap that is no number of tokens: each row of a batch would come back as an error."""
    if value is None:
        return
    # 1000.0 is left as it is written: a float is JSON's integer, and another request than 1000.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 1 <= value <= LARGEST_CAP and value == int(value):
        return
    kind = f"the text {value!r}" if isinstance(value, str) else f"{value!r}"
    raise ParameterError(
        f"params= sets {name!r} to {kind}, which is no number of tokens.",
        f'Give a whole number from 1 to {LARGEST_CAP:,}, such as {{"{name}": 1000}}, or leave it '
        "out; what only your server understands goes into extra_body.",
        name=name,
    )


_WORDS = {
    "float": "number",
    "int": "whole number",
    "bool": "boolean",
    "str": "text",
    "dict": "object",
}
"""What messages call a parameter's type."""


def _check_type(name: str, value: Any, wanted: str) -> None:
    """Refuse a value of another type than the API takes: each row would come back as an error."""
    if value is None or wanted not in _WORDS or _is_of(value, wanted):
        return
    said = f"the text {value!r}" if isinstance(value, str) else f"{value!r}"
    raise ParameterError(
        f"params= sets {name!r} to {said}, which is no {_WORDS[wanted]}.",
        f"Write params={{{name!r}: {_example(value, wanted)}}}; what only your server understands "
        "goes into extra_body.",
        name=name,
    )


def _is_of(value: Any, wanted: str) -> bool:
    if wanted in {"float", "int"}:  # 5.0 is left as it is written, as it is for a cap
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (wanted == "float" or isinstance(value, int) or value.is_integer())
    return isinstance(value, {"bool": bool, "str": str, "dict": Mapping}[wanted])


def _example(value: Any, wanted: str) -> str:
    """Return the value as it was meant where that can be seen, else one of its type."""
    # A text may be anything: nested too deeply for Python's parser, or an endless number.
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        text = str(value).strip()
        meant = ast.literal_eval(text.capitalize() if wanted == "bool" else text)
        json.dumps(meant, allow_nan=False)
        if _is_of(meant, wanted):
            return repr(meant)
    if wanted == "str":
        return repr(str(value))
    return {"float": "0.1", "int": "1", "bool": "True", "dict": "{...}"}[wanted]


def _check_values(params: Mapping[str, Any], output: OutputSpec, json_mode: JsonMode) -> None:
    for name, value in params.items():
        try:
            # NaN is no JSON: a server would refuse the line, Python's default would write it.
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ParameterError(
                f"params= sets {name!r} to {value!r}, which JSON cannot carry ({error}).",
                "Give plain numbers, texts, booleans, lists and dicts.",
                name=name,
            ) from None
    if params.get("stream"):
        raise ParameterError("params= asks for a stream.", "Leave out 'stream': batches have none.")
    # Only samples= tells the reader of answers that there are several.
    if params.get("n", 1) != 1:
        raise ParameterError(
            "params= asks for several answers a row (n).",
            "Pass samples= in its place: the value is what most of them say.",
        )
    ours = {"tools", "tool_choice"} if json_mode == "tools" else set[str]()
    taken = {"response_format", "text", *ours} & set(params)
    if output.schema is not None and taken:
        name = taken.pop()
        raise ParameterError(
            f"params= sets {name!r} beside labels= or response_model=, which set it too.",
            "Give one of them.",
        )


def request_parameters() -> frozenset[str]:
    """Return the parameters of text requests, at chat completions and responses."""
    chat, responses = map(_known_parameters, ("/v1/chat/completions", "/v1/responses"))
    return frozenset(chat.keys() | responses.keys()) - _OURS


@functools.cache
def text_parameters() -> frozenset[str]:
    """Return the parameters that are texts at each endpoint that knows them."""
    known = [_known_parameters(endpoint) for endpoint in _PARAMETER_TYPES]
    kinds = {
        name: {each[name] for each in known if name in each} for each in known for name in each
    }
    return frozenset(name for name, found in kinds.items() if found == {"str"}) - _OURS


@functools.cache
def _known_parameters(endpoint: str) -> dict[str, str]:
    """Return the endpoint's parameters, as the types of the installed `openai` package list them.

    Each with its type where that is a plain one, else with whatever its annotation says.

    Their source is parsed: importing them, with all that they import, takes as long as pandas.
    """
    package, *parts = _PARAMETER_TYPES[endpoint].split(".")
    spec = importlib.util.find_spec(package)
    (folder,) = (spec.submodule_search_locations if spec else None) or ("",)
    source = Path(folder, *parts).with_suffix(".py").read_text(encoding="utf-8")
    names = {
        line.target.id: _DICTS.get(line.target.id, _type_in(line.annotation))
        for item in ast.parse(source).body
        if isinstance(item, ast.ClassDef) and item.name.endswith(("CreateParams", _BASE))
        for line in item.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }
    # The types have "stream" in subclasses only; known, it gets an error of its own.
    return {"stream": "", **names}


# Classes in the annotations, which are objects in JSON; a word in their stead is a common mistake.
_DICTS = dict.fromkeys(("response_format", "text", "reasoning", "logit_bias", "metadata"), "dict")


def _type_in(annotation: ast.expr) -> str:
    """Return the type that an annotation names: ``float`` for ``Required[Optional[float]]``."""
    while isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
        if annotation.value.id not in {"Optional", "Required"}:
            break
        annotation = annotation.slice
    return ast.unparse(annotation)


_BASE = "CreateParamsBase"


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value
