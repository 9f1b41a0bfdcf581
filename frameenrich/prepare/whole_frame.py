"""Write a frame that is in memory into a draft of its job, or show its first requests."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pyarrow as pa

from frameenrich.identity.fingerprint import fingerprint
from frameenrich.identity.keys import key_names, show_key
from frameenrich.model import Limits
from frameenrich.prepare.check_frame import (
    check_any_request,
    check_frame,
    errors_by_row_key,
)
from frameenrich.prepare.job_draft import JobDraft
from frameenrich.prepare.job_files import slug_of
from frameenrich.prepare.options import Plan
from frameenrich.prepare.writer import Part, write_requests
from frameenrich.rendering.encode_rows import row_requests
from frameenrich.store.draft import Draft
from frameenrich.store.folder import moment_of_new_job
from frameenrich.store.sidecar import sidecar_metadata
from frameenrich.store.store import Store


@contextlib.contextmanager
def draft_of_frame(
    frame: pd.DataFrame, plan: Plan, store: Store, limits: Limits
) -> Iterator[JobDraft]:
    """Render every row into a draft, which is deleted at the end unless committed.

    An error in the last row leaves nothing behind.

    Raises
    ------
    InputError
        A row cannot be asked, the keys do not name the rows, or all would be skipped.
    """
    keys, known = check_frame(frame, plan), None
    # With this hash of the columns in use, the same frame is known later without rendering it. Not
    # with images: the file behind a path may change while the path does not.
    if not plan.spec.image:
        known = fingerprint(frame, plan.prompt.columns_used(list(frame.columns)))
    with store.draft() as draft:
        part = render_part(frame, keys, plan, draft, limits, known)
        check_any_request([part])
        yield JobDraft(draft, store, plan.spec, limits, [part], list(frame.columns))


def render_part(
    frame: pd.DataFrame,
    keys: pa.Table,
    plan: Plan,
    draft: Draft,
    limits: Limits,
    known: str | None = None,
) -> Part:
    """Render rows into a draft: requests, and the sidecar with the frame's fingerprint if known."""
    spec = plan.spec
    metadata = sidecar_metadata(
        spec, key_names(frame, spec.key), moment_of_new_job(draft.target, slug_of(spec)), known
    )
    rows = ((spec.model, found) for found in row_requests(frame, spec, plan.prompt))
    with errors_by_row_key(keys):
        return write_requests(draft, rows, keys, spec, limits, metadata)


def preview_bodies(
    frame: pd.DataFrame, keys: pa.Table, plan: Plan
) -> tuple[list[tuple[str, dict[str, Any]]], int]:
    """Return rows' requests as (key, body), and how many images were made smaller; sends nothing.

    `keys` are the keys of these rows, at least.
    """
    shown, sized = [], 0
    with errors_by_row_key(keys):
        for found in row_requests(frame, plan.spec, plan.prompt):
            for position, body in zip(found.positions, found.bodies, strict=True):
                shown.append((show_key(keys, position), json.loads(body)))
            sized += found.sized
    return shown, sized
