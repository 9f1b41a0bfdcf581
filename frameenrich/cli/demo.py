"""``frameenrich demo``: a whole job on sample data with the embedded model, nothing canned.

It uses the public API only, and is meant to be read: `ask` is all that a user writes.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, Field
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from frameenrich.evaluation.draw import first_review
from frameenrich.evaluation.intervals import MissingExtraError
from frameenrich.providers.local.provider import check_installed
from frameenrich.verbs.job import Job
from frameenrich.verbs.list_jobs import jobs
from frameenrich.verbs.sample import sample_path

NAME = "demo"


MODEL = "smollm2-135m"


TRUTH = ["color", "item", "department"]


JUDGED = ["color", "item"]


_SHOWN_ROWS = 24


_OTHER_COLUMNS_WIDTH = 64


class Product(BaseModel):
    """What is asked of the model; the lengths keep a constrained model from rambling."""

    color: str = Field(max_length=12)
    item: str = Field(max_length=24)


# Products that are not in the sample catalogue: the truth stays out of the prompt.
EXAMPLES = [
    ("Bramwick Linen Napkin, Purple, Set of 4", Product(color="purple", item="napkin")),
    ("Nordhaus Waffle Maker, Silver", Product(color="silver", item="waffle maker")),
    ("Kids' Corduroy Trousers, Brown, Age 6", Product(color="brown", item="trousers")),
    ("Fernhill Steel Garden Gate 90 cm, Green", Product(color="green", item="garden gate")),
    ("Zentra Photo Printer with Wi-Fi, Black", Product(color="black", item="photo printer")),
    ("Puddlefoot Wooden Abacus, Yellow", Product(color="yellow", item="abacus")),
    ("Red Velvet Curtain, 140 x 220", Product(color="red", item="curtain")),
    ("Foldaway Picnic Rug w/ Strap - Blue", Product(color="blue", item="picnic rug")),
    ('NEW! Orbit Wall Clock 12", White (boxed)', Product(color="white", item="wall clock")),
    ("Tavistock Cufflinks in Gold", Product(color="gold", item="cufflinks")),
]


TASK = "Copy the color and the item for sale out of the title."


def prompt() -> list[dict[str, str]]:
    """Build the prompt: the task, example products with their answers, and the row's title."""
    messages = [{"role": "system", "content": TASK}]
    for title, answer in EXAMPLES:
        said = json.dumps(answer.model_dump())
        messages += [{"role": "user", "content": title}, {"role": "assistant", "content": said}]
    return [*messages, {"role": "user", "content": "{{ title }}"}]


def ask(catalogue: pd.DataFrame, store: Path) -> Job:
    """Send the titles, and return when the embedded model has answered all of them."""
    job: Job = catalogue.llmbatch.submit(
        prompt(),
        MODEL,
        name=NAME,
        response_model=Product,
        params={"temperature": 0, "max_tokens": 48},
        provider="local",
        store=store,
    )
    return job


