"""What stands in a store: its jobs listed, found and, when they are old, deleted.

One damaged job is no reason to hide the others: it is listed as damaged, passed over by who looks
for the newest, and deleted by force only.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pandas as pd

from frameenrich.errors import (
    FrameEnrichError,
    FrameEnrichWarning,
    JobBusyError,
    JobNotFoundError,
    ParameterError,
    StoreError,
)
from frameenrich.job import Job, StoreLike
from frameenrich.store import JobFolder, Store, open_store
from frameenrich.sweep import Footprint, delete_leftover, discard, leftovers, weigh

_AGE = re.compile(r"(\d+(?:\.\d+)?) ?(m|h|d|w)")
_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MOMENT = "UTC"
_LISTED = {
    "job": "string",
    "name": "string",
    "model": "string",
    "provider": "string",
    "created": _MOMENT,
    "rounds": "Int64",
    "batches": "string",
    "settled": "boolean",
    "bytes": "Int64",
    "changed": _MOMENT,
}
_CLEANED = {
    "what": "string",
    "name": "string",
    "changed": _MOMENT,
    "bytes": "Int64",
    "deleted": "boolean",
    "reason": "string",
}


def readable_jobs(store: Store) -> tuple[list[JobFolder], list[StoreError]]:
    """The jobs of a store, the newest first, and what is wrong with those that cannot be read."""
    readable: list[tuple[float, JobFolder]] = []
    damages = []
    for folder in _folders(store):
        try:
            readable.append((folder.created_at, folder))
        except StoreError as error:
            damages.append(error)
    newest = sorted(readable, key=lambda pair: pair[0], reverse=True)
    return [folder for _, folder in newest], damages


def pass_over(damages: Iterable[StoreError]) -> None:
    """Warn of damaged jobs that nobody asked for."""
    for error in damages:
        warnings.warn(f"A damaged job was passed over: {error}", FrameEnrichWarning, stacklevel=3)


def newest_job(store: StoreLike = None) -> JobFolder:
    """The job that was submitted last.

    Raises
    ------
    JobNotFoundError
        There is none.
    StoreError
        There are damaged ones only.
    """
    where = open_store(store)
    folders, damages = readable_jobs(where)
    if folders:
        pass_over(damages)
        return folders[0]
    if damages:
        raise damages[0]
    raise JobNotFoundError(f"The store {where.root} holds no job.", "Submit one, or say store=.")


def _folders(store: Store) -> list[JobFolder]:
    return [JobFolder(store, job_id) for job_id in sorted(store.job_ids())]


def jobs(store: StoreLike = None) -> pd.DataFrame:
    """The jobs of a store, the newest first, one a row; asks no provider.

    Returns
    -------
    DataFrame
        Columns ``job``, ``name``, ``model``, ``provider``, ``created`` (UTC), ``rounds``,
        ``batches`` (their statuses, or ``damaged``), ``settled`` (whether every answer is here),
        ``bytes`` (of its folder) and ``changed`` (UTC; when anything in it last did).

    Warns
    -----
    FrameEnrichWarning
        A job's files are damaged; the message names one of them.
    """
    table = _table([_listed(folder) for folder in _folders(open_store(store))], _LISTED)
    return table.sort_values("created", ascending=False, kind="stable", ignore_index=True)


def _listed(folder: JobFolder) -> dict[str, Any]:
    size = weigh(folder)
    known = {"job": folder.id, "bytes": size.size_bytes, "changed": size.changed_at}
    try:
        batches = [shard.batch for shard in folder.all_shards()]
        return known | {
            "name": folder.spec.name,
            "model": folder.spec.model,
            "provider": folder.spec.provider,
            "created": folder.created_at,
            "rounds": folder.rounds(),
            "batches": ", ".join(batch.status for batch in batches),
            "settled": all(batch.settled for batch in batches),
        }
    except StoreError as error:
        warnings.warn(str(error), FrameEnrichWarning, stacklevel=4)
        return known | {"batches": "damaged"}


def _table(rows: list[dict[str, Any]], types: dict[str, Any]) -> pd.DataFrame:
    columns = {}
    for name, dtype in types.items():
        values = [row.get(name) for row in rows]
        is_moment = dtype == _MOMENT
        column = pd.Series(values, dtype="float64" if is_moment else dtype)
        columns[name] = pd.to_datetime(column, unit="s", utc=True) if is_moment else column
    return pd.DataFrame(columns)


# --- deleting -----------------------------------------------------------------------------------


def clean(
    older_than: str | timedelta,
    *,
    store: StoreLike = None,
    remote: bool = False,
    force: bool = False,
    dry_run: bool = False,
    client: Any = None,
) -> pd.DataFrame:
    """Delete finished jobs that nothing was done to for long, and what killed processes left.

    A job that still runs, has answers at its provider that are not here, or is damaged stays.
    Answers that go are gone: the same submit later pays for them again.

    Parameters
    ----------
    older_than : str or timedelta
        How long ago a job's folder last changed: ``"30d"``, ``"12h"``, ``"8w"``.
    store : str, PathLike or Store, optional
        Whose jobs; ``$FRAMEENRICH_STORE`` or ``.frameenrich`` by default.
    remote : bool
        Whether the provider's copies of a job's files are deleted first (see `Job.cleanup`);
        where that fails, the job stays.
    force : bool
        Whether jobs go that are not finished, or damaged: their answers are lost.
    dry_run : bool
        Delete nothing; tell what would be.
    client : openai.OpenAI, optional
        For `remote`, where the environment does not say.

    Returns
    -------
    DataFrame
        One row for each old job and each leftover: ``what`` (``job`` or ``leftover``), ``name``,
        ``changed`` (UTC), ``bytes``, ``deleted``, and ``reason``, which says why a job stays.
        What a `dry_run` would delete has neither.

    Raises
    ------
    ParameterError
        `older_than` is no length of time.

    Examples
    --------
    >>> import tempfile
    >>> clean("30d", store=tempfile.mkdtemp(), dry_run=True).empty
    True
    """
    where = open_store(store)
    limit = time.time() - _seconds(older_than)
    rows = []
    for folder in _folders(where):
        size = weigh(folder)
        if size.changed_at <= limit:
            reason = _why_kept(folder, force=force)
            if reason is None and not dry_run:
                reason = _delete(folder, Job(folder, client=client) if remote else None, force)
            rows.append(_row("job", folder.id, size, reason is None and not dry_run, reason))
    for path, size in leftovers(where):
        rows.append(_row("leftover", path, size, not dry_run and delete_leftover(path), None))
    return _table(rows, _CLEANED)


def _row(
    what: str, name: str, size: Footprint, deleted: bool, reason: str | None
) -> dict[str, Any]:
    known = {"what": what, "name": name, "deleted": deleted, "reason": reason}
    return known | {"bytes": size.size_bytes, "changed": size.changed_at}


def _seconds(age: str | timedelta) -> float:
    """A length of time in seconds.

    Examples
    --------
    >>> _seconds("1.5h"), _seconds(timedelta(days=2))
    (5400.0, 172800.0)
    """
    found = _AGE.fullmatch(age.strip()) if isinstance(age, str) else None
    if found:
        return float(found[1]) * _UNIT_SECONDS[found[2]]
    if isinstance(age, timedelta) and age >= timedelta(0):
        return age.total_seconds()
    raise ParameterError(
        f"older_than={age!r} is no length of time.",
        "Write a number and m, h, d or w, such as '30d' for thirty days.",
    )


def _why_kept(folder: JobFolder, *, force: bool) -> str | None:
    """Why a job must not go; None where it may."""
    if force:
        return None
    try:
        statuses = {s.batch.status for s in folder.all_shards() if not s.batch.settled}
        _ = folder.spec
    except StoreError as error:
        return f"damaged: {error.problem}"
    return f"not finished: {', '.join(sorted(statuses))}" if statuses else None


def _delete(folder: JobFolder, remote: Job | None, force: bool) -> str | None:
    """Delete a job; why it stays, where it does."""
    try:
        if remote is not None and any(shard.batch.id for shard in folder.all_shards()):
            remote.cleanup()
        with folder.lock(timeout_seconds=0):
            reason = _why_kept(folder, force=force)  # somebody may have asked again by now
            if reason is None:
                discard(folder)
            return reason
    except JobBusyError:
        return "another process is at work on it"
    except FrameEnrichError as error:
        return str(error)
