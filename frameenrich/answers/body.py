"""Find the answer in a response body, and how it ended, in the shapes that servers send.

Chat completions, Responses and completions bodies, also where the answer is the arguments of a
tool call or stands in a reasoning model's reasoning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from frameenrich.answers.error_text import error_as_json, error_text
from frameenrich.answers.json_text import NotJsonError, loads_exactly
from frameenrich.answers.thinking import UnclosedThinkingError, split_thinking
from frameenrich.model import Json, RowStatus

# One encoder for all: json.dumps with an option makes a new one at each call.
_dumps = json.JSONEncoder(ensure_ascii=False).encode


class Answer(msgspec.Struct, frozen=True):
    """Content of a body: the answer's text, and how it ended.

    ``elsewhere`` is set where the text was not found where answers stand, and ``others`` holds the
    texts of further answers that came beside it. ``beside`` is what the model said next to the tool
    call that the text is of: chatter, or an answer, too.
    """

    text: str | None = None
    refusal: str | None = None
    finish_reason: str | None = None
    reasoning: str | None = None
    error: str | None = None
    elsewhere: bool = False
    others: tuple[str, ...] = ()
    beside: str | None = None


# --- how answers end ------------------------------------------------------------------------------

# Beside OpenAI's own words those that well-known servers, or gateways in front of them, pass on:
# `eos` of Together, `eos_token` of text-generation-inference before its pull request 2344,
# `end_turn`, `stop_sequence` and `tool_use` of Anthropic and Bedrock, `complete` and `tool_call`
# of Cohere, whose word for a cut answer is MAX_TOKENS. `end` and FINISH_REASON_STOP stay out:
# no server is known by name that sends them.
_WHOLE = frozenset(
    {
        "stop", "eos", "eos_token", "end_turn", "stop_sequence", "tool_calls", "tool_call",
        "tool_use", "function_call", "complete", "completed",
    }
)  # fmt: skip
_CUT = frozenset(
    {
        "length", "max_tokens", "model_length", "max_output_tokens", "max_completion_tokens",
        "model_context_window_exceeded", "context_length_exceeded", "continuation", "incomplete",
        "max_new_tokens", "max_length", "token_limit", "length_limit",
    }
)  # fmt: skip
_FILTERED = frozenset(
    {
        "content_filter", "content_filtered", "contentfilter", "content_policy",
        "content_policy_violation", "sensitive", "safety", "refusal", "recitation", "language",
        "blocklist",
        "prohibited_content", "spii", "model_armor", "escalation", "guardrail_intervened",
        "moderation", "blocked",
    }
)  # fmt: skip


def end_status(finish_reason: str | None) -> tuple[RowStatus, str] | None:
    """Judge the word by which the provider says why the model stopped; None where it is whole.

    Only known words are whole: a server that calls a broken connection ``network_error`` must not
    have half an answer taken for one.

    Examples
    --------
    >>> end_status("stop"), end_status("network_error")[0].value
    (None, 'failed')
    """
    word = (finish_reason or "").strip().casefold().replace("-", "_")
    if not word or word in _WHOLE:
        return None
    if word in _CUT:
        return RowStatus.TRUNCATED, "cut at the token limit; regenerate asks with twice the limit"
    # Gemini's IMAGE_SAFETY and the like (https://ai.google.dev/api/generate-content#FinishReason).
    if word in _FILTERED or word.startswith("image_"):
        return RowStatus.REFUSED, "stopped by the provider's content filter" + (
            "" if word == "content_filter" else f" ({finish_reason})"
        )
    if word.startswith("malformed_") or word.endswith(("_tool_call", "_tool_calls")):
        return RowStatus.MALFORMED, f"the provider ended the answer with {finish_reason!r}"
    return (
        RowStatus.FAILED,
        f"the provider ended the answer with {finish_reason!r}, so it may not be whole",
    )


# --- where answers stand --------------------------------------------------------------------------


def answer_in(body: Mapping[str, Json], *, structured: bool = False) -> Answer:
    """Find the answer of a body that is no error.

    Parameters
    ----------
    body : mapping
        The response's body.
    structured : bool
        Whether an object or a label is wanted: then the arguments of a tool call are the answer
        also where the model said something beside.
    """
    choices = [c for c in as_list(body.get("choices")) if isinstance(c, dict)]
    # A gateway between the two APIs may leave an empty output beside its choices.
    if isinstance(body.get("output"), list) and (body["output"] or not choices):
        return _responses_answer(body, structured=structured)
    if not choices:
        # Azure answers a filtered prompt without choices, and says why beside them.
        blocked = any(map(_is_filtered_prompt, as_list(body.get("prompt_filter_results"))))
        return Answer(finish_reason="content_filter" if blocked else None)
    first, *rest = (_choice_answer(choice, structured=structured) for choice in choices)
    # Nobody can say which of several answers is meant: those that differ make the row malformed.
    others = tuple(other.text or "" for other in rest if other.text != first.text)
    return msgspec.structs.replace(first, others=first.others + others)


def _is_filtered_prompt(entry: Json) -> bool:
    """Tell whether one of Azure's verdicts on a prompt stopped it."""
    verdicts = entry.get("content_filter_results") if isinstance(entry, dict) else None
    each = verdicts.values() if isinstance(verdicts, dict) else ()
    return any(isinstance(verdict, dict) and verdict.get("filtered") is True for verdict in each)


