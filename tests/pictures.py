"""Make the README's pictures: a real job over the sample catalogue, looked at in a real Chromium.

    uv run python tests/pictures.py [FOLDER]

The loopback server answers with the catalogue's own truth, and spoils some answers. Chromium takes
the fonts that it finds: with Inter and JetBrains Mono installed the pictures are as in ``docs/``.
"""

from __future__ import annotations

import io
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import openai
import pandas as pd
from batch_server import BatchServer, Reply, user_text
from browser import Chromium
from PIL import Image as Pillow
from pydantic import BaseModel

import frameenrich
from frameenrich.cli.demo import read_catalogue

ASK = """Read this product for our catalogue.
Title: {{ title }}
Brand: {{ brand or "unknown" }}
Description: {{ description or "" }}"""
SYSTEM = (
    "You read products for a shop. Answer with the colour, the item for sale, the department, "
    "whether it makes a gift, and a price band from 1 to 5."
)
_NOTEBOOK = "margin:0;padding:18px;background:#fff;font-family:Inter,system-ui,sans-serif"
_STYLE = "table{border-collapse:collapse;font-size:12.5px;margin-top:18px} caption{text-align:left;"
_STYLE += "padding:6px 4px;color:#666} th{text-align:left;padding:4px 12px 4px 4px;color:#666;"
_STYLE += "font-weight:500} td:first-of-type{white-space:nowrap} "
_STYLE += "td{padding:5px 12px 5px 4px;border-top:1px solid #eee}"


class Product(BaseModel):
    """What is asked of each row."""

    color: str
    item: str
    department: Literal["Kitchen", "Garden", "Clothing", "Electronics", "Toys"]
    gift: bool
    price_band: int


def answers(catalogue: pd.DataFrame, truth: pd.DataFrame) -> Any:
    """The server's answers: the truth, with a wrong type or an unknown department now and then."""
    chance = random.Random(7)
    rows = dict(zip(catalogue["title"], truth.to_dict("records"), strict=True))

    def answer(body: Any, custom_id: str) -> Reply:
        row = rows[user_text(body).partition("Title: ")[2].partition("\n")[0]]
        said = {**row, "gift": chance.random() < 0.3, "price_band": chance.choice([1, 2, 2, 3, 4])}
        spoiled = {0: {"price_band": "cheap"}, 1: {"department": "Pets"}}
        wrong = {n: {"department": "Garden"} for n in (2, 3)}  # whole, and not right
        return Reply(
            content=json.dumps({**said, **(spoiled | wrong).get(chance.randrange(40), {})})
        )

    return answer


def run_job(server: BatchServer, store: str) -> frameenrich.Job:
    """A job over the whole catalogue, with faults, and a second round for what was cut short."""
    catalogue, truth = read_catalogue(200)
    server.answer = answers(catalogue, truth)
    server.faults.add("refused", fraction=0.02, seed=1)
    server.faults.add("truncated", fraction=0.04, seed=2)
    server.faults.add("http_error", fraction=0.015, seed=4, status=500)
    client = openai.OpenAI(api_key="sk-test", base_url=server.base_url)
    job: frameenrich.Job = catalogue.llmbatch.submit(
        ASK,
        "gpt-4o-mini",
        system=SYSTEM,
        name="catalogue",
        response_model=Product,
        params={"max_tokens": 60},
        client=client,
        store=store,
    ).wait(poll_seconds=0.05)
    job = job.regenerate(statuses=["truncated"]).wait(poll_seconds=0.05)
    review_departments(job, dict(zip(catalogue.index, truth["department"], strict=True)))
    return job


def review_departments(job: frameenrich.Job, right: dict[Any, str]) -> None:
    """Judge the department of 100 drawn rows, as somebody would who knows the truth."""
    path = Path("review.csv")
    sheet = pd.read_csv(job.review(n=100, by="department").to_csv(path), dtype=str)
    sheet = sheet[sheet["field"] == "department"]
    sheet["correct"] = sheet["sku"].map(right)
    sheet.to_csv(path, index=False)
    job.add_review(path, reviewer="ada")


def take(browser: Chromium, path: Path) -> None:
    """A screenshot in as many colours as a palette has, the rare ones kept."""
    browser.screenshot(path)
    picture = Pillow.open(io.BytesIO(path.read_bytes())).convert("RGB")
    few = picture.quantize(method=Pillow.Quantize.MAXCOVERAGE, dither=Pillow.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


def main(folder: Path) -> None:
    """Make all pictures."""
    folder = folder.resolve()
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, BatchServer() as server:
        os.chdir(scratch)
        job = run_job(server, ".frameenrich")
        report = job.report(f"{scratch}/report.html")
        notebook = Path(scratch, "card.html")
        shown = job._repr_html_() + job.show_flagged(rows=4).to_html()
        page = f"<meta charset=utf-8><style>{_STYLE}</style><body style='{_NOTEBOOK}'>{shown}"
        notebook.write_text(page, encoding="utf-8")
        with Chromium(1280, 860) as browser:
            browser.open(report.as_uri())
            take(browser, folder / "report.png")
            browser.ask("document.getElementById('rows').scrollIntoView()")
            take(browser, folder / "report-rows.png")
            browser.resize(860, 500)
            browser.open(notebook.as_uri())
            browser.resize(860, int(browser.ask("document.documentElement.scrollHeight")))
            take(browser, folder / "card.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs"))
