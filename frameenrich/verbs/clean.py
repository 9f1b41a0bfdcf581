"""Delete old jobs and unfinished files of a store."""

from __future__ import annotations

import contextlib
import re
import time
from datetime import timedelta
from typing import Any

import pandas as pd

from frameenrich.atomic import RENAMES_OPEN_FILES
from frameenrich.errors import FrameEnrichError, JobBusyError, ParameterError, StoreError
from frameenrich.lifecycle.reuse import jobs_waiting_for
from frameenrich.store.cleanup import (
    FolderSize,
    delete_job,
    delete_leftover,
    folder_size,
    unfinished_files,
)
from frameenrich.store.folder import JobPath
from frameenrich.store.listing import MOMENT, job_paths, to_frame
from frameenrich.store.store import StoreLike, open_store
from frameenrich.verbs.job import Job
from frameenrich.verbs.signatures import takes_options_of

_AGE = re.compile(r"(\d+(?:\.\d+)?) ?(m|h|d|w)")


_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


_CLEANED = {
    "what": "string",
    "name": "string",
    "changed": MOMENT,
    "bytes": "Int64",
    "deleted": "boolean",
    "reason": "string",
}


# --- deleting -----------------------------------------------------------------------------------


@takes_options_of()
def clean(
    older_than: str | timedelta,
    *,
    store: StoreLike = None,
    remote: bool = False,
    force: bool = False,
    dry_run: bool = False,
    client: Any = None,
) -> pd.DataFrame:
    """Delete finished jobs that have not changed for long, and files of killed processes.

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
        Delete nothing; list what would be deleted.
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
    for folder in job_paths(where):
        size = folder_size(folder)
        if size.changed_at <= limit:
            reason = _why_kept(folder, force=force)
            if reason is None and not dry_run:
                reason = _delete(folder, Job(folder, client=client) if remote else None, force)
            rows.append(_row("job", folder.id, size, reason is None and not dry_run, reason))
    for path, size in unfinished_files(where):
        rows.append(_row("leftover", path, size, not dry_run and delete_leftover(path), None))
    return to_frame(rows, _CLEANED)


def _row(
    what: str, name: str, size: FolderSize, deleted: bool, reason: str | None
) -> dict[str, Any]:
    known = {"what": what, "name": name, "deleted": deleted, "reason": reason}
    return known | {"bytes": size.size_bytes, "changed": size.changed_at}


def _seconds(age: str | timedelta) -> float:
    """Return a length of time in seconds.

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
        f"older_than={age!r} is not a length of time.",
        "Write a number and m, h, d or w, such as '30d' for thirty days.",
    )


def _why_kept(folder: JobPath, *, force: bool) -> str | None:
    """Say why a job must stay; None where it may go."""
    if force:
        return None
    try:
        statuses = {batch.status for batch in folder.read().batches if not batch.settled}
    except StoreError as error:
        return f"damaged: {error.problem}"
    if statuses:
        return f"not finished: {', '.join(sorted(statuses))}"
    # Asked last, since it reads the other jobs of the store.
    waiting = jobs_waiting_for(folder.store, folder.id)
    return f"its answers are waited for by {', '.join(waiting)}" if waiting else None


def _delete(folder: JobPath, remote: Job | None, force: bool) -> str | None:
    """Delete a job; return the reason where it stays."""
    try:
        # The provider's copies first: without the job's folder nobody would know their ids.
        if remote is not None and any(batch.id for batch in folder.read().batches):
            remote.cleanup()
        # No waiting: who holds the lock is using the job, so it is not old. Nor may a submit be
        # reading the answers that it reuses, or about to wait for this job.
        with contextlib.ExitStack() as lock:
            lock.enter_context(folder.lock(timeout_seconds=0))
            with folder.store.deciding(timeout_seconds=0):
                reason = _why_kept(folder, force=force)  # somebody may have asked again by now
                if reason is None:
                    if not RENAMES_OPEN_FILES:
                        lock.close()  # its file lies in the folder
                    delete_job(folder)
                return reason
    except JobBusyError as error:
        if error.job_id == folder.id:
            return "another process is at work on it"
        return "another process submits a job, which may need it"
    except FrameEnrichError as error:
        return str(error)
