"""Write the report page of a job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from frameenrich.lifecycle.usage import job_usage, prices_of
from frameenrich.providers.credentials import secrets_of
from frameenrich.report.build import Answers, write_report
from frameenrich.verbs.collect import collect_own, flagged
from frameenrich.verbs.session import Session


def report(session: Session, path: str | os.PathLike[str], *, rows: int, **reading: Any) -> Path:
    """Write a page for a person who decides whether to trust the answers; see `Job.report`."""
    answered = collect_own(session, **reading)
    with session.folder.opened() as job:
        used = job_usage(job, prices_of(job, session.budget()))
    answers = Answers(
        session.folder, answered, flagged(session, None, **reading), used, session.output(**reading)
    )
    # A page is passed on to others: an echoed key must not be in an answer or an error on it.
    secrets = secrets_of(session.client)
    return write_report(path, answers, rows=rows, secrets=secrets)
