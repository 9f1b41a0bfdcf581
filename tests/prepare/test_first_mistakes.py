"""Promise 9: a mistake in the arguments is one sentence that shows how to write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel

import frameenrich
from frameenrich.errors import OutputError, ParameterError, UnknownOptionError

FRAME = pd.DataFrame({"title": ["Red mug", "Blue hose"]})


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"temperature": 0.1}, "Did you mean params={'temperature': 0.1}?"),
        ({"max_tokens": 5}, "Did you mean params={'max_tokens': 5}?"),
        ({"temprature": 0}, "Did you mean params={'temperature': 0}?"),
        ({"lables": ["a", "b"]}, "Did you mean 'labels'?"),
        ({"respons_model": {}}, "Did you mean 'response_model'?"),
        ({"colour": 1}, "It takes template, model, "),
    ],
)
def test_an_unknown_option_names_what_was_meant(option: dict[str, Any], told: str) -> None:
    """An option of ours, or a request parameter with the value that was given."""
    for verb in ("submit", "preview", "pilot"):
        with pytest.raises(UnknownOptionError) as error:
            getattr(FRAME.llmbatch, verb)("{{ title }}", "m", **option)
        assert told in str(error.value)
        assert isinstance(error.value, TypeError)


@pytest.mark.parametrize(
    ("verb", "option", "told"),
    [
        ("collect", {"max_round": 2}, "Did you mean 'max_rounds'?"),
        ("collect", {"lables": []}, "Did you mean 'labels'?"),
        ("regenerate", {"temperature": 1}, "Did you mean params={'temperature': 1}?"),
        ("wait", {"time_out": 3}, "Did you mean 'timeout'?"),
        ("report", {"row": 3}, "Did you mean 'rows'?"),
    ],
)
def test_the_verbs_about_a_job_do_so_too(verb: str, option: dict[str, Any], told: str) -> None:
    """Before anything is looked for in a store."""
    with pytest.raises(UnknownOptionError) as error:
        getattr(FRAME.llmbatch, verb)(**option)
    assert told in str(error.value)


class Product:
    """A class that is no model."""

    genre: str


class Answer(BaseModel):
    """A model."""

    genre: str


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"genre": "one word"}, "Write response_model={'genre': str}"),
        ({"stars": 4.5}, "Write response_model={'stars': float}"),
        ({"genre": ["rock", "pop"]}, "Write response_model={'genre': Literal['rock', 'pop']}"),
        (["genre", "mood"], "Write response_model={'genre': str, 'mood': str} for fields"),
        (["genre", "mood"], "or labels=['genre', 'mood'] for a choice"),
        (Product, "Write class Product(BaseModel): genre: str"),
        (str, "which names no field"),
        (Answer(genre="rock"), "Give its class: response_model=Answer."),
        ('{"type": "object"}', "json.loads(...) of a JSON Schema"),
        ("genre", "response_model={'genre': str}"),
        (3, "response_model={'genre': str}"),
    ],
)
def test_what_is_no_model_is_shown_how_to_be_one(given: Any, told: str) -> None:
    """One sentence each."""
    with pytest.raises(OutputError) as error:
        FRAME.llmbatch.preview("{{ title }}", "m", response_model=given)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("model", "params", "told"),
    [
        ("gpt-5-mini", {"max_tokens": 50}, "Write params={'max_completion_tokens': 50}"),
        ("o3", {"temperature": 0.1}, "o3 is known to refuse temperature=0.1"),
        ("gpt-5-nano-2025-08-07", {"top_p": 0.5}, "Leave it out"),
        ("o4-mini", {"stop": ["x"]}, "stop=['x']"),
        ("gpt-5", {"reasoning_effort": "none"}, "Use 'low'"),
        ("gpt-5.2", {"temperature": 0, "reasoning_effort": "low"}, "{'reasoning_effort': 'none'}"),
        ("gpt-5.5", {"temperature": 0}, "Add params={'reasoning_effort': 'none'}"),
        ("gpt-5.1", {"reasoning_effort": "minimal"}, "reasoning_effort='minimal'"),
        ("gpt-6", {"temperature": 0}, "a model that does not reason"),
        ("gpt-5-pro", {}, "Use endpoint='/v1/responses'."),
        ("o3-deep-research", {}, "Use endpoint='/v1/responses'."),
    ],
)
def test_what_a_family_is_known_to_refuse_is_told_before_sending(
    model: str, params: dict[str, Any], told: str, store: Path
) -> None:
    """With the parameter that works; nothing is written."""
    ask: dict[str, Any] = {"params": params, "store": store, "client": a_client()}
    with pytest.raises(ParameterError) as error:
        FRAME.llmbatch.submit("{{ title }}", model, **ask)
    assert told in str(error.value)
    assert frameenrich.jobs(store).empty


def a_client() -> Any:
    """A client that nothing is asked of."""
    import openai

    return openai.OpenAI(api_key="sk-test", base_url="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("gpt-5-mini", {"temperature": 1, "max_completion_tokens": 9}),
        ("gpt-5.2", {"temperature": 0}),
        ("gpt-5.5", {"temperature": 0, "reasoning_effort": "none"}),
        ("gpt-5-chat-latest", {"temperature": 0, "max_tokens": 9}),
        ("gpt-4o-mini", {"temperature": 0, "max_tokens": 9, "logprobs": True}),
        ("my-own-model", {"temperature": 0, "max_tokens": 9}),
    ],
)
def test_what_works_and_unknown_families_are_let_through(
    model: str, params: dict[str, Any]
) -> None:
    """No family is guessed."""
    from frameenrich.model import JobSpec, Message
    from frameenrich.prepare.model_families import check_family

    spec = JobSpec("x", model, (Message("user", "x"),), provider="openai", params=params)
    check_family(spec, "")


def test_another_server_may_know_better(store: Path) -> None:
    """A file of requests may go anywhere, and a proxy drops what its model does not take."""
    job = FRAME.llmbatch.submit(
        "{{ title }}", "gpt-5-mini", params={"max_tokens": 5}, provider="file", store=store
    )
    assert len(job.requests) == 1


def test_logprobs_at_a_reasoning_model_are_told(store: Path) -> None:
    """`logprobs=True` sets a parameter that nobody wrote."""
    with pytest.raises(ParameterError, match="logprobs=True sets it, too"):
        FRAME.llmbatch.submit(
            "{{ title }}", "o3", labels=["a", "b"], logprobs=True, store=store, client=a_client()
        )
