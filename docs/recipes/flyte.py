"""A Flyte workflow: one task submits, a sensor looks now and then, one task collects.

Written for flytekit 1.11 and later; a sensor runs in Flyte's own service for agents (connectors),
which needs this package and the key in its environment. The functions are plain ones, and our tests
run them as such, without flytekit. Pods share no disk: set $FRAMEENRICH_STORE to an object
store's URL, and give tables as URLs too.
"""

from __future__ import annotations

import asyncio

import pandas as pd

import frameenrich
from frameenrich.errors import WaitTimeoutError

try:
    from flytekit import task, workflow
    from flytekit.sensor.base_sensor import BaseSensor
except ImportError:
    task = workflow = None  # the functions below need neither
    BaseSensor = object


def submit(requests: str) -> str:
    """Send a file of requests in the batch format, as Flyte's own batch plugin takes it."""
    return frameenrich.submit_requests(requests).id


def ended(job_id: str) -> bool:
    """One step: send what waits for room, bring home what has ended; then whether all has."""
    job = frameenrich.open_job(job_id)
    try:
        job.wait(timeout=0)
    except WaitTimeoutError:
        return False
    return job.status().ended


def collect(job_id: str) -> pd.DataFrame:
    """A frame by custom_id: the answers, and a status and a reason each."""
    return frameenrich.open_job(job_id).collect()


class BatchEnded(BaseSensor):
    """Looks until a job has ended."""

    async def poke(self, job_id: str) -> bool:
        """One look; in a thread, since the agents' service has one loop for all its sensors."""
        return await asyncio.to_thread(ended, job_id)


if workflow is not None:
    submit_task, collect_task = task(submit), task(collect)
    batch_ended = BatchEnded(name="batch_ended")

    @workflow
    def ask_all(requests: str) -> pd.DataFrame:
        """From a file of requests to a frame of answers."""
        job_id = submit_task(requests=requests)
        looked, answers = batch_ended(job_id=job_id), collect_task(job_id=job_id)
        looked >> answers
        return answers
