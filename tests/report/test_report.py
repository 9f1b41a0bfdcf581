"""What people look at, in a real Chromium: the report, the card, the flagged rows."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import random
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import openai
import pandas as pd
import pytest
from batch_server import BatchServer, Reply, user_text
from browser import Chromium
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydantic import BaseModel
from reviews import LABELS as GOODS
from reviews import answered, goods
from typer.testing import CliRunner

import frameenrich
from frameenrich.cli.main import app
from frameenrich.errors import InputError
from frameenrich.model import Batch, Stage
from frameenrich.pricing.money import show_usd
from frameenrich.rendering.images import data_url
from frameenrich.rendering.readable import Prompt
from frameenrich.rendering.thumbnails import thumbnail
from frameenrich.report.card import MAX_RESPONSE_BYTES, Card, card_html
from frameenrich.report.charts import chart_of
from frameenrich.report.locate_error import locate_error
from frameenrich.report.page import Report, page
from frameenrich.report.page_rows import Column, Row
from frameenrich.text import script_json

EVIL = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "<!--<script>",
    "<img src=http://127.0.0.1:9/x.png onerror=alert(3)>",
    "\"'`&amp;&lt;${alert(4)}{{ 7 * 7 }}{% raw %}",
    "separators \u2028 and \u2029 and \x00 and \x1b[31m",
    "\u202eright to left\u202c שלום مرحبا",
    "👩🏽‍🚀 emoji 🇪🇺",
    "javascript:alert(5)",
]
LABELS = ["Kitchen", "Garden", "Clothing"]


class Product(BaseModel):
    """An answer with a place to go wrong in."""

    kind: Literal["mug", "hose"]
    width: int
    note: str


def search(browser: Chromium, text: str) -> int:
    """Type into the search, and count what is found."""
    browser.ask("document.getElementById('search').value = ''")
    browser.press("/")
    browser.type(text)
    browser.wait_for("document.getElementById('shown').textContent.includes(' of ')")
    return shown(browser)


def shown(browser: Chromium) -> int:
    """How many rows the list says it has."""
    found: str = browser.ask("document.getElementById('shown').textContent")
    return int(found.split(maxsplit=1)[0].replace(",", ""))


def keys_in_sight(browser: Chromium) -> list[str]:
    """The keys of the rows that are in the page, from the top."""
    found: list[str] = browser.ask(
        "[...document.querySelectorAll('.row')].sort((a, b) => parseFloat(a.style.top) - "
        "parseFloat(b.style.top)).map(r => r.querySelector('.key').textContent)"
    )
    return found


def detail(browser: Chromium) -> str:
    """The text of the row that is shown in full."""
    text: str = browser.ask("document.getElementById('detail').textContent")
    return text


def many(count: int) -> Report:
    """A report of many rows, a hundredth of them flagged, at places spread over all."""
    system = "You sort products. " * 20
    rows = [
        Row(
            key=f"sku-{i:06d}",
            status="malformed" if i % 100 == 7 else "ok",
            values=None if i % 100 == 7 else (LABELS[i % 3],),
            error="not one of the 3 labels" if i % 100 == 7 else None,
            raw="Pets" if i % 100 == 7 else LABELS[i % 3],
            prompt=Prompt((("system", system), ("user", f"Sort this product: thing {i} " * 8))),
            completion_tokens=i % 50,
        )
        for i in range(count)
    ]
    values = pd.Series(pd.Categorical([r.values[0] if r.values else None for r in rows], LABELS))
    chart = chart_of("shelf", "v0", values)
    flagged = sum(row.status != "ok" for row in rows)
    return Report(
        job="shelf-1",
        name="shelf",
        facts=(),
        figures=(),
        counts={"ok": count - flagged, "malformed": flagged},
        columns=(Column("shelf", "text"),),
        rows=rows,
        charts=() if chart is None else (chart,),
        own_turn=1,
    )


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 10,000 rows."""
    path: Path = tmp_path_factory.mktemp("many") / "report.html"
    path.write_text("".join(page(many(10_000), version="1", made_at="today")), encoding="utf-8")
    return path


