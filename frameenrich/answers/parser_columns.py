"""Give every part of a frame the same columns of a user's parser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from frameenrich.errors import OutputError
from frameenrich.model import JobSpec

Columns = Mapping[str, pd.Series]


# In Dask they are those of the first rows' answers, or `meta=`'s: a lazy frame says its columns
# before it has them. A part that makes another one is an error, never a column that is lost.
@dataclass(frozen=True)
class ParserColumns:
    """The columns that a parser makes, and their dtypes.

    What the answers of one part show is not all: another may have a column more, or fractions
    where this one has whole numbers.

    Parameters
    ----------
    job_name : str
        The job's name; its columns stand before that of the status.
    dtypes : mapping
        The columns and their dtypes.
    final : bool
        Whether `dtypes` were learned from every part. Else a part may have values that do not
        fit, which are refused.
    """

    job_name: str
    dtypes: Mapping[str, Any]
    final: bool = False

    @classmethod
    def learn(cls, spec: JobSpec, parts: Iterable[Columns], *, final: bool) -> Self:
        """Learn from the columns that some parts of a frame get."""
        found: dict[str, set[Any]] = {}
        for columns in parts:
            for name in _before_status(columns, spec.name):
                known = found.setdefault(name, set())
                # A column of nulls alone has no dtype that means anything.
                if columns[name].notna().any():
                    known.add(columns[name].dtype)
        plain = f"{spec.prefix}{spec.name}"  # the values of a parser that gives no dict
        values = found.pop(plain, set())
        if values or not found:
            found[plain] = values
        return cls(spec.name, {name: _common(kinds) for name, kinds in found.items()}, final)

    def conform(self, columns: Columns) -> dict[str, pd.Series]:
        """Return a part's columns as every part has them.

        Raises
        ------
        OutputError
            The parser made a column, or values, that the parts before it did not have.
        """
        own = _before_status(columns, self.job_name)
        rest = {name: column for name, column in columns.items() if name not in own}
        new = [name for name in own if name not in self.dtypes and columns[name].notna().any()]
        if new:
            raise OutputError(
                f"The parser returned a column {new[0]!r} that it did not return for the first "
                "rows.",
                "Name all columns and their dtypes: collect(parser=..., meta={'size': 'Int64'}).",
                columns=new,
            )
        none = pd.Series([None] * len(rest[f"{self.job_name}_status"]), dtype=object)
        made = {name: self._cast(name, columns.get(name, none)) for name in self.dtypes}
        return {**made, **rest}

    def _cast(self, name: str, column: pd.Series) -> pd.Series:
        dtype = pd.api.types.pandas_dtype(self.dtypes[name])
        if self.final or dtype == column.dtype:
            return column.astype(dtype)
        try:
            cast = column.astype(dtype)
            known = column.notna()
            # astype() may change a value without an error: only equal values are let through.
            if not cast[known].astype(object).eq(column[known].astype(object)).all():
                raise ValueError("some would change")
        except (TypeError, ValueError) as error:
            raise OutputError(
                f"Column {name!r} was {dtype} in the first rows; the parser now returned other "
                f"values: {error}.",
                f"Say what it is: collect(parser=..., meta={{{name!r}: 'object'}}).",
                columns=[name],
            ) from None
        return cast


def _before_status(columns: Columns, job_name: str) -> list[str]:
    names = list(columns)
    return names[: names.index(f"{job_name}_status")]


def _common(dtypes: set[Any]) -> Any:
    """Return the dtype that pandas would find for all values at once."""
    if len(dtypes) == 1:
        return next(iter(dtypes))
    numbers = {pd.Int64Dtype(), pd.Float64Dtype()}
    return pd.Float64Dtype() if dtypes and dtypes <= numbers else object
