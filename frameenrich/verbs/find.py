"""Find a job in a store by name, id or frame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import pandas as pd

from frameenrich.errors import FrameMismatchError, JobNotFoundError, StoreError, warn_user
from frameenrich.lifecycle.match import find_sidecar_rows, match_frame, require_match
from frameenrich.providers.protocol import Provider
from frameenrich.rendering.prompt import prompt_of
from frameenrich.store.folder import JobFolder, is_job_id
from frameenrich.store.listing import find_folder, list_jobs, pilots_last, warn_damaged
from frameenrich.store.store import StoreLike, open_store
from frameenrich.verbs.job import Job
from frameenrich.verbs.signatures import takes_options_of


@takes_options_of()
def open_job(
    id: str,  # noqa: A002 - the public face's own name
    store: StoreLike = None,
    *,
    client: Any = None,
    provider: Provider | None = None,
) -> Job:
    """Return a handle on a job that was submitted earlier.

    Parameters
    ----------
    id : str
        As ``job.id`` gave it, or `frameenrich.jobs` lists it; or the name that ``submit`` was
        given, for the newest job of that name.
    store : str, PathLike or Store, optional
        Where to look; ``$FRAMEENRICH_STORE`` or ``.frameenrich`` by default.
    client, provider : optional
        How to reach the provider, where the environment does not say.

    Raises
    ------
    JobNotFoundError
        The store holds no such job.
    """
    return Job(find_folder(store, id), provider=provider, client=client)


def find_named_job(frame: pd.DataFrame, job: str, store: StoreLike = None, **handles: Any) -> Job:
    """Find a job by its id, or the newest of that name that was made for this frame.

    Where none of that name has the frame's keys, the newest of them is taken.
    """
    where = open_store(store)
    if isinstance(job, str) and not (is_job_id(job) and where.has(job)):
        # Two frames may have jobs of one name: the one with this frame's keys goes first.
        with contextlib.suppress(JobNotFoundError):
            return find_job(frame, where, name=job, **handles)
    return open_job(job, where, **handles)


def find_job(
    frame: pd.DataFrame,
    store: StoreLike = None,
    *,
    name: str | None = None,
    part: int | None = None,
    **handles: Any,
) -> Job:
    """Find the newest job that was made for this frame; a pilot only where there is no other.

    Where the newest one's rows have changed, an older job is taken, with a warning that names both,
    only if it fits the whole frame and asked about all columns that the newer one asked about:
    January's file after February's, never an older question on edited data.

    Parameters
    ----------
    frame : DataFrame
        The frame, or some rows of it.
    store : str, PathLike or Store, optional
        Where to look.
    name : str, optional
        Only jobs of this name.
    part : int, optional
        Which part these rows are of, where the frame is larger than memory.
    **handles
        As `Job` takes them.

    Raises
    ------
    JobNotFoundError
        No job of the store has any of this frame's keys.
    FrameMismatchError
        Jobs have its keys, but its rows changed under them since.
    StoreError
        There is none, but a job whose sidecar is damaged; where there is one, that is a warning.
    """
    where = open_store(store)
    passed: list[JobFolder] = []
    mismatch: FrameMismatchError | None = None
    folders, damages = list_jobs(where)
    if name is not None:
        folders = [folder for folder in folders if folder.spec.name == name]
        damages = []  # of jobs whose names nobody can read; `find_folder` warns of them
    # Else a pilot after the submit would hide the job that has all rows.
    for folder in pilots_last(folders):
        try:
            lines = folder.sidecar() if part is None else find_sidecar_rows(folder, frame, part)
            match = match_frame(frame, folder, lines)
            if match is None or not match.seen.any():
                continue
            require_match(match, frame, folder)
        # A damaged job must not hide a whole one of the same frame.
        except StoreError as error:
            damages.append(error)
        except FrameMismatchError as error:
            # The newest job's mismatch is the one to report; an older job may still fit.
            mismatch = mismatch or error
            passed.append(folder)
        else:
            if mismatch is not None:
                own = _columns_used(folder, frame)
                # Else the newer job's question on edited data would be answered by an older one.
                asked_all = all(own >= _columns_used(newer, frame) for newer in passed)
                if not (match.seen.all() and asked_all):
                    continue
                warn_user(
                    f"The frame's rows are not those of the newest job {passed[0].id}, but are all "
                    f"in the older job {folder.id}, whose answers these are. Pass job= to choose."
                )
            warn_damaged(damages)
            return Job(folder, **handles)
    if mismatch is not None or damages:
        raise mismatch or damages[0]
    raise JobNotFoundError(
        f"The store {where.root} holds no job for this frame.",
        _key_in_index(folders, frame)
        or "Submit it first, or say which: collect(job=...); frameenrich.jobs() lists them.",
    )


def _key_in_index(folders: Iterable[JobFolder], frame: pd.DataFrame) -> str | None:
    """Say how to make a column of a job's key that is a level of the frame's index."""
    for folder in folders:
        for name in folder.spec.key or ():
            if name in frame.index.names and name not in frame.columns:
                return (
                    f"The job {folder.id} goes by the column {name!r}, which is in the frame's "
                    f"index: collect on frame.reset_index({name!r})."
                )
    return None


def _columns_used(folder: JobFolder, frame: pd.DataFrame) -> set[Any]:
    used = prompt_of(folder.spec).columns_used(list(frame.columns))
    return {*used, *folder.spec.image}
