"""The accessor's verbs: their options are stated once, shown everywhere, and spelt out."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pandas as pd
import pytest

from frameenrich.accessor import LLMBatch
from frameenrich.dask import DaskAccessor
from frameenrich.errors import FrameEnrichError, UnknownOptionError
from frameenrich.prepare.reading_options import CollectOptions, ReadingOptions
from frameenrich.prepare.submit_options import Options, SubmitOptions

OPTIONS = {
    name: parameter
    for name, parameter in inspect.signature(LLMBatch.submit).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
}
FRAME = pd.DataFrame({"title": ["Red mug"]})


def test_an_option_of_submit_is_the_same_below() -> None:
    """The signature of `submit` has the names, types and defaults that all code below it has."""
    signature = {name: (each.annotation, each.default) for name, each in OPTIONS.items()}
    typed = {name: each.__forward_arg__ for name, each in SubmitOptions.__annotations__.items()}

    assert signature == {each.name: (each.type, each.default) for each in fields(Options)}
    assert {name: annotation for name, (annotation, _) in signature.items()} == typed


def test_an_option_of_collect_is_typed_for_the_doors() -> None:
    """What type checkers allow in `collect` of any table is what `df.llmbatch.collect` takes."""
    shown = inspect.signature(LLMBatch.collect).parameters.values()
    own = {p.name: p.annotation for p in shown if p.kind is inspect.Parameter.KEYWORD_ONLY}
    typed = {name: each.__forward_arg__ for name, each in CollectOptions.__annotations__.items()}
    reading = {name: typed.pop(name) for name in ReadingOptions.__annotations__}

    assert reading.keys() == {name for name in reading if own.pop(name, None) is not None}
    assert typed == own
    assert list(reading) == ["response_model", "labels", "parser"]


@pytest.mark.parametrize(
    "verb",
    [
        LLMBatch.preview,
        LLMBatch.estimate,
        LLMBatch.pilot,
        LLMBatch.embed,
        DaskAccessor.submit,
        DaskAccessor.estimate,
        DaskAccessor.preview,
    ],
)
def test_verbs_show_the_options_of_submit(verb: Any) -> None:
    """A verb's signature has each option that it takes, and no ``**options``."""
    shown = inspect.signature(verb).parameters

    assert set(OPTIONS) <= set(shown)
    assert not [p for p in shown.values() if p.kind is inspect.Parameter.VAR_KEYWORD]


def test_embed_shows_its_own_defaults() -> None:
    """Where `embed` has another default than `submit`, its signature says so."""
    shown = inspect.signature(LLMBatch.embed).parameters

    assert (shown["name"].default, shown["endpoint"].default) == ("embedding", "/v1/embeddings")


@pytest.mark.parametrize("verb", ["submit", "preview", "estimate", "pilot", "embed"])
def test_an_unknown_option_names_the_nearest(verb: str) -> None:
    """A misspelt option is both of our tree and what Python raises for such a call."""
    with pytest.raises(UnknownOptionError) as caught:
        getattr(FRAME.llmbatch, verb)("{{ title }}", "m", lables=["a", "b"])

    assert isinstance(caught.value, FrameEnrichError)
    assert isinstance(caught.value, TypeError)
    assert str(caught.value) == f"{verb}() has no option 'lables'. Did you mean 'labels'?"


def test_an_option_like_no_other_lists_all() -> None:
    """Where nothing is near, the message has every option."""
    with pytest.raises(UnknownOptionError, match=r"It takes template, model, n, system, name, "):
        FRAME.llmbatch.preview("{{ title }}", "m", xyz=1)


def test_a_warning_points_at_the_line_of_the_user() -> None:
    """A warning from deep inside names the file that called a verb, whatever lies between."""
    loose = {"type": "object", "properties": {"a": {"type": "object"}}}

    with pytest.warns(UserWarning, match="strict output") as caught:
        FRAME.llmbatch.preview("{{ title }}", "m", response_model=loose)

    assert [__file__] == [each.filename for each in caught]
