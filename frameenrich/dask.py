"""``ddf.llmbatch``, the methods of ``df.llmbatch`` for Dask; ``import frameenrich.dask``.

Partitions render on the workers, straight into the store, which every worker has to see: a folder
that all mount at the same place, or a bucket. The process that calls makes all paid calls, from
what is in the store; no client, key or provider ever travels. What a worker does is
`prepare.parts.write_part` and `lifecycle.collect.Collector`, as for any frame in parts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

import dask
import pandas as pd
import pyarrow as pa
from dask.dataframe.extensions import register_dataframe_accessor

from frameenrich.accessor import LLMBatch
from frameenrich.answers.output import Output
from frameenrich.errors import JobNotFoundError
from frameenrich.identity.keys import find_keys, read_keys
from frameenrich.lifecycle.collect import Collector
from frameenrich.model import JobSpec
from frameenrich.prepare.examples import ReviewedRows
from frameenrich.prepare.options import Plan, key_parts
from frameenrich.prepare.parts import PartsFolder, write_part
from frameenrich.prepare.reading_options import ReadingOptions
from frameenrich.prepare.submit_options import SubmitOptions
from frameenrich.prepare.writer import Part
from frameenrich.rendering.prompt import prompt_of
from frameenrich.rendering.template_source import Template
from frameenrich.store.store import StoreLike
from frameenrich.verbs.before_paying import estimate_parts
from frameenrich.verbs.estimate import Counts, count_frame
from frameenrich.verbs.find import find_job, open_job
from frameenrich.verbs.job import Job
from frameenrich.verbs.job_of_frame import JobVerbs
from frameenrich.verbs.preview import preview
from frameenrich.verbs.signatures import checks_calls, takes_options_of
from frameenrich.verbs.submit import submit_parts

if TYPE_CHECKING:
    from dask.dataframe import DataFrame

    from frameenrich.rendering.readable import Preview
    from frameenrich.verbs.estimate import Estimate


_LOOKED_AT = 1000
"""How many rows of each partition are compared with a job to find the frame's."""


