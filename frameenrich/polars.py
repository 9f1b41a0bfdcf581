"""``import frameenrich.polars`` registers ``df.llmbatch`` for Polars: eager frames and lazy ones.

The verbs are those of pandas' frames; what comes back as a table is Polars', too. A lazy frame that
is larger than memory goes through in parts, and `collect` gives a lazy frame, so that
``lazy.llmbatch.collect().sink_parquet("out.parquet")`` never holds more than some of them::

    import frameenrich.polars

    lazy = pl.scan_parquet("rows.parquet")
    lazy.llmbatch.submit("Colour of {{ title }}?", "gpt-5.4-mini", key="sku")
    lazy.llmbatch.collect(wait=True).sink_parquet("colours.parquet")

Type checkers see the verbs through ``frameenrich.llmbatch(df)``.
"""

from __future__ import annotations

import polars as pl

from frameenrich.tables import TableBatch

__all__ = ["TableBatch"]

for _register in (pl.api.register_dataframe_namespace, pl.api.register_lazyframe_namespace):
    _register("llmbatch")(TableBatch)