# --- the report: harmless -----------------------------------------------------------------------


def test_hostile_text_does_nothing_and_is_shown_as_text(
    browser: Chromium, server: BatchServer, client: openai.OpenAI, store: Path, tmp_path: Path
) -> None:
    """Markup in keys, prompts, answers, names and reasons; bidi, emoji, and 100 KB of it."""
    long = "<b>" + "x" * 100_000 + "</b>"
    texts = [*EVIL, long]
    frame = pd.DataFrame({"title": texts}, index=pd.Index([f"k {t[:80]}" for t in texts]))
    server.answer = lambda body, _: Reply(content=user_text(body))
    server.faults.add("http_error", where=lambda _, b: "emoji" in user_text(b), message=EVIL[1])
    job = frame.llmbatch.submit(
        "{{ title }}", EVIL[3], system=EVIL[0], name=EVIL[1], client=client, store=store
    )
    job.wait(poll_seconds=0.01)

    path = job.report(tmp_path / "report.html")
    browser.show(path)

    assert browser.messages == []
    assert browser.requests == [path.as_uri()]
    assert browser.ask("document.querySelectorAll('script').length") == 2
    assert browser.ask("document.querySelectorAll('main img, main b b').length") == 0
    assert browser.ask("document.querySelector('h1').textContent") == EVIL[1]
    seen = {}
    for _ in texts:
        key = browser.ask("document.querySelector('#detail h2').textContent")
        seen[key] = browser.ask("document.querySelector('#detail .turn.user pre').textContent")
        browser.press("j")
    assert seen == {f"k {text[:80]}": text for text in texts}
    assert search(browser, "</script><script>alert(2)") == 2  # the row, and the one it failed
    assert browser.messages == []


@given(st.text())
def test_rows_as_json_cannot_end_their_script(text: str) -> None:
    """What goes into the page comes out the same, and holds nothing that HTML reads."""
    written = script_json([text])

    assert json.loads(written) == [text]
    assert not re.search("[<>\u2028\u2029]", written)
    assert written.encode()


def test_the_policy_runs_the_pages_own_script_and_no_other(
    browser: Chromium, ten_thousand: Path, tmp_path: Path
) -> None:
    """Even where markup got in, nothing would run, and nothing be fetched."""
    text = ten_thousand.read_text(encoding="utf-8")
    path = tmp_path / "tampered.html"
    worse = "<script>window.bad=1</script><img src=http://127.0.0.1:9/a.png onerror='window.bad=2'>"
    path.write_text(text.replace("</main>", f"{worse}</main>"), encoding="utf-8")

    browser.show(path)

    assert browser.ask("window.bad") is None
    assert len(browser.messages) >= 2  # the console tells what was refused
    assert all("Content Security Policy" in message for message in browser.messages)


def test_no_key_is_in_the_page(
    server: BatchServer,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mugs: pd.DataFrame,
) -> None:
    """Not even one that a server put into its answers."""
    mine, theirs = "sk-PLANTED0123456789abcdef", "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", theirs)
    server.answer = lambda *_: Reply(content=f"Your keys: {mine} and {theirs}")
    with openai.OpenAI(api_key=mine, base_url=server.base_url) as client:
        job = mugs.llmbatch.submit("{{ title }}", "m", client=client, store=store)
        job.wait(poll_seconds=0.01)

        text = (
            frameenrich.open_job(job.id, store, client=client)
            .report(tmp_path / "report.html")
            .read_text(encoding="utf-8")
        )
        card = job._repr_html_()

    assert "Your keys: *** and ***" in text
    for secret in (mine, theirs):
        assert secret not in text + card


# --- the report: what a person does with it -----------------------------------------------------