@register_dataframe_accessor("llmbatch")
@checks_calls
class DaskAccessor(JobVerbs):
    """Methods of ``df.llmbatch`` for a Dask DataFrame.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        The frame; nothing of it is computed before a verb needs it.
    """

    def __init__(self, frame: DataFrame) -> None:
        self._frame = frame

    @property
    def _columns(self) -> list[str]:
        return list(self._frame.columns)

    @takes_options_of(LLMBatch.submit)
    def submit(self, template: Template, model: str, **options: Unpack[SubmitOptions]) -> Job:
        """Render all partitions into a job on disk, on the workers, and send it from here.

        It is the job that ``df.llmbatch.submit`` makes of the whole frame: the same id, found from
        pandas, too, and the same promises. Small partitions share batch files; a request that two
        of them ask is sent once. A worker that dies is replaced by another, with the same files.

        Parameters
        ----------
        template, model, **options
            As ``df.llmbatch.submit`` takes them. ``store`` has to be seen by every worker, and so
            has ``image_root``. The index, or the columns of ``key``, have to name a row in the
            whole frame.

        Returns
        -------
        Job
            As pandas' submit gives it. ``job.collect()`` has all rows in this process;
            ``ddf.llmbatch.collect`` has not.

        Raises
        ------
        RowKeyError
            A key is in two partitions, as in the index of ``dd.read_csv``.
        InputError
            Something cannot be used; nothing was sent.
        StoreError
            A worker does not see the store.

        Examples
        --------
        >>> import tempfile
        >>> import dask.dataframe as dd
        >>> frame = pd.DataFrame({"title": ["Red mug", "Blue hose", "Green sock"]})
        >>> ddf = dd.from_pandas(frame, npartitions=2)
        >>> job = ddf.llmbatch.submit(
        ...     "Colour of {{ title }}?", "gpt-4o-mini", provider="file", store=tempfile.mkdtemp()
        ... )
        >>> len(job.requests)
        1
        >>> ddf.llmbatch.collect(job).compute()["llmbatch_status"].tolist()
        ['pending', 'pending', 'pending']
        """
        return submit_parts(
            lambda stage: _written(self._frame, stage),
            self._columns,
            template,
            model,
            **_rooted(_with_rows(options, self._frame)),
        )

    def collect(
        self,
        job: Job | str | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        client: Any = None,
        store: StoreLike = None,
        **options: Any,
    ) -> DataFrame:
        """Return the frame with the answers as new columns, lazily, with its own divisions.

        The call does what ``df.llmbatch.collect`` does before it reads: poll the job or, with
        ``wait=True``, wait until all is answered. When the result is computed, each
        partition reads its own lines and answers from the store, on its worker.

        Parameters
        ----------
        job : Job or str, optional
            By default the newest job of the store that was made for this frame.
        meta : mapping, optional
            The columns that a ``parser`` makes, and their dtypes; by default as the answers of the
            job's first thousand rows show them.
        client, store, **options
            As ``df.llmbatch.collect`` takes them: ``wait``, ``usage``, ``max_rounds``, ``parser``
            and the others.

        Returns
        -------
        dask.dataframe.DataFrame
            Rows that the job never saw have ``<NA>`` in the new columns. A partition whose rows
            changed since they were submitted raises `FrameMismatchError` when it is computed.
        """
        import dask.dataframe as dd  # noqa: PLC0415 - two seconds, which a worker can do without

        found = self.job(job, store=store, client=client)
        # A lazy frame states its columns before it has them: a parser's are those of the first
        # rows' answers, or `meta`. A partition that makes another is an error, never a lost column.
        collector = _collector(found, **options).with_parser_columns(meta)
        # Else Dask makes text of every object column: of lists, of dicts, of bytes (which may be
        # no text at all). It looks at this setting now, not when the result is computed.
        with dask.config.set({"dataframe.convert-string": False}):
            collected: DataFrame = dd.from_delayed(
                _tasks(collector, self._frame),
                meta=collector.empty_result(_empty(self._frame)),
                divisions=self._frame.divisions,
                prefix="llmbatch-collect",
                verify_meta=False,
            )
        return collected

    def flagged(
        self,
        job: Job | str | None = None,
        *,
        store: StoreLike = None,
        client: Any = None,
        **reading: Unpack[ReadingOptions],
    ) -> pd.DataFrame:
        """Return the frame's flagged rows under its index, in this process; see `Job.flagged`."""
        collector = _collector(self.job(job, store=store, client=client), **reading)
        found: tuple[pd.DataFrame, ...] = dask.compute(*_tasks(collector.flagged, self._frame))
        filled = [part for part in found if len(part)]
        return pd.concat(filled) if filled else found[0]

    @takes_options_of(LLMBatch.submit)
    def estimate(
        self, template: Template, model: str, **options: Unpack[SubmitOptions]
    ) -> Estimate:
        """Return what a `submit` would send and cost; workers count, nothing is sent or written.

        Parameters
        ----------
        template, model, **options
            As `submit` takes them.
        """
        return estimate_parts(
            lambda spec: _counted(self._frame, spec),
            self._columns,
            template,
            model,
            **_rooted(_with_rows(options, self._frame)),
        )

    @takes_options_of(LLMBatch.submit)
    def preview(
        self, template: Template, model: str, *, n: int = 3, **options: Unpack[SubmitOptions]
    ) -> Preview:
        """Return the first `n` requests as they would be sent, of the first partition with rows."""
        rows = next((rows for _, rows in _heads(self._frame, n)), _empty(self._frame))
        return preview(rows, template, model, n=n, **_with_rows(options, self._frame))

    def _find(self, job: str | None, store: StoreLike, client: Any) -> Job:
        if job is not None:
            return open_job(job, store, client=client)
        for part, rows in _heads(self._frame, _LOOKED_AT):
            with contextlib.suppress(JobNotFoundError):  # these rows may all be newer than the job
                return find_job(rows, store, part=part, client=client)
        return find_job(_empty(self._frame), store, part=0, client=client)  # which refuses

    def _rows_to_evaluate(
        self, job: Job, truth: str | Mapping[str, str] | None
    ) -> pd.DataFrame | None:
        return None if truth is None else _to_compare(self._frame, job.spec, truth)