def _choice_answer(choice: Mapping[str, Json], *, structured: bool) -> Answer:
    error = error_text(choice.get("error"))
    finish = _word(choice.get("finish_reason"))
    message = choice.get("message")
    if not isinstance(message, dict):  # /v1/completions
        return Answer(as_text(choice.get("text")), None, finish, error=error)
    content = message.get("content")
    # Some servers hand the object over as it is, and not as text.
    text = _dumps(content) if isinstance(content, dict) else as_text(content)
    # A refusal may also be a part of the content, where that is a list.
    parts = (as_text(p.get("refusal")) or "" for p in as_list(content) if isinstance(p, dict))
    refusal = as_text(message.get("refusal")) or "".join(parts) or None
    reasoning = (
        as_text(message.get("reasoning_content")) or as_text(message.get("reasoning")) or None
    )
    said = Answer(text, refusal, finish, reasoning, error)
    calls = [*as_list(message.get("tool_calls")), message.get("function_call")]
    return _from_elsewhere(said, [*calls, *as_list(content)], structured=structured)


# No sets: a server may put a list there, which is in no set and raises.
_CALLS = ("function_call", "custom_tool_call")
_NOT_WHOLE = ("incomplete", "in_progress")


def _responses_answer(body: Mapping[str, Json], *, structured: bool) -> Answer:
    texts, refusals, thoughts, calls = [], [], [], []
    cut = None
    for item in as_list(body["output"]):
        if not isinstance(item, dict):
            continue
        if item.get("type") in _CALLS:
            calls.append(item)
        if item.get("type") in (*_CALLS, "message") and item.get("status") in _NOT_WHOLE:
            cut = "incomplete"
        for part in [*as_list(item.get("content")), *as_list(item.get("summary"))]:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "output_text":
                texts.append(as_text(part.get("text")) or "")
            elif kind == "refusal":
                # An empty refusal is a refusal all the same.
                refusals.append(as_text(part.get("refusal")) or "refused")
            elif kind in {"summary_text", "reasoning_text"}:
                thoughts.append(as_text(part.get("text")) or "")
    details = body.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    # The Responses API has no finish_reason; its status and incomplete_details say as much.
    finish = "length" if reason == "max_output_tokens" else reason or cut or body.get("status")
    said = Answer(
        "".join(texts) or None, "".join(refusals) or None, _word(finish), "".join(thoughts) or None
    )
    return _from_elsewhere(said, calls, structured=structured)


def _from_elsewhere(said: Answer, calls: list[Json], *, structured: bool) -> Answer:
    """Take the answer from a tool call, or from the reasoning, where the text is none.

    It is paid for, so it is read; a tool call's arguments are what structured output is made of.
    """
    if said.refusal:
        return said
    arguments = [each for call in calls if (each := _arguments(call)) is not None]
    if arguments:
        return _beside_calls(said, arguments, structured=structured)
    if not (said.text or "").strip() and said.reasoning and _is_object(said.reasoning):
        return msgspec.structs.replace(said, text=said.reasoning, reasoning=None, elsewhere=True)
    return said


def _beside_calls(said: Answer, arguments: list[str], *, structured: bool) -> Answer:
    """Choose between what was said and what a tool was called with."""
    text, thinking = _without_thinking(said) if structured else (said.text or "", said.reasoning)
    if text.strip() and not (structured and "{" not in text):
        # An object that was said and one that a tool was called with have to be the same one.
        tool_arguments = arguments if structured and _is_object(text) else []
        others = tuple(each for each in tool_arguments if not _same_object(each, text))
        return msgspec.structs.replace(said, others=others) if others else said
    # A word beside a call may be chatter or a label; who knows the labels compares the two.
    return msgspec.structs.replace(
        said,
        text=arguments[0],
        others=tuple(each for each in arguments[1:] if not _same_object(each, arguments[0])),
        beside=text.strip() or None,
        reasoning=thinking,
    )


def _without_thinking(said: Answer) -> tuple[str, str | None]:
    """Return the text that stands beside a tool call, and the thinking, wherever it came."""
    try:
        text, thinking, _ = split_thinking(said.text or "", anywhere=True)
    except UnclosedThinkingError:  # it ended where the call began
        return "", said.text
    return text, said.reasoning if thinking is None else thinking


def _arguments(call: Json) -> str | None:
    """Return a tool call's arguments as text, from any of the shapes that servers use."""
    if not isinstance(call, dict):
        return None
    inner = call.get("function") or call.get("custom") or call
    given = inner.get("arguments", inner.get("input")) if isinstance(inner, dict) else None
    if isinstance(given, dict):  # as Anthropic and some servers have it
        return _dumps(given)
    return given if isinstance(given, str) and given.strip() else None


def _same_object(text: str, other: str) -> bool:
    if text == other:
        return True
    try:
        return bool(loads_exactly(text) == loads_exactly(other))
    except (NotJsonError, ValueError, RecursionError):
        return False


def _is_object(text: str) -> bool:
    try:
        return isinstance(loads_exactly(text), dict)
    except (NotJsonError, ValueError, RecursionError):
        return False


def _word(value: Json) -> str | None:
    """Return a finish reason as text, whatever type it has; None where there is none."""
    if value is None or isinstance(value, str):
        return value
    return error_as_json(value)


def as_list(value: Json) -> list[Json]:
    """Return a list as it is, and anything else as an empty one."""
    return value if isinstance(value, list) else []


# Parts of thinking have a text, too, which must not become a part of the answer.
_THOUGHTS = frozenset({"thinking", "reasoning", "redacted_thinking"})


def as_text(value: Json) -> str | None:
    """Return text as it is, content parts joined, and None of anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [
            part.get("text")
            for part in value
            if isinstance(part, dict) and part.get("type") not in _THOUGHTS
        ]
        return "".join(part for part in parts if isinstance(part, str))
    return None
