"""Hide API keys in what a report shows, and leave the page's own words as they are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from frameenrich.report.page import Report
from frameenrich.text import secret_forms, without_secrets

# What the page's script and style sheet know by name.
_OWN_WORDS = frozenset({"counts", "field", "kind", "review_call", "risk", "status"})


# Pairs that begin with a word of our own: a role, a kind of image, what a figure is of.
_PAIRS = frozenset({"figures", "images", "messages"})


def without_keys(report: Report, secrets: Iterable[str]) -> Report:
    """Hide some keys and this process's API keys in a report's texts; rows as they are read.

    A server's error may repeat the key it refused, and a report is made to be passed on.
    """
    known = [value for name, value in os.environ.items() if name.endswith("_API_KEY")]
    forms = {form for key in (*secrets, *known) for form in secret_forms(key)}
    # Texts, not the finished page: a local server's key may be any word, such as "completed".
    hide = _Hiding(sorted(forms, key=len, reverse=True))
    rest: Report = hide(replace(report, rows=(), notes=()))
    return replace(rest, rows=map(hide, report.rows), notes=map(hide, report.notes))


@dataclass(frozen=True)
class _Hiding:
    """Hide keys in a value and in all that it holds."""

    longest_first: list[str]

    def __call__(self, value: Any) -> Any:
        if isinstance(value, str):
            return without_secrets(value, self.longest_first)
        if isinstance(value, list | tuple):
            return type(value)(map(self, value))
        if isinstance(value, Mapping):
            return {name: self._member(str(name), each) for name, each in value.items()}
        if is_dataclass(value) and not isinstance(value, type):
            own = {each.name: getattr(value, each.name) for each in fields(value)}
            return replace(value, **{n: self._member(n, each) for n, each in own.items()})
        return value

    def _member(self, name: str, value: Any) -> Any:
        if name in _OWN_WORDS:
            return value
        if name in _PAIRS and isinstance(value, tuple):
            return tuple((word, self(text)) for word, text in value)
        return self(value)
