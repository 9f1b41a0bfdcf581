"""The jobs of the old store: their frames and how each was submitted.

``write.py`` submitted them with the code of commit f4e4615 (frameenrich 0.1.0, in one flat folder);
``tests/test_old_store.py`` submits them again with today's. ``images`` is relative to this folder.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from pydantic import BaseModel

LABELS = ["Kitchen", "Garden", "Clothing"]
TITLES = ["Red mug", "Blue hose", "Green sock", "Grey kettle"]


class Product(BaseModel):
    """An answer as a class."""

    color: str
    pieces: int


def shelf(**columns: Any) -> pd.DataFrame:
    """Return four products, named by their SKU."""
    index = pd.Index(["A1", "A2", "A3", "A4"], name="sku")
    return pd.DataFrame({"title": TITLES, **columns}, index=index)


def at_times() -> pd.DataFrame:
    """Return products that are named by when they came in."""
    times = pd.to_datetime([f"2026-0{month}-01 12:00" for month in range(1, 5)])
    return shelf().set_index(pd.DatetimeIndex(times, name="came"))


def in_shops() -> pd.DataFrame:
    """Return products that are named by shop and number."""
    pairs = [("north", 1), ("north", 2), ("south", -1), ("south", 2)]
    return shelf().set_index(pd.MultiIndex.from_tuples(pairs, names=["shop", "n"]))


ASK = "Which department sells {{ title }}?"
FRAMES = {
    "ended": shelf(),
    "classed": shelf(),
    "flagged": shelf(),
    "rounds": shelf(),
    "expired": shelf(),
    "running": shelf(),
    "priced": shelf(price=[3.5, 12.25, 0.5, 40.75], stock=[3, 0, 12, 7]),
    "pictured": shelf(photo=["red.png", "blue.png", "red.png", "blue.png"]),
    "timed": at_times(),
    "keyed": in_shops(),
}
SUBMITS: dict[str, dict[str, Any]] = {
    name: {"template": ASK, "model": "gpt-4o-mini", "name": name} for name in FRAMES
}
SUBMITS["ended"] |= {"labels": LABELS, "params": {"temperature": 0, "max_tokens": 20}}
SUBMITS["classed"] |= {"response_model": Product, "system": "Describe the product."}
SUBMITS["flagged"] |= {"labels": LABELS}
SUBMITS["rounds"] |= {"response_model": {"color": str, "pieces": int}}
SUBMITS["priced"] |= {"template": "{{ title }} at {{ price }}, {{ stock }} left"}
SUBMITS["pictured"] |= {"image": "photo", "image_root": "images"}
SUBMITS["running"] |= {"template": "Who buys {{ title }}?"}
SUBMITS["timed"] |= {"labels": LABELS}
