"""Decide how a job asks for structure, and describe in the prompt what the request cannot.

The tables here say what servers and models take; answers are validated alike in every mode.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from frameenrich.errors import OutputError, ParameterError, warn_user
from frameenrich.model import SCHEMA_FORM, AskedBy, JobSpec, JsonMode, Message, OutputSpec
from frameenrich.prepare.codebook import with_system_text
from frameenrich.pricing.tokens import count_text
from frameenrich.rendering.answer_format import sent_schema
from frameenrich.rendering.large_choices import Choice, choices_text, without_large_choices
from frameenrich.rendering.strict_schema import why_not_strict

# --- what servers take ----------------------------------------------------------------------------

_OPENAI = frozenset({"openai", "azure"})


# A model with OpenAI's name may be behind a proxy: its limits hold whatever the host is.
_OPENAIS_NAMES = re.compile(r"(ft:)?(gpt-\d|o\d|chatgpt-)")


_BEFORE_SCHEMAS = re.compile(r"gpt-3\.5-|gpt-4-turbo|gpt-4-(1106|0125)-|gpt-4o-2024-05-13")
"""OpenAI's models that take JSON objects but no schema."""


_BEFORE_OBJECTS = re.compile(r"gpt-4(-32k)?(-0314|-0613)?$")
"""OpenAI's models that take neither, but can call tools."""


_DEEPSEEK = frozenset({"deepseek-chat", "deepseek-reasoner"})
"""The names at DeepSeek's own API; other servers run the same weights with schemas."""


def best_mode(provider: str, server: str, model: str) -> AskedBy:
    """Return the strictest mode that a model at a server is known to take; by default a schema.

    Parameters
    ----------
    provider : str
        The provider's name.
    server : str
        The host that requests go to, where it is known.
    model : str
        The model's name there.

    Examples
    --------
    >>> best_mode("groq", "api.groq.com", "llama-3.3-70b-versatile")
    'object'
    >>> best_mode("openai", "api.openai.com", "gpt-4o-mini")
    'schema'
    """
    # Groq takes schemas for gpt-oss alone, DeepSeek's API for none (docs/providers.md).
    if provider == "groq" or server.endswith("groq.com"):
        return "schema" if "gpt-oss" in model else "object"
    if server.endswith("deepseek.com") or model in _DEEPSEEK:
        return "object"
    if provider != "azure":  # there "model" is a deployment, whose name says nothing
        name = model.removeprefix("ft:").partition(":")[0]
        if _BEFORE_OBJECTS.match(name):
            return "tools"
        return "object" if _BEFORE_SCHEMAS.match(name) else "schema"
    return "schema"


_GEMINI_CHOICES = 100
"""Above so many values the provider puts the schema in words (`providers.gemini.translate`)."""


# --- how a job asks -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asking:
    """A job's way to ask for structure, as its spec stores it."""

    asked_by: AskedBy = "schema"
    choices_in_words: bool = False
    schema_form: int = SCHEMA_FORM


def choose_asking(spec: JobSpec, server: str) -> Asking:
    """Decide how a job asks for structure: by ``json_mode=``, or by what its server takes."""
    if spec.output.schema is None or not spec.messages:
        return Asking()  # plain text, or ready requests, which ask as they were written
    mode = spec.json_mode
    asked_by = best_mode(spec.provider, server, spec.model) if mode == "auto" else mode
    # An object or a prompt carries the whole schema in words anyway, its large enums included.
    in_words = False
    # OpenAI's API refuses large enums, there and at Azure, whatever the deployment is called.
    limited = spec.provider in _OPENAI or server.endswith(("openai.com", "azure.com"))
    limited = limited or _OPENAIS_NAMES.match(spec.model) is not None
    if asked_by in {"schema", "tools"} and limited:
        in_words = bool(without_large_choices(spec.output.schema)[1])
    return Asking(asked_by, in_words)


def asking_by(spec: JobSpec, messages: Sequence[Message], asking: Asking) -> JobSpec:
    """Return a spec that asks in this way, with the words that it needs in its messages.

    Parameters
    ----------
    spec : JobSpec
        The job.
    messages : sequence of Message
        Its messages as the user wrote them.
    asking : Asking
        How it asks.
    """
    with_structure = replace(
        spec,
        messages=tuple(messages),
        asked_by=asking.asked_by,
        choices_in_words=asking.choices_in_words,
        schema_form=asking.schema_form,
    )
    # `messages` are the user's own: asking another way must not keep the words of the first.
    words = words_of(with_structure)
    return (
        replace(with_structure, messages=with_system_text(messages, words))
        if words
        else with_structure
    )


