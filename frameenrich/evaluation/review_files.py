"""Read a review's files in the job's folder: the recorded draw, and the sheets as they came."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from frameenrich.store.folder import JobFolder
from frameenrich.store.local import unreadable
from frameenrich.store.shard import DAMAGE

_DRAW = re.compile(r"/reviews/([0-9a-f]{12})/draw\.parquet$")


def review_path(folder: JobFolder, review_id: str) -> str:
    """Return the folder of a review."""
    return f"{folder.path}/reviews/{review_id}"


def draw_path(folder: JobFolder, review_id: str) -> str:
    """Return the path of a review's recorded draw."""
    return f"{review_path(folder, review_id)}/draw.parquet"


def review_ids(folder: JobFolder) -> list[str]:
    """Return the ids of a job's reviews, in no particular order."""
    # By the draw's file: a folder without one is a review whose writing was interrupted.
    found = map(_DRAW.search, folder.review_files())
    return [match[1] for match in found if match]


def read_draw(folder: JobFolder, review_id: str) -> pa.Table:
    """Return the recorded draw of a review.

    Raises
    ------
    StoreError
        It is damaged.
    """
    path = draw_path(folder, review_id)
    try:
        with folder.store.open(path) as file:
            return pq.ParquetFile(io.BytesIO(file.read())).read()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


@dataclass(frozen=True)
class SheetRecord:
    """Who filled in a sheet, and when it was added; Unix seconds."""

    reviewer: str
    added_at: float = 0.0


def kept_sheets(folder: JobFolder, review_id: str) -> list[tuple[str, bytes, SheetRecord]]:
    """Return the sheets that were added to a review, in order: name, bytes, by whom and when."""
    root = review_path(folder, review_id)
    # Their numbers have four digits, so names sort in the order of adding.
    names = sorted(
        path.rpartition("/")[2] for path in folder.store.find(root) if path.endswith(".csv")
    )
    found = []
    for name in names:
        with folder.store.open(f"{root}/{name}") as file:
            data = file.read()
        about = f"{root}/{name.removesuffix('.csv')}.json"
        try:
            with folder.store.open(about) as file:
                said = msgspec.convert(json.loads(file.read()), SheetRecord)
            found.append((name, data, said))
        except DAMAGE as error:
            raise unreadable(about, error) from error
    return found
