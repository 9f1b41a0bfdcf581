"""Name the columns that a job makes, and refuse names that collide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self, TypeVar

from frameenrich.answers.fields import Field, flattened
from frameenrich.answers.output import Output
from frameenrich.errors import ColumnCollisionError, warn_user
from frameenrich.model import JobSpec

T = TypeVar("T")

# The Responses API's name for log probabilities, in `include`.
INCLUDED = "message.output_text.logprobs"


def asks_confidence(spec: JobSpec) -> bool:
    """Tell whether a job's requests ask for log probabilities."""
    included = spec.params.get("include")
    return bool(spec.params.get("logprobs")) or (
        isinstance(included, list) and INCLUDED in included
    )


_USAGE_COLUMNS = (
    "model", "attempt", "prompt_tokens", "completion_tokens", "cost_usd", "finish_reason",
    "custom_id", "repaired", "reasoning", "raw",
)  # fmt: skip


def has_confidence(spec: JobSpec, fields: Sequence[Field]) -> bool:
    """Tell whether a label comes with a confidence, taken from its token probabilities."""
    # Only a labels output has a category without a name; a category of an object has one.
    labels = [field for field in fields if not field.name and field.kind == "category"]
    return bool(labels) and asks_confidence(spec)


def column_name(spec: JobSpec, field: Field) -> str:
    """Return the column of an output field; a single-valued output is called after the job."""
    return f"{spec.prefix}{field.name or spec.name}{field.suffix}"


# A bound for names that are only compared; no frame has so many columns.
_MOST_NESTED = 10_000


@dataclass(frozen=True)
class JobColumns:
    """The columns that a job makes.

    Parameters
    ----------
    name : str
        The job's, with which the columns begin that say what became of a row.
    answers : tuple of str
        Of the answers, in their order.
    nested : tuple of str
        What ``flatten=True`` makes of nested fields.
    votes : bool
        Whether each row was answered several times.
    """

    name: str
    answers: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    votes: bool = False

    @classmethod
    def of(cls, spec: JobSpec, output: Output) -> Self:
        """Name the columns of a job by its spec, and by how its answers are read."""
        answers = [column_name(spec, field) for field in output.fields]
        if has_confidence(spec, output.fields):
            answers.append(f"{spec.name}_confidence")
        if output.spec.samples > 1:
            answers.append(f"{spec.name}_agreement")
        leaves = (leaf for each in output.fields if each.inner for leaf, _ in flattened(each, ()))
        # Parts that refer to others twice at each level have millions, which nobody lays out.
        names = tuple(column_name(spec, leaf) for leaf in islice(leaves, _MOST_NESTED))
        return cls(spec.name, tuple(answers), names, votes=output.spec.samples > 1)

    @property
    def added(self) -> list[str]:
        """The columns that `collect` adds, without those of ``usage=True``."""
        return [*self.answers, f"{self.name}_status", f"{self.name}_error"]

    @property
    def usage(self) -> list[str]:
        """The columns that ``usage=True`` adds."""
        votes = ("votes",) if self.votes else ()
        return [f"{self.name}_{what}" for what in (*_USAGE_COLUMNS, *votes)]

    @property
    def reserved(self) -> list[str]:
        """The columns that describe what became of a row and hold no answer."""
        return [f"{self.name}_status", f"{self.name}_error", *self.usage]

    def check(self, *, key: Iterable[str] = (), frame: Iterable[str] = ()) -> None:
        """Refuse names that repeat, or that the key or the frame has, before anything is paid.

        Those of ``usage=True`` must not be the key's either: `collect` and the report show both.

        Raises
        ------
        ColumnCollisionError
            Names them.
        """
        _refuse(
            [name for name, times in Counter([*self.added, *self.usage]).items() if times > 1],
            "Two of the columns that the answers go to would be called {}.",
            "Pass another name=, or prefix= for the fields.",
        )
        _refuse(
            _common([*self.added, *self.nested, *self.usage], key),
            "The answers would go to a column {}, which is the name of the key.",
            "Rename the field, or pass prefix= for the fields or another name=.",
        )
        _refuse(
            _common([*self.added, *self.nested], frame),
            "The frame has a column {} already, which the answers would go to.",
            "Pass another name=, or prefix= for the fields, or drop that column.",
        )

    def check_made(self, names: Sequence[str]) -> None:
        """Refuse columns of stored answers, a parser's and flattened ones among them.

        Raises
        ------
        ColumnCollisionError
            They are one another's, or those that say what became of a row.
        """
        _refuse(
            _common(names, self.reserved),
            "{} is reserved for the row's status columns.",
            "Rename that field, or that key in the parser; the answers are safe in the job.",
        )
        _refuse(
            [name for name, times in Counter(names).items() if times > 1],
            "Two of the columns that the answers go to would be called {}.",
            "Collect with flatten=False, or let the parser give keys that differ as texts; the "
            "answers are safe in the job.",
        )

    def check_frame(self, names: Iterable[str], frame: Iterable[str]) -> None:
        """Refuse to collect into a frame that has a column of its own where an answer would go.

        The columns of an earlier collect are replaced; a frame without its status has none.

        Raises
        ------
        ColumnCollisionError
            Names them.
        """
        taken = _common(names, frame)
        # With the status column there, all are an earlier collect's and may be replaced.
        _refuse(
            [] if f"{self.name}_status" in taken else taken,
            "The frame has a column {}, which the answers would go to.",
            "Rename or drop that column; the answers are safe in the job.",
        )


def beside(columns: Mapping[str, T], name: str, frame: Collection[str]) -> dict[str, T]:
    """Return columns of which those that a frame has already go under ``<name>_<column>``.

    Those that an earlier collect has put there are found there again; a warning names them.

    Examples
    --------
    >>> beside({"n": 1, "a_status": 3}, "a", ["title", "size"])
    {'n': 1, 'a_status': 3}
    """
    # A status column shows that an earlier collect has put its columns there.
    again = f"{name}_status" in frame
    moved = [
        own for own in columns
        if own in frame and not own.startswith(f"{name}_") and own != name
        and (not again or f"{name}_{own}" in frame)
    ]  # fmt: skip
    if moved and not again:
        warn_user(
            f"The frame has a column {moved[0]!r}, as the parser's answers have; "
            f"theirs is {f'{name}_{moved[0]}'!r}."
        )
    return {f"{name}_{own}" if own in moved else own: value for own, value in columns.items()}


def key_beside(names: Sequence[str], ours: Collection[str]) -> list[str]:
    """Name the columns of a key in a table of ours, apart from its other columns.

    Examples
    --------
    >>> key_beside(["sku", "note"], ["field", "note"])
    ['sku', 'key note']
    >>> key_beside(["key note", "note"], ["note"])
    ['key note', 'key key note']
    """
    taken, found = {*names, *ours}, []
    for own in names:
        name = own
        # What code looks up in the table is ours, so that the key makes room.
        while own in ours and name in taken:
            name = f"key {name}"
        found.append(name)
    return found


def _common(names: Iterable[str], others: Iterable[str]) -> list[str]:
    # A set: frames of thousands of columns are compared with each other.
    taken = frozenset(others)
    return [name for name in names if name in taken]


def _refuse(columns: Sequence[str], problem: str, fix: str) -> None:
    if columns:
        raise ColumnCollisionError(problem.format(repr(columns[0])), fix, columns=list(columns))
