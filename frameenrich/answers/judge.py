"""Raw response lines to results: open the envelope, find the answer, judge it.

Lines come in many shapes, and nothing in one can raise.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from frameenrich.answers.body import (
    Answer,
    answer_in,
    as_list,
    as_text,
    end_status,
)
from frameenrich.answers.confidence import label_confidence
from frameenrich.answers.error_text import (
    body_error,
    error_as_json,
    error_text,
    has_answer,
    is_filtered,
)
from frameenrich.answers.output import MalformedError, Output
from frameenrich.answers.thinking import UnclosedThinkingError, split_thinking
from frameenrich.answers.votes import by_majority
from frameenrich.jsonl import DECODE_ERRORS, ResponseLine
from frameenrich.model import Json, OutputKind, OutputSpec, Response, Result, RowStatus, Usage
from frameenrich.text import escaped, shortened, without_surrogates

_OK_CODES = range(200, 300)


_STRUCTURED = frozenset({"labels", "schema"})


_dumps = json.JSONEncoder(ensure_ascii=False).encode


_Opened = ResponseLine[msgspec.Raw, msgspec.Raw]


_decode_line = msgspec.json.Decoder(_Opened).decode


# Results are never stored: every `collect` judges the raw lines anew, so a better parser costs
# nothing.
def read_result(line: bytes, output: Output) -> Result | None:
    """Open and judge one line; None where it does not say whose it is."""
    response = read_response(line)
    return None if response is None else result_of(response, output)


def read_answer(custom_id: str, text: str, output: Output, usage: Usage) -> Result:
    """Judge the text of an answer that came whole and is not blank."""
    return _printable(_read(custom_id, Answer(text), output, usage))


def _read(custom_id: str, answer: Answer, output: Output, usage: Usage) -> Result:
    raw = answer.text or ""
    try:
        text, thinking, cleaned = split_thinking(raw, anywhere=output.spec.kind != "text")
    except UnclosedThinkingError:
        reason = "cut while the model was still thinking; regenerate asks with twice the limit"
        return Result(custom_id, RowStatus.TRUNCATED, None, reason, raw, usage)
    reasoning = thinking if thinking is not None else answer.reasoning
    if not text.strip():
        reason = "the model thought and then said nothing"
        return Result(custom_id, RowStatus.EMPTY, None, reason, raw, usage, reasoning=reasoning)
    try:
        values, repaired = output.read(text)
    except MalformedError as error:
        return Result(
            custom_id, RowStatus.MALFORMED, None, str(error), raw, usage, reasoning=reasoning
        )
    if answer.beside is not None and (other := _contradiction(answer.beside, values, output)):
        reason = f"two answers that differ: {shortened(other)!r} and {shortened(text)!r}"
        return Result(custom_id, RowStatus.MALFORMED, None, reason, raw, usage, reasoning=reasoning)
    repaired = repaired or cleaned or answer.elsewhere
    return Result(custom_id, RowStatus.OK, values, None, raw, usage, repaired, reasoning=reasoning)


def _contradiction(beside: str, values: tuple[Any, ...], output: Output) -> str | None:
    """Return what was said beside a tool call where it is an answer, too, and another one."""
    try:
        other, _ = output.read(beside)
    except MalformedError:
        return None  # mere words
    return None if other == values else beside


def read_response(line: bytes) -> Response | None:
    """Open one line; None where it does not say whose it is.

    A line that is not JSON, not UTF-8, or has no custom_id is None: it loses only itself.
    """
    try:
        opened = _decode_line(line)
    except DECODE_ERRORS:
        return _read_leniently(line)
    if not isinstance(opened.custom_id, str) or not opened.custom_id:
        return None
    error = error_text(_loads(opened.error))
    if opened.response is None:
        return Response(opened.custom_id, None, None, error)
    code = _as_int(opened.response.status_code)
    return Response(opened.custom_id, code, _unwrap(_loads(opened.response.body)), error)


def _read_leniently(line: bytes) -> Response | None:
    """Open a line with lone surrogates, or with members of the wrong types."""
    try:
        loaded = _loads_whole(line)
    except (ValueError, RecursionError):
        return None
    custom_id = loaded.get("custom_id") if isinstance(loaded, dict) else None
    if not isinstance(custom_id, str) or not custom_id:
        return None
    error, inner = error_text(loaded.get("error")), loaded.get("response")
    if isinstance(inner, str):
        inner = _unwrap(inner)
    if not isinstance(inner, dict):
        return Response(custom_id, None, None, error)
    return Response(custom_id, _as_int(inner.get("status_code")), _unwrap(inner.get("body")), error)


def _as_int(value: Json) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    # Arrow's columns have 64 bits, and a server's number must not stop a collect.
    return number if -(2**63) <= number < 2**63 else None


def _loads_whole(text: str | bytes) -> Json:
    """Read JSON, with U+FFFD for lone surrogates: no column and no file can hold those."""
    loaded = json.loads(text)
    try:
        plain = json.dumps(loaded, ensure_ascii=False)
        plain.encode()
    except UnicodeEncodeError:
        return json.loads(without_surrogates(plain))
    return loaded


def _loads(raw: msgspec.Raw | None) -> Json:
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except DECODE_ERRORS:
        try:
            # Half a surrogate pair, which msgspec refuses, costs its characters and not the row.
            return _loads_whole(bytes(raw))
        except (ValueError, RecursionError):
            return None


def _unwrap(body: Json) -> Json:
    """Open a body that came as a string of JSON."""
    if not isinstance(body, str):
        return body
    try:
        # Some gateways send the body as a text of JSON inside of JSON.
        return _loads_whole(body)
    except (ValueError, RecursionError):
        return body


def result_of(response: Response, output: Output) -> Result:
    """Give a response its row status, and values or the reason why not."""
    return _printable(_judged(response, output))


def _printable(result: Result) -> Result:
    # Reasons quote servers and models, whose words must not drive the terminal that shows them.
    if result.error is None or (reason := escaped(result.error)) == result.error:
        return result
    return msgspec.structs.replace(result, error=reason)


def _judged(response: Response, output: Output) -> Result:
    failure = _failure(response)
    if failure is not None:
        return failure
    choices = as_list(response.body.get("choices"))
    # A body without choices is judged as any other, which says what is wrong with it.
    if output.spec.samples > 1 and len(choices) > 0:
        return _judge_samples(response, choices, output)
    return _judge_answer(response, output)


def _judge_samples(response: Response, choices: list[Json], output: Output) -> Result:
    """Judge each of several answers as if it had come alone, and take what most of them say."""
    alone = (
        msgspec.structs.replace(response, body={**response.body, "choices": [choice]})
        for choice in choices
    )
    results = [_judge_answer(each, output) for each in alone]
    return by_majority(results, output.fields, output.spec.samples)


def _judge_answer(response: Response, output: Output) -> Result:
    if output.spec.kind in READERS:
        return _judge_data(response, output)
    answer = answer_in(response.body, structured=output.spec.kind in _STRUCTURED)
    usage = _usage(response.body, answer.finish_reason)
    done = _refused_or_empty(response, answer, usage)
    if done is not None:
        return done
    result = _read(response.custom_id, answer, output, usage)
    if output.spec.kind != "labels" or result.status is not RowStatus.OK:
        return result
    # After the reading: only a label that was taken has a probability worth keeping.
    sure = label_confidence(response.body, result.raw or "")
    return msgspec.structs.replace(result, confidence=sure)


def _judge_data(response: Response, output: Output) -> Result:
    """Judge an answer that is no text: a vector, a verdict."""
    usage = _usage(response.body, None)
    try:
        reading = READERS[output.spec.kind](response.body, output.spec)
    except MalformedError as error:
        raw = _dumps(response.body)
        return Result(response.custom_id, RowStatus.MALFORMED, None, str(error), raw, usage)
    # No result at all may come with a next try; one of another form will not.
    if reading is None:
        reason = "the answer holds no result"
        return Result(response.custom_id, RowStatus.EMPTY, None, reason, None, usage)
    return Result(response.custom_id, RowStatus.OK, reading[0], None, reading[1], usage)


def _failure(response: Response) -> Result | None:
    """Judge a request that failed; None where its body holds an answer."""
    error, code, body = response.error, response.status_code, response.body
    if error is None and isinstance(body, dict):
        # The code may be absent where the answer is there; an error of nulls is none.
        arrived = code in _OK_CODES or (code is None and has_answer(body))
        # In this order, since finding an error's words takes longest: most failures have a code.
        if (
            arrived
            and error_text(body.get("error")) is None
            and (has_answer(body) or body_error(body) is None)
        ):
            return None
    status = RowStatus.FAILED
    # The codes of OpenAI's error file for requests that a batch did not come to.
    if error is not None and error.startswith("batch_expired"):
        status = RowStatus.EXPIRED
    elif error is not None and error.startswith("batch_cancelled"):
        status = RowStatus.CANCELLED
    # A content filter answers with an error's status, and is the model's no all the same.
    elif is_filtered(body):
        status = RowStatus.REFUSED
    # Kept for `flagged`: what a server says in its own words often names the cause.
    raw = None if body in (None, {}) else error_as_json(body)
    reason = error or _why_failed(code, body)
    return Result(response.custom_id, status, None, reason, raw, status_code=code)


def _why_failed(code: int | None, body: Json) -> str:
    said = body_error(body)
    if code is None:
        return said or "the provider sent no response for this request"
    if code in _OK_CODES:
        return said or f"HTTP {code} with a body that is no answer"
    if said is None and isinstance(body, dict | list) and body:
        said = shortened(error_as_json(body))
    # Gemini's errors have the HTTP status as their code.
    said = said.removeprefix(f"{code}: ") if said else None
    return f"HTTP {code}: {said}" if said else f"HTTP {code} without a reason"


def _refused_or_empty(response: Response, answer: Answer, usage: Usage) -> Result | None:
    """Judge an answer by how it ended: with an error, refused, cut or empty; else None."""

    def flagged(status: RowStatus, reason: str) -> Result:
        return Result(
            response.custom_id, status, None, reason, answer.text, usage, reasoning=answer.reasoning
        )

    if answer.error is not None:
        return flagged(RowStatus.FAILED, answer.error)
    if answer.refusal:
        return flagged(RowStatus.REFUSED, answer.refusal)
    ended = end_status(answer.finish_reason)
    if ended is not None:
        return flagged(*ended)
    if not (answer.text or "").strip():
        return flagged(RowStatus.EMPTY, "the answer holds no text")
    if answer.others:
        # Which of two is meant nobody knows here; the first would be a guess.
        first, other = (shortened(text or "") for text in (answer.text, answer.others[0]))
        return flagged(RowStatus.MALFORMED, f"two answers that differ: {first!r} and {other!r}")
    return None


def _usage(body: dict[str, Json], finish_reason: str | None) -> Usage:
    tokens: Any = body.get("usage")
    tokens = tokens if isinstance(tokens, dict) else {}
    return Usage(
        as_text(body.get("model")),
        _as_int(tokens.get("prompt_tokens", tokens.get("input_tokens"))),
        _as_int(tokens.get("completion_tokens", tokens.get("output_tokens"))),
        finish_reason,
    )


Vector = npt.NDArray[np.float32]


Reading = tuple[tuple[Any, ...], str | None]
"""One value an output column, and the answer's text where keeping it is worth it."""


