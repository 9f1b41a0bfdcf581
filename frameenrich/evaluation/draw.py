"""Draw the rows of a review by stratum, repeatable by its seed.

A row's rank is a hash of the job, the seed and the row's key, so it depends on no order of rows. A
draw takes the first ranks of each stratum. A larger draw with the same seed therefore contains the
smaller one, and a draw that was topped up is the same as one that was made large at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from frameenrich.identity.keys import key_texts

WHOLE = ""
"""The one stratum of a simple draw."""

_FLOOR = 10
"""The fewest reviewed rows of a label: of 10 right ones the 95 % interval still begins at 0.69."""

_FEWEST = 2
"""Rows that a stratum needs before its variance can be estimated."""


FIRST_REVIEW = 100
"""The number of rows that we propose for a first review."""


def first_review(rows: int) -> int:
    """Return how many rows to propose for a first review; all of them where there are fewer."""
    return min(FIRST_REVIEW, rows)


@dataclass(frozen=True)
class Sample:
    """Drawn rows: positions among those that could be drawn, in the order of review.

    ``strata`` counts all rows of each stratum, ``sizes`` the drawn ones; ``stratum`` names each
    drawn row's.
    """

    positions: npt.NDArray[np.int64]
    stratum: tuple[str, ...]
    strata: Mapping[str, int]
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def inclusion_probability(self) -> npt.NDArray[np.float64]:
        """The probability with which each drawn row was drawn."""
        return np.array([self.sizes[name] / self.strata[name] for name in self.stratum])


def draw_rows(
    keys: pa.Table,
    strata: Sequence[str],
    n: int,
    *,
    seed: int,
    job_id: str,
    earlier: npt.NDArray[np.int64] | None = None,
) -> Sample:
    """Draw `n` rows, or top up an earlier draw of the same seed with `n` more.

    Parameters
    ----------
    keys : Table
        The keys of all rows that can be drawn.
    strata : sequence of str
        Each row's stratum; `WHOLE` for a simple draw.
    n : int
        How many rows; all of them where there are fewer.
    seed, job_id
        What the ranks are made of: another seed, or another job, is an independent draw.
    earlier : int64 array, optional
        Positions of the rows that were drawn before. They count in ``sizes`` and are not drawn
        again.
    """
    had = np.empty(0, np.int64) if earlier is None else earlier
    # Job and seed go in as the hash's seed: each pair of them ranks the rows independently.
    start = xxhash.xxh3_64_intdigest(f"{job_id}/{seed}".encode())
    texts = key_texts(keys).cast(pa.binary()).to_pylist()
    ranks = np.array([xxhash.xxh3_64_intdigest(text, start) for text in texts], np.uint64)
    members = _members(strata, ranks)
    position = np.empty(len(strata), np.int64)
    for rows in members.values():
        position[rows] = np.arange(len(rows))
    # Rows that joined a stratum since may rank before one that was drawn: they are drawn first, or
    # the stratum's rows would not be its first ranks, and no random sample of it.
    at_least = {
        name: int(position[own].max()) + 1 if len(own := had[np.isin(had, rows)]) else 0
        for name, rows in members.items()
    }
    sizes = allocate({s: len(rows) for s, rows in members.items()}, n + len(had), at_least)
    chosen = np.concatenate([rows[: sizes[name]] for name, rows in members.items()])
    new = chosen[~np.isin(chosen, had)]
    # By rank, not by stratum: a reviewer who stops early has judged a random part.
    new = new[np.argsort(ranks[new], kind="stable")]
    return Sample(
        new,
        tuple(strata[i] for i in new),
        {name: len(rows) for name, rows in members.items()},
        sizes,
    )


def _members(
    strata: Sequence[str], ranks: npt.NDArray[np.uint64]
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the rows of each stratum, by rank."""
    # Sorted, since a set's order of texts changes from process to process.
    codes = {name: code for code, name in enumerate(sorted(set(strata)))}
    of_row = np.array([codes[name] for name in strata], np.int64)
    order = np.argsort(ranks, kind="stable")
    return {name: order[of_row[order] == code] for name, code in codes.items()}


def allocate(
    rows: Mapping[str, int], n: int, at_least: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Share `n` among strata in proportion to their rows, with at least ten for each.

    With many strata the floor is less: half of the draw stays proportional.

    Examples
    --------
    >>> allocate({"Kitchen": 900, "Garden": 95, "Toys": 5}, 100)
    {'Kitchen': 85, 'Garden': 10, 'Toys': 5}
    """
    total = sum(rows.values())
    floor = min(_FLOOR, n // (2 * max(len(rows), 1)))
    low = {
        name: min(count, max(floor, (at_least or {}).get(name, 0))) for name, count in rows.items()
    }
    n = min(total, max(n, sum(low.values())))
    names = list(rows)
    sizes = np.array([rows[name] for name in names], float)
    lows = np.array([low[name] for name in names], float)
    share, upper = 0.0, 1.0
    for _ in range(60):  # halving: the share of each stratum at which all of them take n rows
        middle = (share + upper) / 2
        if np.clip(middle * sizes, lows, sizes).sum() < n:
            share = middle
        else:
            upper = middle
    exact = np.clip(upper * sizes, lows, sizes)
    # The halving ends a little off a whole number, which floor would take one down.
    whole = np.floor(exact + 1e-9).astype(int)
    rest = np.argsort(-(exact - whole), kind="stable")
    for i in rest:
        if whole.sum() >= n:
            break
        whole[i] += whole[i] < sizes[i]
    return dict(zip(names, whole.tolist(), strict=True))


def pooled(labels: Sequence[str], n: int) -> dict[str, str]:
    """Map each label to its own stratum; with too many labels the rarest share one.

    Each stratum then has room for at least two rows of `n`.

    Examples
    --------
    >>> pooled(["a", "a", "a", "b", "b", "c", "d"], 12)
    {'a': 'a', 'b': 'b', 'c': '(others)', 'd': '(others)'}
    """
    counts = Counter(labels)
    order = sorted(counts, key=lambda label: (-counts[label], label))
    most = max(1, n // (2 * _FEWEST))
    if len(order) <= most:
        return {label: label for label in order}
    name = "(others)"
    while name in counts:  # a label may have this very name
        name = f"({name})"
    return {label: label if i < most - 1 else name for i, label in enumerate(order)}