def words_of(spec: JobSpec) -> str:
    """Return the prompt's description of the structure; empty where requests need none."""
    if spec.output.schema is None or not spec.messages:
        return ""
    if spec.asked_by in {"object", "prompt"}:
        # OpenAI, Groq and DeepSeek refuse to answer with an object unless the prompt says "json".
        schema = json.dumps(spec.output.schema, ensure_ascii=False)
        return (
            "Answer in json: one JSON object, with no Markdown and no words around it, that is "
            f"valid by this JSON Schema:\n{schema}"
        )
    return choices_text(_unsaid(spec)) if spec.choices_in_words else ""


def _unsaid(spec: JobSpec) -> list[Choice]:
    """Return the large choices that the prompt does not list yet; a codebook lists them."""
    # User messages hold the row's text, where a list of labels would be chance.
    said = "\n".join(message.content for message in spec.messages if message.role != "user")
    lost = without_large_choices(spec.output.schema or {})[1]
    # `codebook.with_definitions` writes a label in this form.
    return [each for each in lost if not all(f"\n- {v}: " in said for v in each.values)]


def check_json_mode(mode: JsonMode, output: OutputSpec) -> JsonMode:
    """Check ``json_mode=``.

    Raises
    ------
    ParameterError
        It is no known mode.
    OutputError
        There is no structure to ask for.
    """
    if mode not in get_args(JsonMode):
        raise ParameterError(
            f"json_mode={mode!r} is not known.",
            f"Use one of: {', '.join(map(repr, get_args(JsonMode)))}.",
        )
    if mode != "auto" and output.schema is None:
        raise OutputError(
            f"json_mode={mode!r} chooses how structure is requested, and no structure is.",
            "Give labels= or response_model=, or leave json_mode= out.",
        )
    return mode


# --- warnings ------------------------------------------------------------------------------------


def warn_how_asked(spec: JobSpec, written: Sequence[Message]) -> None:
    """Warn where the provider does not enforce the schema, and say what words for it cost.

    Parameters
    ----------
    spec : JobSpec
        The job, asking as it will.
    written : sequence of Message
        Its messages without the description of the structure.

    Warns
    -----
    FrameEnrichWarning
        Large choices go in words, or strict structured output does not take a part.
    """
    schema = spec.output.schema
    if schema is None or not spec.messages or spec.asked_by not in {"schema", "tools"}:
        return
    given = "labels=" if spec.output.kind == "labels" else "response_model="
    if spec.choices_in_words:
        most = max(len(each.values) for each in without_large_choices(schema)[1])
        text = choices_text(_unsaid(replace(spec, messages=tuple(written))))
        _warn_of_words(given, most, text, spec.model)
    elif spec.provider == "gemini" and (most := sum(_choices_in(schema))) > _GEMINI_CHOICES:
        _warn_of_words(given, most, json.dumps(schema, ensure_ascii=False), spec.model)
    # Of the schema as sent: enums that went into words are no reason for a second warning.
    warn_unless_strict(replace(spec.output, schema=sent_schema(spec)))


def _warn_of_words(given: str, values: int, text: str, model: str) -> None:
    tokens = count_text(text, model) if text else 0
    cost = f": about {tokens:,} tokens more a row" if tokens else ", as the codebook has them"
    warn_user(
        f"{given} has {values:,} values to choose from, more than the server takes in a schema, so "
        f"they go in words{cost}. Answers are checked against them here."
    )


def _choices_in(node: Any) -> list[int]:
    """Count the values of each enum of a schema, as the provider does."""
    if isinstance(node, list):
        return [n for each in node for n in _choices_in(each)]
    if not isinstance(node, dict):
        return []
    own = [len(node["enum"])] if isinstance(node.get("enum"), list) else []
    return own + [n for each in node.values() for n in _choices_in(each)]


def warn_unless_strict(output: OutputSpec) -> None:
    """Warn where the provider does not enforce the schema; answers are validated all the same.

    Warns
    -----
    FrameEnrichWarning
        The schema has a part that strict structured output does not take.
    """
    why = None if output.schema is None else why_not_strict(output.schema)
    if why is not None:
        given = "labels=" if output.kind == "labels" else "response_model="
        warn_user(
            f"{given} has a part that strict output does not take ({why}), so the model is asked "
            "for it but not held to it; answers that do not fit are flagged."
        )
