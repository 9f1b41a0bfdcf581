"""Find the job that an earlier version made of the same submit, with other request bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from frameenrich.errors import StoreError, warn_user
from frameenrich.model import HASHES, JobSpec
from frameenrich.prepare.job_draft import JobDraft
from frameenrich.prepare.json_modes import Asking
from frameenrich.prepare.options import Plan
from frameenrich.rendering.body import request_body
from frameenrich.store.folder import JobFolder, JobPath
from frameenrich.store.store import Store

_BEFORE_FORMS = 1
"""The schema form of stored specs whose version did not record it: it is 1 or 2."""


def older_plans(plan: Plan, store: Store, own_id: str, *, floats: bool) -> Iterator[Plan]:
    """Yield the plans by which earlier versions would have written other request bytes.

    Whole floats were printed as ``3.0``, lists without commas; schemas went out with other
    keywords, or where a newer table says that the server takes none; images went out in another
    size.

    Parameters
    ----------
    plan, store
        What is to be submitted, and where.
    own_id : str
        The id that its job has by this version.
    floats : bool
        Whether numbers or lists may be among its cells that were printed otherwise.
    """
    specs = _specs_alike(store, own_id.rpartition("-")[0], plan.spec)
    # An older job is only found by rendering the frame anew, so no way is tried without a reason.
    floats = floats or plan.prompt.makes_numbers  # of nulls, 0 was made
    yield from _earlier_ways(plan, specs, floats=floats)


def find_older(
    drafts: Iterable[AbstractContextManager[JobDraft]], spec: JobSpec, store: Store
) -> JobFolder | None:
    """Find the job that one of the drafts by `older_plans` would be, and name it in a warning.

    Each draft is written only when the ones before it found nothing; nothing of the job is asked
    again.
    """
    for draft in drafts:
        with draft as older:
            folder = find_same(older, store)
        if folder is not None:
            warn_user(
                f"The job {folder.id} of an earlier version asked the same, with "
                f"{_what_differs(spec, older.spec)}. Its answers are taken and nothing "
                "is sent again; fresh=True asks anew."
            )
            return folder
    return None


def find_same(draft: JobDraft, store: Store) -> JobFolder | None:
    """Find the job of a draft, also where an earlier version's hashes made its id."""
    own_id = draft.id()
    if store.has(own_id):
        return JobPath(store, own_id).open()
    specs = _specs_alike(store, own_id.rpartition("-")[0], draft.spec)
    if all(own.version == HASHES for own in specs):
        return None  # which spares reading the draft
    # A store of version 2 keeps its own formula of ids where a job is only to be found.
    older_id = draft.older_id()
    return JobPath(store, older_id).open() if store.has(older_id) else None


def _specs_alike(store: Store, slug: str, spec: JobSpec) -> list[JobSpec]:
    found = []
    for job_id in store.job_ids():
        if job_id.rpartition("-")[0] == slug:
            try:
                own = JobPath(store, job_id).open().spec
            except StoreError:
                continue
            if (own.model, own.endpoint) == (spec.model, spec.endpoint):
                found.append(own)
    return found


def _earlier_ways(plan: Plan, specs: list[JobSpec], *, floats: bool) -> Iterator[Plan]:
    """Yield the plan as each of some stored jobs would have written it, where that differs."""
    seen = [_written(plan.spec)]
    for own in specs:
        # The spec does not tell which of the two it was, so both are tried.
        forms = (1, 2) if own.schema_form == _BEFORE_FORMS else (own.schema_form,)
        for form in forms:
            asked_by = own.asked_by if plan.spec.json_mode == "auto" else plan.spec.asked_by
            way = plan.asking(Asking(asked_by, own.choices_in_words, form))
            rendering = own.rendering if floats else plan.spec.rendering
            # Only where nobody said how large images are to be: then the older table's size counts.
            side = plan.spec.image_side and own.image_side
            way = replace(way, spec=replace(way.spec, rendering=rendering, image_side=side))
            if way.spec.messages == own.messages and (it := _written(way.spec)) not in seen:
                seen.append(it)
                yield way


def _written(spec: JobSpec) -> tuple[int, int | None, object]:
    """Return all that a request is made of except its row."""
    return (
        spec.rendering,
        spec.image_side,
        request_body(spec, [message.content for message in spec.messages]),
    )


def _what_differs(spec: JobSpec, older: JobSpec) -> str:
    if older.rendering == 1:
        return "whole numbers printed as 3.0 where they now are 3"
    if older.rendering != spec.rendering:
        return "lists printed as [1 2] or [1.0, 2.0] where they now are [1, 2]"
    if older.image_side != spec.image_side:
        return "its images in another size"
    return "the schema of its answers written otherwise"