def read_embedding(body: Mapping[str, Json], spec: OutputSpec) -> Reading | None:
    """Read the one vector of an embeddings body; None where there is none.

    Raises
    ------
    MalformedError
        It is no list of finite numbers, or has another length than was asked for.

    Examples
    --------
    >>> (vector,), _ = read_embedding({"data": [{"embedding": [0.5, -1]}]}, OutputSpec("embedding"))
    >>> vector
    array([ 0.5, -1. ], dtype=float32)
    """
    # One input a request: several would share a custom_id, on which reuse, regeneration and
    # the row's status depend.
    entry = _first(body.get("data"))
    if entry is None:
        return None
    given = entry.get("embedding") if isinstance(entry, Mapping) else None
    vector = _unpacked(given) if isinstance(given, str) else _listed(given)
    wanted = spec.dimensions
    if not len(vector) or (wanted is not None and len(vector) != wanted):
        expected = f", not the {wanted} asked for" if wanted is not None else ""
        raise MalformedError(f"$.data[0].embedding: {len(vector)} numbers{expected}")
    if not np.isfinite(vector).all():
        raise MalformedError("$.data[0].embedding: not all numbers are finite")
    return (vector,), None


def _listed(given: Json) -> Vector:
    # type() and not isinstance(): True is no number of a vector.
    if not isinstance(given, list) or not {type(number) for number in given} <= {int, float}:
        raise MalformedError("$.data[0].embedding: not a list of numbers")
    try:
        with np.errstate(over="ignore"):  # becomes infinite, which has a message of its own
            return np.asarray(given, dtype=np.float64).astype(np.float32)
    except OverflowError:
        raise MalformedError("$.data[0].embedding: not all numbers are finite") from None


