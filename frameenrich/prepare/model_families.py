"""Refuse request parameters that OpenAI's own API is known to refuse for a family of models.

One refused parameter fails every row of a batch, up to a day later. Nothing is refused for models
of no family here, nor for other servers, whose rules may differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from frameenrich.errors import ParameterError
from frameenrich.model import JobSpec

_SAMPLING = frozenset({"temperature", "top_p"})
_LOGPROBS = frozenset({"logprobs", "top_logprobs"})
_PENALTIES = frozenset({"presence_penalty", "frequency_penalty"})
_HARMLESS = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
"""Values that every model takes, since they are the defaults."""


def _never(_: str | None) -> bool:
    return False


@dataclass(frozen=True)
class _Family:
    """Models that refuse the same parameters, and refuse sampling while they reason.

    ``samples`` tells by the reasoning effort whether temperature, top_p and logprobs pass.
    """

    names: re.Pattern[str]
    samples: Callable[[str | None], bool]
    refused: frozenset[str] = frozenset()
    efforts_refused: frozenset[str] = frozenset()


# Whole names, matched in full: a new model is in no family until somebody knows what it refuses.
_FAMILIES = (
    _Family(re.compile(r"o1(-mini|-preview)?"), _never, _PENALTIES),
    _Family(re.compile(r"o3(-mini)?|o4-mini"), _never, _PENALTIES | {"stop"}),
    _Family(
        re.compile(r"gpt-5(-mini|-nano)?"),
        _never,
        _PENALTIES | {"stop", "logit_bias", "prediction"},
        frozenset({"none"}),
    ),
    _Family(
        re.compile(r"gpt-5\.[124](-mini|-nano)?"),
        lambda effort: effort in {None, "none"},  # reasoning is off by default
        efforts_refused=frozenset({"minimal"}),
    ),
    _Family(
        re.compile(r"gpt-5\.[56](-mini|-nano)?"),
        lambda effort: effort == "none",  # and on by default here
        efforts_refused=frozenset({"minimal"}),
    ),
    _Family(
        re.compile(r"gpt-6(\.1)?(-mini|-nano)?"), _never, frozenset({"prompt_cache_retention"})
    ),
)


_RESPONSES_ONLY = re.compile(r"(o1|o3|gpt-5[.\d]*|gpt-6[.\d]*)-(pro|codex)\b.*|.*-deep-research")


def check_family(spec: JobSpec, server: str, params: Mapping[str, Any] | None = None) -> None:
    """Refuse what the model is known to refuse, and say what works instead.

    Parameters
    ----------
    spec : JobSpec
        The job.
    server : str
        The host that requests go to, where it is known.
    params : mapping, optional
        The request parameters, by default the job's own.

    Raises
    ------
    ParameterError
        The model does not take a parameter, or the endpoint.
    """
    if spec.provider != "openai" and server != "api.openai.com":
        return
    for model in spec.models:
        _check(model, spec, spec.params if params is None else params)


def _check(model: str, spec: JobSpec, params: Mapping[str, Any]) -> None:
    # A snapshot ("-2025-08-07") and a fine-tuned model ("ft:base:...") refuse what their base does.
    name = re.sub(r"-\d{4}-\d{2}-\d{2}$", "", model.removeprefix("ft:").partition(":")[0])
    chat = spec.endpoint == "/v1/chat/completions"
    if chat and _RESPONSES_ONLY.fullmatch(name):
        raise ParameterError(
            f"{model} does not answer endpoint='/v1/chat/completions'.",
            "Use endpoint='/v1/responses'.",
        )
    # After the endpoint: "-pro" and "-codex" models have no family, so no parameter is refused.
    family = next((each for each in _FAMILIES if each.names.fullmatch(name)), None)
    if family is None:
        return
    if chat and "max_tokens" in params:
        raise _refusal(
            model, "max_tokens", params,
            f"Write params={{'max_completion_tokens': {params['max_tokens']!r}}}; what it reasons "
            "counts, too.",
        )  # fmt: skip
    effort = _effort(params)
    if effort in family.efforts_refused:
        raise _refusal(model, "reasoning_effort", params, "Use 'low', or leave it out.")
    # A null, or the value that is the default, changes nothing: such a parameter may pass.
    barred = family.refused
    if not family.samples(effort):
        barred |= _SAMPLING | _LOGPROBS
    for parameter, value in params.items():
        if parameter in barred and value is not None and value != _HARMLESS.get(parameter):
            raise _refusal(model, parameter, params, _way_out(parameter, family))


def _effort(params: Mapping[str, Any]) -> str | None:
    # Responses nest the effort under "reasoning"; chat completions have a member for it.
    reasoning = params.get("reasoning")
    effort = reasoning.get("effort") if isinstance(reasoning, Mapping) else None
    wanted = params.get("reasoning_effort", effort)
    return wanted if isinstance(wanted, str) else None


def _way_out(parameter: str, family: _Family) -> str:
    if parameter in _SAMPLING | _LOGPROBS and family.samples("none"):
        return "Add params={'reasoning_effort': 'none'}, or leave it out."
    if parameter in _LOGPROBS:
        return "Leave it out (logprobs=True sets it, too), or use a model that does not reason."
    return "Leave it out, or use a model that does not reason, such as 'gpt-4.1-mini'."


def _refusal(model: str, parameter: str, params: Mapping[str, Any], fix: str) -> ParameterError:
    return ParameterError(
        f"{model} is known to refuse {parameter}={params[parameter]!r}; nothing was sent.",
        fix,
        name=parameter,
    )
