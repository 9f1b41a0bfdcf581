"""Methods of `Job` on its files: requests that were sent, and responses that came."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Self

from frameenrich.lifecycle.find_requests import find_requests
from frameenrich.lifecycle.import_responses import import_responses, withdraw_import
from frameenrich.lifecycle.refetch import refetch
from frameenrich.lifecycle.step import cleanup
from frameenrich.verbs.session import Session
from frameenrich.verbs.signatures import checks_calls


@checks_calls
class JobFiles:
    """Methods of `Job` for requests and responses on disk."""

    _session: Session

    @property
    def requests(self) -> list[str]:
        """The paths of the job's request files (JSONL), in order."""
        return [shard.requests_path for shard in self._session.job().all_shards()]

    def requests_by_custom_id(self, custom_ids: str | Iterable[str]) -> dict[str, Any]:
        """Find requests as they were sent, without reading the job's files whole.

        Parameters
        ----------
        custom_ids : str or iterable of str
            As the provider's page shows them, or ``collect(usage=True)``, or `rounds`' files
            (``r1-row-42``); for `frameenrich.submit_requests`, as they were submitted.

        Returns
        -------
        dict
            For each custom_id, in the order asked, its request: ``custom_id``, ``method``,
            ``url``, ``body``. Identical requests were sent once, so several may name one.

        Raises
        ------
        ParameterError
            The job has no request of some custom_id.

        Examples
        --------
        >>> import tempfile
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"title": ["Red mug", "Blue hose"]})
        >>> job = frame.llmbatch.submit(
        ...     "Sort {{ title }}", "gpt-4o-mini", provider="file", store=tempfile.mkdtemp()
        ... )
        >>> custom_id = job.collect(usage=True)["llmbatch_custom_id"].iloc[1]
        >>> job.requests_by_custom_id(custom_id)[custom_id]["body"]["messages"]
        [{'role': 'user', 'content': 'Sort Blue hose'}]
        """
        return find_requests(self._session.job(), custom_ids)

    def cleanup(self) -> int:
        """Delete the provider's copies of input, output and error files.

        Only of batches whose answers are on disk here; nothing of the job is lost by it.

        Returns
        -------
        int
            How many batches were cleaned up.
        """
        # Of every provider that a round went to: each keeps copies of its own.
        return cleanup(self._session.job(), self._session.routes())

    def import_responses(self, path: str | os.PathLike[str]) -> Self:
        """Import response lines that came by other means (a web page, ``vllm run-batch``).

        Parameters
        ----------
        path : str or PathLike
            A JSONL file in the Batch API's output format, or an error file; gzipped or not.
            Importing another adds, and where a batch still runs, what it brings is added, too.
            The same file again changes nothing. `withdraw_import` takes it back.

        Raises
        ------
        ResponsesError
            The file cannot be read, or no line of it answers a request of this job: it holds
            another job's answers (its custom_ids end in that one's tag), or requests.
        """
        import_responses(self._session.job(), path)
        return self

    def withdraw_import(self, which: str | os.PathLike[str] | None = None) -> Self:
        """Undo an `import_responses`, as if the file had never come.

        Parameters
        ----------
        which : str or PathLike, optional
            The file's name, or the import's id; by default the newest import.

        Raises
        ------
        ResponsesError
            The job has no such import.
        """
        withdraw_import(self._session.job(), which)
        return self

    def refetch(self) -> int:
        """Download damaged or lost answers again, from the provider's files.

        Returns
        -------
        int
            How many files were damaged, and are whole again.

        Raises
        ------
        DamagedFileError
            The provider has a file's source no more: `cleanup` deleted it, or it came by an import.
        """
        # Connected only when something is missing: a whole store needs no key.
        return refetch(self._session.job(), self._session.routes)
