"""Methods of `Job` for frames larger than memory, whose rows come in parts."""

from __future__ import annotations

from typing import Any

import pandas as pd

from frameenrich.answers.output import Parser
from frameenrich.lifecycle.collect import Collector
from frameenrich.pricing.prices import PricesLike
from frameenrich.verbs.collect import collect_part, collector, count_seen, waiting_of
from frameenrich.verbs.session import Session
from frameenrich.verbs.signatures import checks_calls


@checks_calls
class JobParts:
    """Methods of `Job` for frames that come in parts, in this process or in others."""

    _session: Session

    def collect_part(
        self, frame: pd.DataFrame, part: int | None = None, **reading: Any
    ) -> pd.DataFrame:
        """Return rows of a frame larger than memory, with the answers that are on disk.

        Asks no provider: `wait` first. Takes the memory of these rows, whatever the job has. For
        many parts, `collector` once and then that.

        Parameters
        ----------
        frame : DataFrame
            Any of the rows, as `collect` takes them; those that the job never saw have ``<NA>``.
        part : int, optional
            The number of the part that they are of, where they were submitted in parts: it is
            looked at first, and the whole sidecar is searched for what is not there.
        **reading
            ``usage``, ``flatten``, ``prices``, ``labels``, ``response_model``, ``parser``, as
            `collect` takes them.

        Raises
        ------
        FrameMismatchError
            The rows are not those the answers were made for.
        """
        return collect_part(self._session, frame, part, **reading)

    def count_seen(self, frame: pd.DataFrame, part: int | None = None) -> int:
        """Count the given rows that this job was made for, as `collect_part` takes them.

        Raises
        ------
        FrameMismatchError
            Rows changed under their keys, or lack the key or a column of the template.
        """
        return count_seen(self._session, frame, part)

    def collector(
        self,
        *,
        wait: bool = False,
        timeout: float | None = None,
        poll_seconds: float | None = None,
        max_rounds: int = 0,
        max_cost: float | None = None,
        prices: PricesLike | None = None,
        usage: bool = False,
        flatten: bool = False,
        overwrite: bool = False,
        accept: float | None = None,
        labels: Any = None,
        response_model: Any = None,
        parser: Parser | None = None,
    ) -> Collector:
        """Return a collector of this job's parts for any process; takes what `collect` takes.

        What `collect` does before it reads (poll, wait, repair) is done here, once. The collector
        asks no provider; called with a part's rows and number, it gives them with their answers.

        With ``accept=`` the job's own answers are in memory once, here: a threshold is of all rows.
        """
        waiting = waiting_of(
            self._session, wait, timeout, poll_seconds, max_rounds, max_cost, prices
        )
        return collector(
            self._session,
            waiting,
            usage=usage,
            flatten=flatten,
            overwrite=overwrite,
            accept=accept,
            labels=labels,
            response_model=response_model,
            parser=parser,
        )
