"""Output fields as people judge them: labels, and values parsed from reviewers' texts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from frameenrich.answers.schema import normalize_label
from frameenrich.answers.votes import vote_text

_TRUTH_VALUES = {
    **dict.fromkeys(("true", "yes", "1", "1.0"), True),
    **dict.fromkeys(("false", "no", "0", "0.0"), False),
}


@dataclass(frozen=True)
class AnswerField:
    """An output field to judge; ``labels`` where a reviewer picks one of a few values."""

    name: str
    column: str
    kind: str
    labels: tuple[Any, ...] | None = None

    def parse(self, text: str) -> Any:
        """Return the value that a reviewer's text stands for.

        Raises
        ------
        ValueError
            The field cannot have this value; the message says which it can.
        """
        if self.kind == "category":
            label = self._choices.get(normalize_label(text))
            if label is None:
                raise ValueError(f"one of its labels: {', '.join(map(str, self.labels or ()))}")
            return label
        if self.kind == "boolean":
            if text.strip().casefold() not in _TRUTH_VALUES:
                raise ValueError("true or false")
            return _TRUTH_VALUES[text.strip().casefold()]
        if self.kind in {"integer", "number"}:
            return _number(text, whole=self.kind == "integer")
        return text

    def spelled(self, value: Any) -> str | None:
        """Return the text by which two jobs' answers are compared; None for no answer.

        A label's case and spacing say nothing, nor does the point of a whole number.
        """
        if value is None:
            return None
        return normalize_label(str(value)) if self.kind == "category" else vote_text(value)

    @cached_property
    def _choices(self) -> dict[str, Any]:
        return {normalize_label(str(label)): label for label in self.labels or ()}


def _number(text: str, *, whole: bool) -> int | float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("a whole number" if whole else "a number") from None
    if not whole:
        return value
    if not value.is_integer():  # a spreadsheet writes 3 as 3.0
        raise ValueError("a whole number")
    # Digits go past float, which would round an id of more than 2**53.
    return int(text) if text.strip().lstrip("+-").isdigit() else int(value)
