"""Count mended answers and flagged rows' remedies while rows are collected."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from frameenrich.answers.arrow_column import Positions
from frameenrich.answers.result_table import ResultTable
from frameenrich.errors import warn_user
from frameenrich.model import Remedy, RowStatus


@dataclass
class RowFacts:
    """Facts on the rows that were collected so far.

    ``repaired`` counts usable answers that were mended before they were read, ``remedies`` the
    flagged rows by what it takes to ask them again.
    """

    repaired: int = 0
    remedies: Counter[Remedy] = field(default_factory=Counter)


# A context variable, not a global: two threads that collect at once count apart.
_counting: ContextVar[RowFacts | None] = ContextVar("counting", default=None)


@contextlib.contextmanager
def counting_rows() -> Iterator[RowFacts]:
    """Count facts of the rows collected within, for a caller that shows them; nothing warns."""
    counted = RowFacts()
    token = _counting.set(counted)
    try:
        yield counted
    finally:
        _counting.reset(token)


def note_rows(
    job_id: str, name: str, table: ResultTable, slots: Positions, *, shown: bool = False
) -> None:
    """Count rows' facts; where nobody counts, warn of mended answers.

    Parameters
    ----------
    job_id, name : str
        The job's, and the start of its columns.
    table, slots : ResultTable, int64 array
        What is known of the job's requests, and the rows' slots there, -1 for none.
    shown : bool
        Whether a column says which answers were mended.

    Warns
    -----
    FrameEnrichWarning
        Some were.
    """
    own = slots[slots >= 0]
    repaired, counting = table.count_repaired(own), _counting.get()
    if counting is not None:
        counting.repaired += repaired
        counting.remedies.update(table.count_remedies(own))
    # Said once, by whoever has no column that shows it.
    elif repaired and not shown:
        ok = table.counts(own).get(RowStatus.OK, 0)
        warn_user(
            f"{repaired:,} of the {ok:,} usable answers of the job {job_id} were mended before "
            "they were read (fences, words around them, commas or quotes). usage=True shows "
            f"which: the column '{name}_repaired'."
        )


# --- what to call next ----------------------------------------------------------------------------

# A refusal or a 4xx (but 408, 409, 429) is not sent again by itself, so each has a call of its own.
_CALLS = {
    Remedy.AGAIN: "job.regenerate()",
    Remedy.MODEL: "job.regenerate(model='...')",
    Remedy.REFUSED: "job.regenerate(statuses=['refused'])",
    Remedy.REQUEST: "job.regenerate(statuses=['failed'], params={...})",
    Remedy.TIMED_OUT: "job.regenerate(statuses=['failed'])",
    # Another way to ask needs other words in the prompt, so that it is another job.
    Remedy.FORM: "df.llmbatch.submit(..., json_mode='object')",
}


_COMMANDS = {
    Remedy.AGAIN: "frameenrich regenerate {job}",
    Remedy.MODEL: "frameenrich regenerate {job} --model MODEL",
    Remedy.REFUSED: "frameenrich regenerate {job} --status refused",
    Remedy.REQUEST: "frameenrich regenerate {job} --status failed --param NAME=VALUE",
    Remedy.TIMED_OUT: "frameenrich regenerate {job} --status failed",
    Remedy.FORM: "the same command with --json-mode object",
}


_WHY = {
    Remedy.AGAIN: "rows of other statuses go only where statuses= names them",
    Remedy.MODEL: "rows whose model is not there go only with another one: model=",
    Remedy.REFUSED: "refused rows go only with statuses=['refused']",
    Remedy.REQUEST: "rows whose request was refused (HTTP 4xx) go only with statuses=['failed']",
    Remedy.TIMED_OUT: "rows that timed out may have run, and be charged: they go again only with "
    "statuses=['failed']",
    Remedy.FORM: "rows whose server takes no such schema go with another job: submit them with "
    "json_mode='object', or 'prompt'",
}


def retry_calls(remedies: Counter[Remedy]) -> list[str]:
    """Return the calls that would send flagged rows again, without those that would send none.

    Examples
    --------
    >>> retry_calls(Counter({Remedy.REFUSED: 3}))
    ["job.regenerate(statuses=['refused'])"]
    """
    return [call for remedy, call in _CALLS.items() if remedies[remedy]]


def retry_commands(job_id: str, remedies: Counter[Remedy]) -> list[str]:
    """Return the commands that would send flagged rows again, without those that would send none.

    Examples
    --------
    >>> retry_commands("job-1", Counter({Remedy.MODEL: 3}))
    ['frameenrich regenerate job-1 --model MODEL']
    """
    return [command.format(job=job_id) for remedy, command in _COMMANDS.items() if remedies[remedy]]


def describe_round(sent: int, left: Counter[Remedy]) -> str:
    """Describe how many flagged rows a round sent, and how to send those it left out.

    Examples
    --------
    >>> describe_round(0, Counter({Remedy.REFUSED: 14}))
    "0 of 14 flagged rows sent: refused rows go only with statuses=['refused'] (14)."
    """
    flagged = sent + left.total()
    if not flagged:
        return "No row is flagged, so nothing was sent."
    reasons = "; ".join(f"{why} ({left[remedy]:,})" for remedy, why in _WHY.items() if left[remedy])
    return f"{sent:,} of {flagged:,} flagged rows sent{': ' if reasons else ''}{reasons}."
