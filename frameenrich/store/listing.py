"""What stands in a store: its jobs listed, found and, when they are old, deleted.

One damaged job is no reason to hide the others: it is listed as damaged, passed over by who looks
for the newest, and deleted by force only.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import pandas as pd

from frameenrich.errors import FrameEnrichWarning, JobNotFoundError, StoreError
from frameenrich.store.cleanup import folder_size
from frameenrich.store.folder import JobFolder
from frameenrich.store.store import Store, StoreLike, open_store

MOMENT = "UTC"


_LISTED = {
    "job": "string",
    "name": "string",
    "model": "string",
    "provider": "string",
    "created": MOMENT,
    "rounds": "Int64",
    "batches": "string",
    "settled": "boolean",
    "bytes": "Int64",
    "changed": MOMENT,
}


def list_jobs(store: Store) -> tuple[list[JobFolder], list[StoreError]]:
    """The jobs of a store, the newest first, and what is wrong with those that cannot be read."""
    readable: list[tuple[float, JobFolder]] = []
    damages = []
    for folder in folders(store):
        try:
            readable.append((folder.created_at, folder))
        except StoreError as error:
            damages.append(error)
    newest = sorted(readable, key=lambda pair: pair[0], reverse=True)
    return [folder for _, folder in newest], damages


def warn_damaged(damages: Iterable[StoreError]) -> None:
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
    folders, damages = list_jobs(where)
    if folders:
        warn_damaged(damages)
        return folders[0]
    if damages:
        raise damages[0]
    raise JobNotFoundError(f"The store {where.root} holds no job.", "Submit one, or say store=.")


def folders(store: Store) -> list[JobFolder]:
    """List the folders of a store, by job id."""
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
    table = to_frame([_listed(folder) for folder in folders(open_store(store))], _LISTED)
    return table.sort_values("created", ascending=False, kind="stable", ignore_index=True)


def _listed(folder: JobFolder) -> dict[str, Any]:
    size = folder_size(folder)
    known = {"job": folder.id, "bytes": size.size_bytes, "changed": size.changed_at}
    try:
        state = folder.read()
        return known | {
            "name": folder.spec.name,
            "model": folder.spec.model,
            "provider": folder.spec.provider,
            "created": folder.created_at,
            "rounds": state.rounds(),
            "batches": ", ".join(batch.status for batch in state.batches),
            "settled": state.settled,
        }
    except StoreError as error:
        warnings.warn(str(error), FrameEnrichWarning, stacklevel=4)
        return known | {"batches": "damaged"}


def to_frame(rows: list[dict[str, Any]], types: dict[str, Any]) -> pd.DataFrame:
    """Make a frame of rows whose columns keep their types where there are no rows."""
    columns = {}
    for name, dtype in types.items():
        values = [row.get(name) for row in rows]
        is_moment = dtype == MOMENT
        column = pd.Series(values, dtype="float64" if is_moment else dtype)
        columns[name] = pd.to_datetime(column, unit="s", utc=True) if is_moment else column
    return pd.DataFrame(columns)