def _unpacked(given: str) -> Vector:
    """Decode a vector of ``encoding_format="base64"``: little-endian float32."""
    try:
        # astype() copies: frombuffer() alone gives an array that cannot be written to.
        return np.frombuffer(base64.b64decode(given, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        raise MalformedError("$.data[0].embedding: not base64 of 32-bit numbers") from None


def read_moderation(body: Mapping[str, Json], spec: OutputSpec) -> Reading | None:
    """Read whether a text was flagged, and for which categories; None where there is no result.

    Raises
    ------
    MalformedError
        The result has another shape.

    Examples
    --------
    >>> result = {"flagged": True, "categories": {"hate": False, "violence": True}}
    >>> read_moderation({"results": [result]}, OutputSpec("moderation"))[0]
    (True, ['violence'])
    """
    # All READERS have one signature.
    del spec
    result = _first(body.get("results"))
    if result is None:
        return None
    if not isinstance(result, Mapping) or not isinstance(result.get("flagged"), bool):
        raise MalformedError("$.results[0].flagged: not true or false")
    categories = result.get("categories")
    if not isinstance(categories, Mapping):
        raise MalformedError("$.results[0].categories: not an object")
    names = [name for name, flagged in categories.items() if flagged is True]
    return (result["flagged"], names), json.dumps(result, ensure_ascii=False)


def _first(items: Json) -> Json:
    return items[0] if isinstance(items, list) and items else None


READERS: Mapping[OutputKind, Callable[[Mapping[str, Json], OutputSpec], Reading | None]] = {
    "embedding": read_embedding,
    "moderation": read_moderation,
}
"""How the answers of these kinds of output are read."""
