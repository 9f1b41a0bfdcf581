"""The doors beside ``df.llmbatch``: plain functions, and tables that are not pandas'."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pandas.testing import assert_frame_equal

import frameenrich


def test_names_that_completion_offers() -> None:
    """Completion on ``frameenrich.`` offers the public names and nothing else."""
    assert dir(frameenrich) == sorted(frameenrich.__all__)


def test_typed_door_makes_the_same_job(products: pd.DataFrame, store: Path) -> None:
    """``frameenrich.llmbatch(df)`` is ``df.llmbatch``: one job, whichever asked."""
    frame = products.head(3)
    options = {"key": "sku", "provider": "file", "store": store}
    typed = frameenrich.llmbatch(frame).submit("Colour of {{ title }}?", "m", **options)  # type: ignore[arg-type]  # a dict of options of many types
    assert frame.llmbatch.submit("Colour of {{ title }}?", "m", **options).id == typed.id


def test_sample_data_is_the_catalogue(products: pd.DataFrame) -> None:
    """``frameenrich.sample_data()`` reads the catalogue, with its keys as text."""
    assert_frame_equal(frameenrich.sample_data(), products)