def test_ten_thousand_rows_stay_a_small_page(browser: Chromium, ten_thousand: Path) -> None:
    """Only rows in sight are in the document, wherever the list is scrolled to."""
    browser.show(ten_thousand)
    count = "document.querySelectorAll('.row').length"

    assert shown(browser) == 10_000
    assert browser.ask(count) < 60
    assert browser.ask("document.querySelectorAll('*').length") < 1_000
    browser.ask("document.getElementById('scroll').scrollTop = 200000")
    browser.wait_for("document.querySelector('.row').id !== 'row-0'")
    assert browser.ask(count) < 60
    browser.ask("document.getElementById('scroll').scrollTop = 1e9")
    browser.wait_for("document.getElementById('row-9999') !== null")
    assert keys_in_sight(browser)[-1] == "sku-009999"


def test_flagged_rows_come_first(browser: Chromium, ten_thousand: Path) -> None:
    """In the order of the frame; the first is shown in full, with its reason."""
    browser.show(ten_thousand)

    assert keys_in_sight(browser)[:3] == ["sku-000007", "sku-000107", "sku-000207"]
    assert "not one of the 3 labels" in detail(browser)
    assert browser.ask("document.querySelector('.headline').textContent").startswith("99%")


def test_search_and_filters_find_rows(browser: Chromium, ten_thousand: Path) -> None:
    """By text, by status, by label, together and each taken back."""
    browser.show(ten_thousand)

    assert search(browser, "THING 4321") == 1
    assert keys_in_sight(browser) == ["sku-004321"]
    assert browser.ask("document.querySelector('.row mark').textContent").lower() == "thing 4321"
    browser.press("Escape")
    assert shown(browser) == 10_000
    browser.press("f")
    assert shown(browser) == 100
    browser.press("f")
    browser.click('.bars button[data-bar="0"]')
    label = browser.ask("document.querySelector('.bars .name').textContent")
    assert shown(browser) == sum(r.values == (label,) for r in many(10_000).rows)
    browser.ask("[...document.querySelectorAll('#chips button')].find(b => "
                "b.textContent.startsWith('malformed')).click()")  # fmt: skip
    assert shown(browser) == 0
    assert browser.ask("document.getElementById('none').hidden") is False
    browser.click("#clear")
    assert shown(browser) == 10_000


def test_keys_move_through_the_rows(browser: Chromium, ten_thousand: Path) -> None:
    """The keys j and k; in the search they are letters."""
    browser.show(ten_thousand)
    browser.press("j")
    browser.press("j")
    browser.press("k")
    # The page draws at its next frame, which a busy machine may have late.
    browser.wait_for("document.getElementById('detail').textContent.includes('sku-000107')")

    browser.press("/")
    browser.press("j")
    assert browser.ask("document.getElementById('search').value") == "j"
    assert "sku-000107" in detail(browser)


