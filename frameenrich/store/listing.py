"""List and find the jobs of a store.

One damaged job does not hide the others: it is listed as damaged, skipped in the search for the
newest, and deleted by force only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import pandas as pd

from frameenrich.errors import JobNotFoundError, StoreError, warn_user
from frameenrich.store.folder import JobFolder, JobPath, is_job_id, split_jobs
from frameenrich.store.store import Store, StoreLike, open_store

MOMENT = "UTC"


def list_jobs(store: Store) -> tuple[list[JobFolder], list[StoreError]]:
    """List the jobs of a store, the newest first, and the errors of those that cannot be read."""
    readable, damaged = split_jobs(store)
    return readable, [error for _, error in damaged]


def warn_damaged(damages: Iterable[StoreError]) -> None:
    """Warn of damaged jobs that were skipped."""
    for error in damages:
        warn_user(f"A damaged job was passed over: {error}")


def find_folder(store: StoreLike, job: str) -> JobPath:
    """Find the job of that id, or the newest of that name; a pilot only where there is no other.

    Raises
    ------
    JobNotFoundError
        The store holds neither.
    """
    where = open_store(store)
    # The id first: it names one job, even where another job's name is the same text.
    if is_job_id(job) and where.has(job):
        return JobPath(where, job)
    folders, damages = list_jobs(where)
    own = [folder for folder in folders if isinstance(job, str) and folder.spec.name == job]
    named = pilots_last(own)
    if named:
        return named[0]
    # The job may be a damaged one, of which "no such job" would say nothing.
    if damages and not folders:
        raise damages[0]
    warn_damaged(damages)
    raise _no_such_job(where, job, folders)


def _no_such_job(store: Store, job: object, folders: Iterable[JobFolder]) -> JobNotFoundError:
    known = list(dict.fromkeys(each for f in folders for each in (f.spec.name, f.id)))
    shown = repr(job) if isinstance(job, str | int) else f"{type(job).__name__}"
    close = difflib.get_close_matches(str(job), known, n=1) if isinstance(job, str) else []
    some = f"Its jobs are: {', '.join(known[:6])}" if known else "It is empty"
    return JobNotFoundError(
        f"The store {store.root} holds no job {shown}, by id or by name.",
        f"Did you mean {close[0]!r}?"
        if close
        else f"{some}; frameenrich.jobs(store=...) lists them all.",
        job_id=job,
    )


def pilots_last(folders: Iterable[JobFolder]) -> list[JobFolder]:
    """Sort pilots behind the jobs that people mean when they name none."""
    # The sort is stable, so the newest stays first among pilots and among others.
    return sorted(folders, key=lambda folder: folder.spec.aside)


def newest_job(store: StoreLike = None) -> JobFolder:
    """Find the job that was submitted last; a pilot only where there is no other.

    Raises
    ------
    JobNotFoundError
        There is none.
    StoreError
        There are damaged ones only.
    """
    where = open_store(store)
    folders, damages = list_jobs(where)
    if folders:
        warn_damaged(damages)
        return pilots_last(folders)[0]
    if damages:
        raise damages[0]
    raise JobNotFoundError(f"The store {where.root} holds no job.", "Submit one, or say store=.")


def job_paths(store: Store) -> list[JobPath]:
    """List where the jobs of a store lie, by job id; damaged ones too."""
    return [JobPath(store, job_id) for job_id in sorted(store.job_ids())]


def to_frame(rows: list[dict[str, Any]], types: dict[str, Any]) -> pd.DataFrame:
    """Make a frame whose columns keep their types even without rows."""
    columns = {}
    for name, dtype in types.items():
        values = [row.get(name) for row in rows]
        is_moment = dtype == MOMENT
        column = pd.Series(values, dtype="float64" if is_moment else dtype)
        # Whole seconds: a file system's nanoseconds would make the table too wide for a notebook.
        columns[name] = pd.to_datetime(column // 1, unit="s", utc=True) if is_moment else column
    return pd.DataFrame(columns)
