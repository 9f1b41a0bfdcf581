"""The sample catalogue that comes with the package."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from frameenrich.errors import InputError


def sample_data() -> pd.DataFrame:
    """Read the sample catalogue: products, with the true color, item and department of each.

    Returns
    -------
    DataFrame
        The column ``sku`` names a row.

    Examples
    --------
    >>> sample_data().columns.tolist()
    ['sku', 'title', 'brand', 'price', 'description', 'color', 'item', 'department']
    """
    # As text: a key must not depend on whether all of its cells look like numbers.
    return pd.read_csv(sample_path(), dtype={"sku": str})


def sample_path() -> Path:
    """Find the sample catalogue: in the installed package, or beside it in a checkout.

    Raises
    ------
    InputError
        It is in neither place.
    """
    here = Path(__file__).parent.parent
    # A wheel carries the data inside of the package; a checkout has it beside.
    for folder in (here / "_sample_data", here.parent / "sample_data"):
        if (folder / "products.csv").is_file():
            return folder / "products.csv"
    raise InputError(
        f"The sample data is not installed: {here / '_sample_data'} is missing.",
        "Install frameenrich again.",
    )
