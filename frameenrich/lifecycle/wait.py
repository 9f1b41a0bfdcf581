"""Drive a job: one step after another, until all is settled or the time is up.

`lifecycle.step` has the steps; here are the pauses, the deadline and the bar.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from frameenrich.errors import JobInterruptedError, ProviderError, WaitTimeoutError
from frameenrich.jsonl import split_lines
from frameenrich.lifecycle.step import is_lost, refresh, step_job
from frameenrich.model import TERMINAL, Batch
from frameenrich.providers.protocol import Provider, RetryDeadline, retry_for, seconds_to_retry
from frameenrich.store.folder import JobFolder, JobState
from frameenrich.store.shard import ShardFolder
from frameenrich.text import NO_MATH, seconds_text, shortened

# Short at first, as small batches end soon; growing, as a large one takes hours.
_FIRST_POLL_SECONDS = 0.5


_LONGEST_POLL_SECONDS = 60.0


_POLL_GROWTH = 1.5


@dataclass(frozen=True)
class JobStatus:
    """Progress of a job, by its batches; counts are for orientation only.

    ``shards`` pairs each batch's status with its age in seconds (None where it is not sent yet).
    """

    id: str
    ended: bool
    requests: int
    completed: int
    failed: int
    shards: tuple[tuple[str, float | None], ...]

    def __str__(self) -> str:
        words = ", ".join(sorted({_aged(*shard) for shard in self.shards}))
        done = self.completed + self.failed
        return f"{self.id}: {words}; {done:,} of {self.requests:,} requests done"

    def _repr_html_(self) -> str:
        done = self.completed + self.failed
        share = 100 * done / self.requests if self.requests else 0
        kinds = Counter(_aged(*shard) for shard in self.shards).most_common(_MOST_SHOWN)
        words = ", ".join(f"{n:,} {kind}" if n > 1 else kind for kind, n in kinds)
        bar = (
            "<div style='height:8px;border-radius:4px;background:rgba(128,128,128,.35);"
            f"margin:8px 0'><div style='height:8px;border-radius:4px;width:{share:.1f}%;"
            "background:#2e9a6a'></div></div>"
        )
        failed = f", {self.failed:,} of them failed" if self.failed else ""
        return (
            f"<div class='{NO_MATH}' "
            "style='border:1px solid rgba(128,128,128,.35);border-radius:8px;"
            "padding:12px 16px;max-width:480px;font-size:13px;line-height:1.5'>"
            f"<b>{html.escape(self.id)}</b>{bar}"
            f"<div>{done:,} of {self.requests:,} requests done{failed}</div>"
            f"<div style='opacity:.7'>batches: {html.escape(words)}</div></div>"
        )


_MOST_SHOWN = 6
"""The number of kinds of batches that the card names."""


def _aged(status: str, age: float | None) -> str:
    """Add the batch's age to a status that is not final."""
    if status in TERMINAL or age is None:
        return status
    hours, minutes = divmod(int(age) // 60, 60)
    return f"{status} for {hours} h {minutes:02d} min"


def word_of(batch: Batch) -> str:
    """Return a batch's status, or a description of its problem."""
    if not batch.ended and batch.id is not None and batch.unfound_since is not None:
        return "not found at the provider"
    if batch.short is not None and not batch.settled:
        return f"{batch.status} and looked at again, since {batch.short},"
    return shortened(batch.status)  # a server's word, of any length


@dataclass(frozen=True)
class Deadline:
    """The moment to give up waiting; by default never."""

    seconds: float = np.inf
    at: float = np.inf

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """Return the deadline in so many seconds from now, or sooner where the caller's time is up.

        None is never.
        """
        if seconds is None:
            return cls()
        # A command's --timeout counts from its start; the message names what the user gave.
        return cls(seconds, time.monotonic() + max(0.0, min(seconds, seconds_to_retry())))

    @property
    def left(self) -> float:
        """The seconds until then."""
        return self.at - time.monotonic()


def status(job: JobState, connected: Callable[[], Provider]) -> JobStatus:
    """Return a job's progress; connect only where a batch has not ended, and poll what runs."""
    # The status of an ended job is on disk, and asks for no key.
    if not all(batch.ended for batch in job.batches):
        provider = connected()
        if any(batch.running for batch in job.batches):
            job = refresh(job, provider)
    batches = job.batches
    now = time.time()
    return JobStatus(
        id=job.id,
        ended=all(batch.ended for batch in batches),
        # The provider counts only what it has; before that the files do.
        requests=sum(b.total or 0 for b in batches) or _requests(job.all_shards()),
        completed=sum(b.completed or 0 for b in batches),
        failed=sum(b.failed or 0 for b in batches),
        shards=tuple((word_of(b), now - b.created_at if b.created_at else None) for b in batches),
    )


@contextlib.contextmanager
def explaining_interrupts(folder: JobFolder, provider: Provider) -> Iterator[None]:
    """Make an interrupt say that the job goes on, and how to come back to it."""
    try:
        yield
    except KeyboardInterrupt as error:
        outlook = (
            "what was answered is kept, and the rest is asked when you come back"
            if provider.blocking
            else "what was sent goes on at the provider and is paid"
        )
        interrupted = JobInterruptedError(
            f"Interrupted; {outlook}. Go on with df.llmbatch.collect({folder.id!r}, wait=True), "
            "also in another session."
        )
        interrupted.job_id = folder.id
        raise interrupted from error


def send(folder: JobFolder, provider: Provider) -> None:
    """Send what is not sent yet; a provider that answers in this process answers all."""
    with explaining_interrupts(folder, provider):
        _send(folder, provider)


def _send(folder: JobFolder, provider: Provider) -> None:
    # Without a bar: a batch's answers come hours later, so nothing would move it.
    if not provider.blocking:
        step(folder, provider)
        return
    state = folder.read()
    if not state.settled:
        with _bar(state) as bar:
            step(state, provider, bar)


def step(folder: JobFolder, provider: Provider, bar: Any = None) -> JobState:
    """Advance a job as far as possible now and return its new state."""
    return step_job(
        folder,
        provider,
        max_enqueued_tokens=folder.spec.max_enqueued_tokens,
        progress=None if bar is None else bar.update,
    )


def wait(job: JobState, provider: Provider, deadline: Deadline, poll_seconds: float | None) -> None:
    """Go on until every batch has ended and its answers are on disk.

    Raises
    ------
    WaitTimeoutError
        The time was up; the job goes on at the provider.
    """
    with explaining_interrupts(job, provider), _bar(job) as bar:
        for pause in _steps(job, provider, bar, deadline, poll_seconds):
            time.sleep(pause)


async def wait_async(
    job: JobState, provider: Provider, deadline: Deadline, poll_seconds: float | None
) -> None:
    """Wait as `wait` does in a running event loop: steps in a thread, pauses in the loop.

    On cancellation a running step stops retrying, and sends no more where it answers in this
    process; what came by then is on disk.
    """
    # Shared with the thread, so that cancelling the task ends the retries that run there.
    given = RetryDeadline()
    with _bar(job) as bar:
        steps_left = _steps(job, provider, bar, deadline, poll_seconds, given)
        try:
            while True:
                # With a default: a Future refuses StopIteration.
                pause = await asyncio.to_thread(next, steps_left, None)
                if pause is None:
                    return
                await asyncio.sleep(pause)
        finally:
            # A thread cannot be cancelled; its step can only be made to end early.
            given.end()


def _steps(
    job: JobState,
    provider: Provider,
    bar: Any,
    deadline: Deadline,
    poll_seconds: float | None,
    given: RetryDeadline | None = None,
) -> Iterator[float]:
    """Take steps until nothing more will come; yield the seconds to pause in between."""
    for pause in pauses(poll_seconds):
        # The provider counts in totals, and the bar in steps.
        before = sum(map(_counted, job.batches))
        try:
            job = _patient_step(job, provider, bar, deadline, given)
        except ProviderError as error:
            job = job.read()
            others = (b for b in job.batches if not b.settled and b.unfound_since is None)
            if not is_lost(error) or not any(others):  # one batch holds no other up
                raise
        if not provider.blocking:  # one that is has moved the bar, answer by answer
            bar.update(sum(map(_counted, job.batches)) - before)
        if job.settled:
            return
        if deadline.left <= 0:
            raise timed_out(job, provider, deadline.seconds)
        # A last step is due at the deadline, not one pause later.
        yield min(pause, deadline.left)


def pauses(poll_seconds: float | None) -> Iterator[float]:
    """Yield the pauses between polls without end: growing, unless the user sets them."""
    pause = _FIRST_POLL_SECONDS if poll_seconds is None else poll_seconds
    while True:
        yield pause
        if poll_seconds is None:
            pause = min(pause * _POLL_GROWTH, _LONGEST_POLL_SECONDS)


def _patient_step(
    folder: JobFolder, provider: Provider, bar: Any, deadline: Deadline, given: RetryDeadline | None
) -> JobState:
    """Take a step in which the provider retries no longer than the deadline allows."""
    with retry_for(deadline.left, given):
        try:
            return step(folder, provider, bar)
        except ProviderError as error:
            # Only a retry that the deadline cut short is a time-out; other errors are the
            # provider's.
            if not (error.impatient and error.passing):
                raise
            raise timed_out(folder, provider, deadline.seconds) from error


def timed_out(folder: JobFolder, provider: Provider, seconds: float) -> WaitTimeoutError:
    """Return the error for a job that is not done within so many seconds."""
    # Read anew: the step that failed may have moved some of them.
    batches = folder.read().batches
    statuses = sorted({word_of(batch).rstrip(",") for batch in batches})
    outlook = "It goes on at the provider: collect() later, also in another session."
    if provider.blocking:
        outlook = "What was answered is on disk: call again and the rest is asked."
    elif any(batch.creating for batch in batches):
        outlook = (
            "Whether the provider has all of it is not known yet: call again later, and it is "
            "looked for before anything is sent."
        )
    elif all(batch.unsent for batch in batches):
        outlook = "The provider has nothing of it yet: call again with more time, and it is sent."
    return WaitTimeoutError(
        f"The job {folder.id} was still {', '.join(statuses)} after {seconds_text(seconds)}.",
        outlook,
        job_id=folder.id,
    )


def _bar(job: JobState) -> Any:
    shards = [shard for shard in job.all_shards() if not shard.batch.settled]
    return progress_bar(_requests(shards), sum(map(_done, shards)), job.spec.name)


def _requests(shards: list[ShardFolder]) -> int:
    return sum(shard.request_count for shard in shards)


def _counted(batch: Batch) -> int:
    return (batch.completed or 0) + (batch.failed or 0)


def _done(shard: ShardFolder) -> int:
    """Return how many requests of a shard are done, by the provider's count or the lines here."""
    # Live answers are counted in batch.json at the end only; until then their file shows them.
    return _counted(shard.batch) or sum(1 for _ in split_lines(shard.read_responses()))


# Without a rate: a batch's counts come in jumps. The blank at the end parts the bar from a "^C".
_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} requests [{elapsed}<{remaining}] "


