"""Check ``samples=``: several answers to a row in one request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from frameenrich.answers.output import Output
from frameenrich.errors import ParameterError, warn_user
from frameenrich.model import JobSpec
from frameenrich.providers.protocol import Provider

MOST_SAMPLES = 128
"""The largest ``n`` that OpenAI takes."""


def with_samples(output: Output, samples: Any, endpoint: str, params: Mapping[str, Any]) -> Output:
    """Return an output that reads several answers to each row.

    Raises
    ------
    ParameterError
        It is not a number of answers, or the job's answers cannot be compared.

    Warns
    -----
    FrameEnrichWarning
        At temperature 0 all answers are the same one.
    """
    # `type`, as True would pass isinstance.
    if type(samples) is not int or not 1 <= samples <= MOST_SAMPLES:
        raise ParameterError(
            f"samples={samples!r} is not a number of answers.",
            f"Give a whole number from 1 to {MOST_SAMPLES}.",
        )
    if endpoint != "/v1/chat/completions":
        raise ParameterError(
            f"endpoint={endpoint!r} has no n, so samples={samples} cannot be asked for.",
            "Use '/v1/chat/completions', or leave samples= out.",
        )
    if output.spec.kind not in {"labels", "schema"}:
        raise ParameterError(
            f"samples={samples} takes what most answers say, and no two free texts are the same.",
            "Give labels= or response_model=, or leave samples= out.",
        )
    if params.get("temperature") == 0:
        warn_user(
            f"samples={samples} at temperature 0 are one answer {samples} times, which agrees with "
            "itself; its agreement says nothing. Leave temperature out, or give 0.7, say."
        )
    return replace(output, spec=replace(output.spec, samples=samples))


def check_takes_samples(provider: Provider, spec: JobSpec) -> None:
    """Refuse several answers a request where the provider's server gives only one.

    Raises
    ------
    ParameterError
        It has no ``n``.
    """
    if spec.output.samples > 1 and not getattr(provider, "takes_samples", True):
        raise ParameterError(
            f"The provider {provider.name!r} has no n: samples={spec.output.samples} cannot be "
            "asked for in one request.",
            "Leave samples= out; job.second_opinion(model) tells how far another model agrees.",
        )