def test_rows_sort_by_an_answer_and_by_length(browser: Chromium, ten_thousand: Path) -> None:
    """The columns' heads and the choice above the list."""
    browser.show(ten_thousand)

    browser.click("#head .key")
    assert keys_in_sight(browser)[0] == "sku-000000"
    browser.click("#head .key")
    assert keys_in_sight(browser)[0] == "sku-009999"
    browser.ask("(() => { const s = document.getElementById('sort'); s.value = 'out';"
                "s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    assert keys_in_sight(browser)[0] == "sku-000049"


def test_what_was_judged_gives_no_interval(browser: Chromium, ten_thousand: Path) -> None:
    """Promise 11: rows picked on the page are counted; an interval needs a recorded draw."""
    browser.show(ten_thousand)
    browser.ask("Math.random = (() => { let n = 0; return () => (n += 0.01); })()")
    for verdict in "yyyyyyyyyn":
        browser.press("r")
        browser.press(verdict)

    said = browser.ask("document.getElementById('checked').textContent")
    assert "10 usable rows: 9 right" in said
    assert "%" not in said
    assert "job.review(n=100)" in said
    browser.ask("document.querySelector('#checked button').click()")
    assert browser.ask("document.getElementById('checked').hidden") is True


def test_verdicts_that_the_browser_writes_late_are_not_lost(
    browser: Chromium, ten_thousand: Path
) -> None:
    """Promise 12, of verdicts: those of the page before a reload, or of a second tab, are kept."""
    browser.show(ten_thousand)
    drawer = browser.ask(
        "'frameenrich:' + JSON.parse(document.getElementById('data').textContent).job"
    )
    browser.ask(f"localStorage.removeItem({json.dumps(drawer)})")
    browser.show(ten_thousand)

    def hear(verdicts: dict[str, int]) -> None:
        event = {"key": drawer, "newValue": json.dumps(verdicts)}
        browser.ask(f"void dispatchEvent(new StorageEvent('storage', {json.dumps(event)}))")

    def said() -> str:
        text: str = browser.ask("document.getElementById('checked').textContent")
        return text

    hear({"sku-000000": 1, "sku-000001": 1})
    assert "2 usable rows: 2 right" in said()
    browser.ask("Math.random = () => 0.99")
    browser.press("r")
    last = browser.ask("document.querySelector('#detail h2').textContent")
    browser.press("n")
    hear({"sku-000002": 0, last: 1})
    assert "4 usable rows: 2 right" in said()  # ours stands where both judged
    browser.press("n")  # taken back
    hear({last: 0})
    assert "3 usable rows: 2 right" in said()
    browser.press("y")
    kept = json.loads(browser.ask(f"localStorage.getItem({json.dumps(drawer)})"))
    assert kept == {"sku-000000": 1, "sku-000001": 1, "sku-000002": 0, last: 1}
    browser.ask("document.querySelector('#checked button').click()")
    assert browser.messages == []


def test_a_narrow_window_shows_one_row_at_a_time(browser: Chromium, ten_thousand: Path) -> None:
    """On a phone a row opens over the list and closes again; nothing sticks out."""
    browser.resize(390, 800)
    browser.show(ten_thousand)
    visible = "getComputedStyle(document.getElementById('detail')).display !== 'none'"

    assert browser.ask(visible) is False
    browser.click("#row-2")
    assert browser.ask(visible) is True
    browser.click(".back")
    assert browser.ask(visible) is False
    assert browser.ask("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(
    scheme: str, browser: Chromium, ten_thousand: Path
) -> None:
    """WCAG's 4.5 for what is read, in both colour schemes."""
    browser.prefer(scheme)
    browser.show(ten_thousand)

    for name, ground in [("--ink", "--bg"), ("--soft", "--panel"), ("--soft", "--sunk")]:
        colors = [
            browser.ask(f"getComputedStyle(document.documentElement).getPropertyValue('{c}')")
            for c in (name, ground)
        ]
        assert contrast(*colors) >= 4.5, (scheme, name, ground)


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two hexadecimal colours."""

    def light(color: str) -> float:
        digits = color.strip().lstrip("#")
        digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    bright, dark = sorted([light(one), light(other)], reverse=True)
    return (bright + 0.05) / (dark + 0.05)


# --- the report: of a real job ------------------------------------------------------------------


@pytest.fixture
def broken(server: BatchServer, client: openai.OpenAI, store: Path) -> Any:
    """A job with a good answer, a malformed, a refused and a truncated one; two rounds."""
    good = {"kind": "mug", "width": 9, "note": "fine"}

    def answer(body: Any, custom_id: str) -> Reply:
        wide = {"width": "a 👩 wide one"} if "A2" in custom_id else {}
        return Reply(content=json.dumps(good | wide, ensure_ascii=False))

    server.answer = answer
    server.faults.add("refused", where=["row-A3"])
    server.faults.add("truncated", where=["row-A4", "r1-row-A4"])
    frame = pd.DataFrame({"title": ["a", "b", "c", "d"]}, index=["A1", "A2", "A3", "A4"])
    frame.index.name = "sku"
    job = frame.llmbatch.submit(
        "Measure {{ title }}",
        "m",
        system="Be exact.",
        response_model=Product,
        params={"max_tokens": 20},
        client=client,
        store=store,
    ).wait(poll_seconds=0.01)
    return job.regenerate(statuses=["truncated"]).wait(poll_seconds=0.01)


def test_a_row_is_shown_in_full(browser: Chromium, broken: Any, tmp_path: Path) -> None:
    """Prompt, values, raw answer with the place of the error, reason, and earlier attempts."""
    browser.show(broken.report(tmp_path / "report.html"))
    order = [("A2", "malformed"), ("A4", "truncated"), ("A3", "refused"), ("A1", "ok")]

    assert keys_in_sight(browser) == [key for key, _ in order]
    malformed = detail(browser)
    assert "$.width: Input should be a valid integer" in malformed
    assert "Measure b" in malformed
    assert "Be exact." in malformed
    assert browser.ask("document.querySelector('mark.spot').textContent") == '"a 👩 wide one"'
    browser.press("j")
    assert "asked again: max_tokens 20 -> 40" in detail(browser)
    browser.press("j")
    assert "I'm sorry" in detail(browser)
    browser.press("j")
    values = browser.ask("[...document.querySelectorAll('.values dd')].map(d => d.textContent)")
    assert values == ["mug", "9", "fine"]


def test_a_reason_finds_its_rows(browser: Chromium, broken: Any, tmp_path: Path) -> None:
    """The list of reasons filters the rows, and lets go again."""
    browser.show(broken.report(tmp_path / "report.html"))

    browser.ask("[...document.querySelectorAll('[data-reason]')].find(b => "
                "b.textContent.includes('width')).click()")  # fmt: skip
    assert keys_in_sight(browser) == ["A2"]
    browser.ask("document.querySelector('[data-reason][aria-pressed=true]').click()")
    assert shown(browser) == 4


def test_of_many_rows_a_sample_and_every_flagged_one(
    browser: Chromium, server: BatchServer, client: openai.OpenAI, store: Path, tmp_path: Path
) -> None:
    """The page tells that it holds a sample; its counts are of all rows."""
    frame = pd.DataFrame({"title": [f"thing {i}" for i in range(300)]})
    server.faults.add("refused", where=lambda _, b: user_text(b).endswith("7"))
    job = frame.llmbatch.submit("{{ title }}", "m", client=client, store=store)
    job.wait(poll_seconds=0.01)

    browser.show(job.report(tmp_path / "report.html", rows=20))

    assert shown(browser) == 30 + 20
    assert "90%" in browser.ask("document.querySelector('.headline').textContent")
    assert "all 30 flagged rows and a random sample of 20 of the other 270" in browser.ask(
        "document.querySelector('.note').textContent"
    )


def photo(size: int) -> bytes:
    """A PNG of soft spots, that is as large as a photograph's."""
    sink = io.BytesIO()
    spots = Pillow.frombytes("RGB", (8, 8), random.Random(1).randbytes(3 * 8 * 8))
    spots.resize((size, size), Pillow.Resampling.BICUBIC).save(sink, "PNG")
    return sink.getvalue()


def test_images_stand_beside_their_rows(
    browser: Chromium, client: openai.OpenAI, store: Path, tmp_path: Path
) -> None:
    """Thumbnails are in the page; a URL is a link, and is not fetched."""
    photos = [photo(600), photo(8), "http://127.0.0.1:9/far.png"]
    frame = pd.DataFrame({"photo": photos}, index=["big", "small", "far"], dtype=object)
    job = frame.llmbatch.submit("What?", "m", image="photo", client=client, store=store)
    job.wait(poll_seconds=0.01)

    path = job.report(tmp_path / "report.html")
    browser.show(path)

    sizes = {}
    for key in frame.index:
        assert key in detail(browser)
        browser.wait_for("[...document.querySelectorAll('#detail img')].every(i => i.complete)")
        sizes[key] = browser.ask(
            "[...document.querySelectorAll('#detail img')].map(i => i.naturalWidth)"
        )
        browser.press("j")
    assert sizes == {"big": [320], "small": [8], "far": []}
    assert browser.ask("document.querySelector('#detail a').href") == photos[2]
    assert [url for url in browser.requests if not url.startswith("data:")] == [path.as_uri()]
    assert path.stat().st_size < 200_000 < len(photo(600))
    assert browser.messages == []


def test_without_pillow_only_small_images_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one is left out rather than put into the page as it is."""
    small, large = data_url(photo(8)), data_url(photo(600))
    monkeypatch.setitem(sys.modules, "PIL", None)

    assert thumbnail(small) == small
    assert thumbnail(large) is None
    assert thumbnail("http://127.0.0.1:9/a.png") is None
    assert thumbnail("data:image/png;base64," + base64.b64encode(b"<svg/>").decode()) is None


def test_a_report_to_a_device_is_written_to_it(broken: Any, tmp_path: Path) -> None:
    """A pipe gets the page and stays a pipe; a link stays a link."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "report.html").symlink_to("pipe")
    with ThreadPoolExecutor() as reader:
        text = reader.submit((tmp_path / "pipe").read_text)
        broken.report(tmp_path / "report.html")

    assert text.result().startswith("<!doctype html>")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "report.html").is_symlink()


