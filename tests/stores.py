"""Small jobs in a store, and a writer that dies halfway."""

from __future__ import annotations

from dataclasses import replace
from typing import IO

import pandas as pd

from frameenrich.answers.output import Output
from frameenrich.model import Limits
from frameenrich.prepare.job_draft import JobDraft
from frameenrich.prepare.options import Plan, make_plan
from frameenrich.prepare.rounds import RetryRequest, draft_of_round
from frameenrich.prepare.submit_options import Options
from frameenrich.prepare.whole_frame import draft_of_frame
from frameenrich.providers.file import FileProvider
from frameenrich.store.folder import JobFolder
from frameenrich.store.store import Store
from frameenrich.verbs.submit import Submission

FRAME = pd.DataFrame({"title": ["mug", "rake", "Öl \u2028"]}, index=["a", "b", "c"])


def a_plan(name: str = "ask") -> Plan:
    """Return a plan of one question."""
    plan = make_plan("Which? {{ title }}", "m", Options(name=name)).sent_to("file", "/v1/x")
    return replace(plan, spec=replace(plan.spec, tag="3f9a1c"))


def committed(draft: JobDraft, nonce: str = "") -> JobFolder:
    """Make a draft a job, as `submit` does before it sends."""
    plan = Plan(draft.spec, Output(draft.spec.output))
    return Submission(plan, FileProvider(), draft.store, nonce).make_job(draft)


def write_job(
    frame: pd.DataFrame, plan: Plan, store: Store, limits: Limits, nonce: str = ""
) -> JobFolder:
    """Write a frame's job; sends nothing."""
    with draft_of_frame(frame, plan, store, limits) as draft:
        return committed(draft, nonce)


def write_round(job: JobFolder, round_: int, requests: list[RetryRequest], limits: Limits) -> bool:
    """Write a later round; False where it is there already."""
    with draft_of_round(job, round_, requests, limits) as draft:
        return draft.commit()


class CrashError(Exception):
    """Something of the caller's that goes wrong half way."""


def write_half(file: IO[bytes], error: type[BaseException]) -> None:
    """Begin to write, and fail."""
    file.write(b"half")
    raise error


def a_job(store: Store, name: str = "ask", max_requests: int = 2) -> JobFolder:
    """Return a new job of three requests in two shards."""
    return write_job(FRAME, a_plan(name), store, Limits(max_requests=max_requests))
