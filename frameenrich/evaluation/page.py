"""A review's rows as one HTML page to judge them on, which needs nothing but itself.

Like the report's page: Jinja2 with everything escaped, rows as JSON that the script turns into text
nodes, and a content security policy that lets nothing else run and nothing be fetched. The model's
answer to a field with labels is not in the page at all, so no reviewer can be led by it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from frameenrich.evaluation.job_answers import as_text, own_message
from frameenrich.evaluation.sheet import key_columns
from frameenrich.rendering.thumbnails import thumbnail
from frameenrich.text import script_json

if TYPE_CHECKING:
    from frameenrich.evaluation.review import Review
    from frameenrich.rendering.readable import Prompt

_IMAGE_PIXELS = 900
_IMAGE_BYTES = 250_000
_MAX_IMAGE_CHARACTERS = 40_000_000
"""Browsers open a page of this size without delay; further images are only named."""


def review_page(review: Review) -> str:
    """Return the HTML text of a review's page."""
    # The page's policy lets only this script run, by its hash: row data can never become code.
    script = asset("evaluation", "review.js")
    return page_template("evaluation", "review.html.j2").render(
        job=review.record.job,
        rows=len(review),
        css=Markup(asset("evaluation", "review.css")),  # noqa: S704 - a file of this package
        js=Markup(script),  # noqa: S704 - likewise
        data=Markup(script_json(_payload(review))),  # noqa: S704 - see script_json
        script_hash=script_hash(script),
    )


def _payload(review: Review) -> dict[str, Any]:
    job, images = review.job, _Images()
    fields = list(job.fields.values())
    keys = [[as_text(v) for v in key.values()] for key in review.keys.to_pylist()]
    answers = [
        # Labels are judged blind: a reviewer who sees the model's label tends to agree with it.
        None if field.labels else [as_text(v) for v in job.values(field.name, review.positions)]
        for field in fields
    ]
    return {
        "review": review.id,
        "keyNames": key_columns(job.folder.key_names),
        "fields": [
            {"name": f.name, "labels": None if f.labels is None else [as_text(x) for x in f.labels]}
            for f in fields
        ],
        "rows": [
            {
                "key": keys[i],
                "before": [list(message) for message in _others(prompt)],
                "text": own_message(prompt),
                "images": [images.add(url) for url in prompt.images],
                "answers": [None if column is None else column[i] for column in answers],
            }
            for i, prompt in enumerate(job.prompts(review.positions))
        ],
        "images": images.urls,
    }


def _others(prompt: Prompt) -> Sequence[tuple[str, str]]:
    """Return the messages that the row was not rendered into."""
    own = own_message(prompt)
    return [(role, text) for role, text in prompt.messages if text != own]


class _Images:
    """The images of a page, each held once; texts for those that are not shown."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self._seen: dict[str, int | str] = {}
        self._characters = 0

    def add(self, url: str) -> int | str:
        """Return an image's number, or the text shown instead of it."""
        if url not in self._seen:
            self._seen[url] = self._new(url)
        return self._seen[url]

    def _new(self, url: str) -> int | str:
        # An address is shown as text: the page loads nothing, so that nobody learns what is
        # reviewed.
        if not url.startswith("data:"):
            return url
        small = None
        if self._characters < _MAX_IMAGE_CHARACTERS:
            small = thumbnail(url, max_pixels=_IMAGE_PIXELS, max_bytes=_IMAGE_BYTES)
        if small is None:
            return f"an image of {len(url) * 3 // 4:,} bytes, which is not in this page"
        self._characters += len(small)
        self.urls.append(small)
        return len(self.urls) - 1


@cache
def asset(folder: str, name: str) -> str:
    """Return the text of a page's file: its template, script or style."""
    return (files("frameenrich") / folder / "assets" / name).read_text(encoding="utf-8")


@cache
def page_template(folder: str, name: str) -> jinja2.Template:
    """Return the template of a page, with everything escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(asset(folder, name))


def script_hash(script: str) -> str:
    """Return the hash by which a content security policy lets one script run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