def test_a_report_that_cannot_be_written_says_so(broken: Any, tmp_path: Path) -> None:
    """The path and what to do; nothing is left beside it."""
    with pytest.raises(InputError, match=r"cannot be written to .*nowhere"):
        broken.report(tmp_path / "nowhere" / "report.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(InputError, match="Choose another file"):
        broken.report(tmp_path / "folder.html")

    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


def test_tokens_are_told_always_and_dollars_where_a_price_is_known(
    browser: Chromium, client: openai.OpenAI, store: Path, tmp_path: Path, mugs: pd.DataFrame
) -> None:
    """Of all rounds, as `Job.usage` has them, on the page and on the card."""
    figures = "[...document.querySelectorAll('.figures > div')].map(d => d.innerText.split('\\n'))"
    for model in ("gpt-4o-mini", "a-model-without-a-price"):
        job = mugs.llmbatch.submit("{{ title }}", model, client=client, store=store)
        used = job.wait(poll_seconds=0.01).usage()

        browser.show(job.report(tmp_path / f"{model}.html"))

        told = dict(browser.ask(figures))
        assert told["Tokens in"] == f"{used.prompt_tokens:,}"
        assert told["Tokens out"] == f"{used.completion_tokens:,}"
        assert told["Cost"] == ("not known" if used.usd is None else show_usd(used.usd))
        assert (used.usd is None) == (model != "gpt-4o-mini") == ("$" not in job._repr_html_())


@pytest.mark.parametrize("endpoint", ["/v1/embeddings", "/v1/moderations", "/v1/responses"])
def test_every_endpoint_has_a_report(
    endpoint: str, browser: Chromium, client: openai.OpenAI, store: Path, tmp_path: Path,
    mugs: pd.DataFrame,
) -> None:  # fmt: skip
    """Vectors, judgements and texts; what was asked is found in each request's own place."""
    job = mugs.llmbatch.submit(
        "{{ title }}", "m", endpoint=endpoint, client=client, store=store
    ).wait(poll_seconds=0.01)

    browser.show(job.report(tmp_path / "report.html"))

    assert browser.messages == []
    assert shown(browser) == 4
    assert "Red mug" in detail(browser)


def test_the_command_writes_the_newest_jobs_report(broken: Any, store: Path) -> None:
    """``frameenrich report`` prints where it is."""
    done = CliRunner().invoke(app, ["report", "--store", str(store), "--out", "seen.html"])

    assert (done.exit_code, done.stdout) == (0, "seen.html\n")
    assert broken.id in Path("seen.html").read_text(encoding="utf-8")


# --- the card -----------------------------------------------------------------------------------


def test_the_card_tells_how_far_a_job_is(
    server: BatchServer, client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """Rows by status, batches, tokens, and what to call next: while it runs, and at its end."""
    server.hold("in_progress")
    job = mugs.llmbatch.submit("{{ title }}", "m", client=client, store=store)
    job.status()
    running = job._repr_html_()
    server.release()
    job.wait(poll_seconds=0.01)
    ended = job._repr_html_()

    assert "pending 4" in running
    assert "in_progress" in running
    assert "df.llmbatch.collect(wait=True)" in running
    assert "ok 4" in ended
    assert re.search(r"\d+ in, \d+ out", ended)
    assert "job.report(" in ended
    assert "regenerate" not in ended


def test_the_card_of_a_flagged_job_says_what_to_do(broken: Any) -> None:
    """Statuses in their words and numbers."""
    card = broken._repr_html_()

    for words in (
        "ok 1",
        "malformed 1",
        "refused 1",
        "truncated 1",
        "job.regenerate()",
        "asked again",
    ):
        assert words in card


def test_a_large_jobs_card_reads_no_answer(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """Beyond a few megabytes of responses the batches' counts are shown."""
    job = mugs.llmbatch.submit("{{ title }}", "m", client=client, store=store)
    job.wait(poll_seconds=0.01)
    shard = job._session.job().all_shards()[0]
    with open(shard.responses_path, "ab") as file:
        file.write(b"\0" * MAX_RESPONSE_BYTES)  # would be parsed, and told, if it were read

    card = job._repr_html_()

    assert "answered 4" in card
    assert "of 4 requests" in card


def test_a_card_of_a_thousand_batches_stays_short() -> None:
    """Some are listed, those that run first; the rest is counted."""
    batches = [Batch("t", id=f"b{i}", stage=Stage.FETCHED, status="completed") for i in range(999)]
    shards = [(0, i, batch) for i, batch in enumerate([*batches, Batch("t", status="in_progress")])]

    card = card_html(Card("j", "m", {"ok": 1}, "rows", shards, {}, [], 0.0))

    assert "in_progress" in card
    assert "992 more completed" in card
    assert len(card) < 8_000


# --- flagged, styled ----------------------------------------------------------------------------


def test_flagged_rows_are_shown_with_the_place_of_the_error(
    browser: Chromium, broken: Any, tmp_path: Path
) -> None:
    """The answer's wrong value is marked; the caption counts."""
    path = tmp_path / "flagged.html"
    path.write_text("<meta charset=utf-8>" + broken.show_flagged(rows=2).to_html(), "utf-8")

    browser.open(path.as_uri())

    assert browser.ask("document.querySelector('mark').textContent") == '"a 👩 wide one"'
    assert browser.ask("document.querySelectorAll('tbody tr').length") == 2
    assert "A2" in browser.ask("document.querySelector('tbody tr').firstElementChild.textContent")
    assert "the first 2 of 3 flagged" in browser.ask("document.caption ?? document.body.innerText")


def test_flagged_rows_are_escaped(
    browser: Chromium, server: BatchServer, client: openai.OpenAI, store: Path, tmp_path: Path
) -> None:
    """Keys, reasons and answers are text, whatever they hold."""
    frame = pd.DataFrame({"title": EVIL}, index=pd.Index(EVIL, name=EVIL[3]))
    server.answer = lambda body, _: Reply(content=user_text(body))
    job = frame.llmbatch.submit(
        "{{ title }}", "m", name=EVIL[0], labels=LABELS, client=client, store=store
    ).wait(poll_seconds=0.01)
    path = tmp_path / "flagged.html"

    html = frame.llmbatch.show_flagged(job).to_html() + job.show_flagged().to_html()
    path.write_text("<meta charset=utf-8>" + html, "utf-8")
    browser.open(path.as_uri())

    assert browser.ask("document.querySelectorAll('script, img').length") == 0
    assert browser.messages == []
    for text in EVIL[:4]:
        assert text in browser.ask("document.body.textContent")


# --- the parts ----------------------------------------------------------------------------------

paths = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), inner, max_size=4)
    ),
    max_leaves=12,
)