def progress_bar(total: int, done: int, description: str) -> Any:
    """Make a tqdm bar over requests; it shows nothing without a terminal or notebook."""
    notebook = _in_notebook()
    # `tqdm.notebook` can be imported without ipywidgets, and fails only when a bar is made.
    if notebook and importlib.util.find_spec("ipywidgets") is not None:
        tqdm: Any = importlib.import_module("tqdm.notebook").tqdm
    else:
        tqdm = _plain_bar()
    # In a log file a bar would be thousands of lines.
    shown = total > 0 and (sys.stderr.isatty() or notebook)
    return tqdm(total=total, initial=done, desc=description, bar_format=_FORMAT, disable=not shown)


def _plain_bar() -> Any:
    from tqdm import tqdm  # noqa: PLC0415 - not needed at import

    if _in_notebook():
        _say_how_to_get_the_bar()
    return tqdm


@cache
def _say_how_to_get_the_bar() -> None:
    """Print once a session how to get a bar in a notebook without widgets."""
    print(  # noqa: T201 - to whoever looks at the notebook
        "Progress is shown as text; pip install ipywidgets shows it as a bar.", file=sys.stderr
    )


def _in_notebook() -> bool:
    # Not imported: in a notebook it is loaded already, and elsewhere it may be missing.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})
