"""Measure what a codebook and twelve examples do to the embedded model's accuracy.

    uv run python benchmarks/codebook.py [STORE]

Asks the department of each product of ``sample_data/`` three times: with the labels alone, with a
codebook, and with the codebook and twelve examples. All three are judged by the truth column on the
same 188 rows, those that were no examples. Needs the extras ``local`` and ``evaluate``, and takes
some ten minutes on two cores. What was measured stands in ``benchmarks/README.md``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

# The library shows a bar for each job; this script prints a table.
os.environ.setdefault("TQDM_DISABLE", "1")

import pandas as pd

from frameenrich import Job
from frameenrich.verbs.sample import sample_path

EXAMPLES = 12
CODEBOOK = {
    "Kitchen": "things to cook, bake, eat or drink with",
    "Garden": "plants, tools and furniture for outdoors",
    "Clothing": "things to wear: clothes, shoes, hats",
    "Electronics": "devices with a plug, a battery or a cable",
    "Toys": "games, puzzles and things that children play with",
}


def ask(goods: pd.DataFrame, store: str, name: str, **options: Any) -> Job:
    """Ask the embedded model for the department of each title."""
    job: Job = goods.llmbatch.submit(
        "{{ title }}",
        "smollm2-135m",
        system="Name the department of a shop that sells this.",
        name=name,
        logprobs=True,
        params={"temperature": 0},
        provider="local",
        store=store,
        **options,
    )
    return job.wait()


def main(store: str) -> None:
    """Ask, judge, and print the table."""
    products = pd.read_csv(sample_path(), dtype={"sku": str}, index_col="sku")
    shown = products.sample(EXAMPLES, random_state=0)  # of 200 rows, 40 of each department
    rest = products.drop(shown.index)
    examples = shown[["title"]].assign(answer=shown["department"])
    goods = rest[["title"]]
    jobs = {
        "labels alone": ask(goods, store, "alone", labels=list(CODEBOOK)),
        "codebook": ask(goods, store, "codebook", labels=CODEBOOK),
        "codebook, 12 examples": ask(goods, store, "both", labels=CODEBOOK, examples=examples),
    }
    print("| prompt | right, of 188 | 95 % interval | AUROC of the score |")
    print("|---|--:|--:|--:|")
    for name, job in jobs.items():
        check = job.evaluate(rest, truth="department")
        made, scores = check.accuracy, check.calibration
        sorts = "-" if scores is None else f"{scores.auroc:.2f}"
        bounds = f"{100 * made.low:.0f}-{100 * made.high:.0f} %"
        print(f"| {name} | {100 * made.estimate:.1f} % | {bounds} | {sorts} |")
    first, *others = jobs.values()
    for other in others:
        print(f"\n{first.spec.name} and {other.spec.name} {first.compare(other)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(str(Path(scratch, "jobs")))