def places(value: Any, path: str = "$") -> Iterator[tuple[str, Any]]:
    """Every place in a JSON value, and what is there."""
    yield path, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, f"{path}.{name}")
    if isinstance(value, list):
        for i, inner in enumerate(value):
            yield from places(inner, f"{path}[{i}]")


@given(paths, st.sampled_from([None, 2]), st.sampled_from(["", "Sure! ", "```json\n"]))
def test_every_place_of_an_answer_is_found(value: Any, indent: int | None, before: str) -> None:
    """What stands at the place that an error names is the value that is there."""
    raw = before + json.dumps(value, indent=indent)
    for path, inner in places(value):
        found = locate_error(raw, f"{path}: wrong")
        if path != "$":
            assert found is not None
            assert json.loads(raw[slice(*found)]) == inner


@given(st.text(), st.text())
def test_nonsense_has_no_place(raw: str, error: str) -> None:
    """Whatever the texts, the answer is None or lies inside."""
    for wrong in (error, "$.a[1].b: wrong"):
        found = locate_error(raw, wrong)
        assert found is None or 0 <= found[0] <= found[1] <= len(raw)


numbers = st.lists(
    st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False, width=32)
)


@pytest.mark.parametrize(("more", "label"), [(1, "1 more value"), (2, "2 more values")])
def test_the_values_without_a_bar_are_counted(more: int, label: str) -> None:
    """The last bar stands for the values beyond the ten most frequent ones."""
    chart = chart_of("n", "n", pd.Series([f"value {n}" for n in range(10 + more)] * 20))

    assert chart is not None
    assert chart.bars[-1].label == label