def read_catalogue(rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the first rows as a supplier sends them, and separately the truth about them.

    Parameters
    ----------
    rows : int
        How many.

    Returns
    -------
    (DataFrame, DataFrame)
        Both indexed by ``sku``, all texts; the first is all that the model gets to see.
    """
    whole = pd.read_csv(sample_path(), dtype="string", index_col="sku", nrows=rows)
    return whole.drop(columns=TRUTH), whole[TRUTH]


def run(rows: int, store: Path | None = None) -> None:
    """Run the demo and print its results.

    Parameters
    ----------
    rows : int
        How many rows of the sample catalogue.
    store : Path, optional
        Where the job is kept; by default in a temporary folder that goes at the end.
    """
    check_installed(MODEL)
    console = Console(highlight=False, soft_wrap=True)
    catalogue, truth = read_catalogue(rows)
    with _folder(store) as folder:
        console.print(f"Asking {MODEL} for color and item of {len(catalogue)} product titles ...")
        earlier = jobs(folder)
        known = set(earlier.loc[earlier["settled"].astype(bool), "job"])
        start = time.perf_counter()
        job = ask(catalogue, folder)
        seconds = time.perf_counter() - start
        answers = catalogue.llmbatch.collect(job, usage=True)

        _print_table(console, answers, truth)
        # A kept store may have this very job already; then nothing was sent.
        paid = 0 if job.id in known else len(answers) - job.reused
        _print_summary(console, answers, truth, seconds, paid)
        _print_evaluation(console, job, catalogue.join(truth.add_prefix("true_")))
        _print_files(console, job, kept=store is not None)


@contextlib.contextmanager
def _folder(store: Path | None) -> Iterator[Path]:
    if store is not None:
        yield store
        return
    with tempfile.TemporaryDirectory(prefix="frameenrich-demo-") as folder:
        yield Path(folder)


def agreeing(answers: pd.DataFrame, truth: pd.DataFrame, column: str) -> pd.Series:
    """Mark the rows whose answer is the truth, ignoring case and outer spaces.

    Examples
    --------
    >>> said = pd.DataFrame({"color": pd.Series(["Red", "blue", None], dtype="string")})
    >>> true = pd.DataFrame({"color": pd.Series(["red", "green", "red"], dtype="string")})
    >>> agreeing(said, true, "color").tolist()
    [True, False, False]
    """
    said = answers[column].str.strip().str.casefold()
    return (said == truth[column].str.casefold()).fillna(False).astype(bool)


# --- what is printed ----------------------------------------------------------------------------


def _print_table(console: Console, answers: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Print rows evenly spaced over the catalogue: its first are its easiest."""
    step = -(-len(answers) // _SHOWN_ROWS)
    agree = {column: agreeing(answers, truth, column) for column in JUDGED}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    room = console.width - _OTHER_COLUMNS_WIDTH
    table.add_column("title", no_wrap=True, max_width=max(16, min(room, 60)))
    for heading, width in (("color", 8), ("truth", 6), ("item", 16), ("truth", 13), ("status", 9)):
        table.add_column(heading, no_wrap=True, max_width=width)
    for i in range(0, len(answers), step):
        row, true = answers.iloc[i], truth.iloc[i]
        cells = [Text(row["title"])]
        for column in JUDGED:
            cells.append(_cell(row[column], agrees=bool(agree[column].iloc[i])))
            cells.append(Text(true[column]))
        table.add_row(*cells, Text(row[f"{NAME}_status"]))
    console.print(table)


def _cell(value: Any, *, agrees: bool) -> Text:
    return Text("-" if pd.isna(value) else value, style="green" if agrees else "red")


def _print_summary(
    console: Console,
    answers: pd.DataFrame,
    truth: pd.DataFrame,
    seconds: float,
    paid: int,
) -> None:
    counts = answers[f"{NAME}_status"].value_counts()
    console.print("status: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    models = answers[f"{NAME}_model"].dropna().unique()
    console.print("answered by: " + ", ".join(Path(model).name for model in models))
    console.print(_pace(len(answers), paid, seconds))
    for column in JUDGED:
        agreed, rows = int(agreeing(answers, truth, column).sum()), len(answers)
        console.print(f"{column} agrees on {agreed} of {rows} rows ({agreed / rows:.0%})")
    console.print(
        "\nA model of 135M parameters is a toy: it shows that the machinery works, not what LLMs "
        "can do.\nFor a real one set OPENAI_API_KEY and change two words: model='gpt-5.4-mini', "
        "provider='openai';\nor stay offline with a bigger model: model='/path/to/model.gguf'."
    )


def _print_evaluation(console: Console, job: Job, catalogue: pd.DataFrame) -> None:
    """Print the accuracy of the answers, as a user with a truth column or a review sees it."""
    columns = {column: f"true_{column}" for column in JUDGED}
    try:
        check = catalogue.llmbatch.evaluate(job, truth=columns, match=_same_text)
        found = ", ".join(f"{name} {made}" for name, made in check.fields.items())
    except MissingExtraError as error:
        console.print(f"\n{error.fix}", markup=False)
        return
    usable = check.design.usable
    console.print(
        f"\nEvaluated against the file's truth columns: {found}.\n"
        f"So {usable} answers are usable, and of those that many are right; in brackets what 95 of "
        "100 such\nsamples would hold. Without a truth column, people judge a random draw: "
        f"df.llmbatch.review(job, n={first_review(usable)}).",
        markup=False,
    )


def _same_text(answer: Any, truth: Any) -> bool:
    return str(answer).strip().casefold() == str(truth).strip().casefold()


def _pace(rows: int, paid: int, seconds: float) -> str:
    """Format how fast the model was, and how many rows it was not asked about.

    Examples
    --------
    >>> _pace(24, 20, 10.0)
    'took: 10.0 s with loading the model, 2.0 rows/s; 4 rows were answered in this store'
    """
    if not paid:
        return f"took: {seconds:.1f} s; this store had the answers, nothing was asked again"
    known = f"; {rows - paid} rows were answered in this store" if paid < rows else ""
    return f"took: {seconds:.1f} s with loading the model, {paid / seconds:.1f} rows/s{known}"


def _print_files(console: Console, job: Job, *, kept: bool) -> None:
    console.print(f"\nThe job on disk, {job.path}:", markup=False)
    for path in sorted(Path(job.path).rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            name = path.relative_to(job.path).as_posix()
            console.print(f"  {name:<42}{path.stat().st_size:>10,} bytes  {_role(path.name)}")
    if not kept:
        console.print("It is in a temporary folder and goes now; --store FOLDER keeps it.")


def _role(name: str) -> str:
    """Describe the purpose of a job's file.

    Examples
    --------
    >>> _role("shard-00000.requests.jsonl")
    'what was sent, one request a line'
    """
    roles = {
        "parquet": "which row became which request",
        "requests.jsonl": "what was sent, one request a line",
        "responses.jsonl": "what came back, as it came",
        "batch.json": "how far the batch is",
    }
    return roles[name.partition(".")[2]]