def _to_compare(frame: DataFrame, spec: JobSpec, truth: str | Mapping[str, str]) -> pd.DataFrame:
    """Compute the columns that an evaluation needs; it reports a missing truth column itself."""
    wanted = {truth} if isinstance(truth, str) else set(truth.values())
    wanted |= {*(spec.key or ()), *spec.image}
    if spec.messages:
        wanted |= set(prompt_of(spec).columns_used(list(frame.columns)))
    rows: pd.DataFrame = frame[[name for name in frame.columns if name in wanted]].compute()
    return rows


def _with_rows(options: SubmitOptions, frame: DataFrame) -> SubmitOptions:
    """Replace examples of a review by their rows, taken from the partitions."""
    examples = options.get("examples")
    if not isinstance(examples, ReviewedRows):
        return options
    drawn, key = examples.keys, key_parts(options.get("key"))  # what workers get holds no answer

    def drawn_rows(rows: pd.DataFrame, _: int) -> pd.DataFrame:
        return rows[find_keys(read_keys(rows, key), drawn) >= 0] if len(rows) else rows

    found: tuple[pd.DataFrame, ...] = dask.compute(*_tasks(drawn_rows, frame))
    return {**options, "examples": examples.examples_in(pd.concat(found), key)}


def _rooted(options: SubmitOptions) -> SubmitOptions:
    """Make the image folder absolute, as a worker has another working folder."""
    if options.get("image") is None:
        return options
    return {**options, "image_root": os.path.abspath(options.get("image_root", "."))}


def _collector(job: Job, **options: Any) -> Collector:
    """Return a collector of a job's parts for workers, with the image folder of `job`."""
    collector = job.collector(**options)
    if not job.spec.image:
        return collector
    folder, root = collector.folder, os.path.abspath(job.spec.image_root)
    return replace(collector, folder=folder.with_spec(replace(folder.spec, image_root=root)))


def _tasks(work: Callable[..., Any], frame: DataFrame) -> list[Any]:
    """Make one task for each partition and its number, run anew whenever it is computed.

    Dask pauses a worker that seems full, and where Arrow keeps the memory of what is done, it
    stays so for good.
    """

    def run(rows: pd.DataFrame, number: int) -> Any:
        try:
            return work(rows, number)
        finally:
            pa.default_memory_pool().release_unused()

    # Delayed tasks, one a partition, and not map_partitions: Dask's optimiser fuses small Parquet
    # partitions, and a part's number names its files and is where `collect` looks first.
    task = dask.delayed(run, pure=False, traverse=False)
    return [task(part, number) for number, part in enumerate(frame.to_delayed())]


def _written(frame: DataFrame, stage: PartsFolder) -> Iterable[Part]:
    """Write every partition, where the cluster has a worker for it."""

    def write(rows: pd.DataFrame, number: int) -> Part:
        return write_part(stage, number, rows)

    parts: tuple[Part, ...] = dask.compute(*_tasks(write, frame))
    return parts


def _counted(frame: DataFrame, spec: JobSpec) -> Iterable[Counts]:
    """Count the tokens of every partition that has rows."""

    def count(rows: pd.DataFrame, _: int) -> Counts | None:
        return count_frame(rows, Plan(spec, Output(spec.output))) if len(rows) else None

    counts = dask.compute(*_tasks(count, frame))
    return [each for each in counts if each is not None]


def _heads(frame: DataFrame, rows: int) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield the number and the first rows of each partition that has any, computed one by one."""
    for number, task in enumerate(_tasks(lambda part, _: part.head(rows), frame)):
        (found,) = dask.compute(task)
        if len(found):
            yield number, found


def _empty(frame: DataFrame) -> pd.DataFrame:
    """Return the frame's columns and dtypes, without rows."""
    empty: pd.DataFrame = frame._meta.iloc[:0]  # noqa: SLF001 - Dask's own name for it
    return empty