@given(numbers)
def test_a_chart_counts_every_number_once(values: list[float]) -> None:
    """Whatever the numbers, each is in one bar, and in the one that says so."""
    chart = chart_of("n", "n", pd.Series(values, dtype="Float64"))

    assert (chart is None) == (not values)
    if chart is not None:
        assert sum(bar.count for bar in chart.bars) == len(values)
        for bar in chart.bars:
            if bar.low is not None:
                high = float("inf") if bar.high is None else bar.high
                assert bar.count == sum(bar.low <= value < high for value in values)


def test_a_review_is_proposed_of_as_many_rows_as_there_are(tmp_path: Path) -> None:
    """Promise 9: no call is proposed for 100 rows where five are usable, or none could be."""
    frame, labels = goods({"Kitchen": 6})
    card = answered(frame, [*labels[:5], "a car"], tmp_path, labels=GOODS)._repr_html_()
    ask = "And {{ title }}?"  # other requests, or the first job's answers would be reused
    nothing = answered(frame, ["a car"] * 6, tmp_path, ask, labels=GOODS)._repr_html_()

    assert card.count("job.review(n=5)") == 2  # as what is right, and as a next call
    assert "n=100" not in card
    assert "job.review" not in nothing


def test_the_first_lines_tell_usable_from_right(browser: Chromium, tmp_path: Path) -> None:
    """Promise 11: without reviewed rows no figure but how to get one; then one with bounds."""
    frame, labels = goods({"Kitchen": 60, "Garden": 40})
    job = answered(frame, labels, tmp_path, labels=GOODS)
    browser.show(job.report(tmp_path / "before.html"))
    before = browser.ask("document.querySelector('.verdict').innerText")
    review = job.review(n=50)
    sheet = review.to_csv(tmp_path / "r.csv").read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(sheet)))
    own = dict(zip(frame.index, labels, strict=True))
    for i, row in enumerate(rows):
        row["correct"] = own[row["sku"]] if i % 2 else "Toys"
    with (tmp_path / "r.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    job.add_review(tmp_path / "r.csv")
    browser.show(job.report(tmp_path / "after.html"))
    after = browser.ask("document.querySelector('.verdict').innerText")
    browser.screenshot(tmp_path / "after.png")

    assert "100%" in before
    assert f"df.llmbatch.review('{job.id}', n=100)" in before
    assert "good" not in before
    # 25 of 50 rows out of 100: exact bounds at the effective size 50 * 99 / 50
    assert "50 % [40–60]\nright: 50 reviewed" in after  # noqa: RUF001 - a range
    assert "Not checked" not in after
