"""Methods of `Job` for frames larger than memory, whose rows come in parts."""

from __future__ import annotations

from typing import Any

import pandas as pd

from frameenrich.verbs.collect import collect_part, count_seen
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
