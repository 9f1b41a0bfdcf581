"""A pytest plugin: what another project's tests give to pydantic classes, read as answers.

Each class that is validated while those tests run becomes a job of its own: submitted, answered
with the same texts and with variations of them, and collected twice, with the class and without.
`foreign_suites.py` runs it.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel

import frameenrich
from frameenrich.answers import class_rules
from frameenrich.errors import FrameEnrichError, FrameEnrichWarning

Json = Any
MOST_TEXTS = 40
"""So many answers of a class are enough: some tests feed thousands."""

MOST_ALIKE = 2
"""So many classes of one name and schema; their code may differ all the same."""

SEEN: dict[type[BaseModel], dict[str, None]] = {}
OWN = os.environ.get("FOREIGN_OWN", "")
"""Modules that begin so are the package itself, no tests."""


def pytest_configure(config: pytest.Config) -> None:
    """Listen at the three ways in; `__init__` has to stay the one that pydantic knows."""
    del config
    first = BaseModel.__init__

    def init(self: Any, /, **data: Any) -> None:
        _note(type(self), data)
        first(self, **data)

    init.__pydantic_base_init__ = True  # type: ignore[attr-defined]
    BaseModel.__init__ = init  # type: ignore[method-assign]
    for name in ("model_validate", "model_validate_json"):
        _listen(name)


def _listen(name: str) -> None:
    before = getattr(BaseModel, name).__func__

    def spied(cls: type[BaseModel], given: Any, *args: Any, **options: Any) -> Any:
        _note(cls, given)
        return before(cls, given, *args, **options)

    setattr(BaseModel, name, classmethod(spied))


def _note(cls: type[BaseModel], given: Any) -> None:
    """Keep what could be an answer: JSON whose top is an object."""
    if OWN and cls.__module__.startswith(OWN):
        return
    try:
        value = json.loads(given) if isinstance(given, str | bytes) else given
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError, AttributeError):
        return
    if isinstance(value, dict) and json.loads(text) == value:
        texts = SEEN.setdefault(cls, {})
        for each in (text, *map(json.dumps, _variations(value))):
            if len(texts) < MOST_TEXTS:
                texts[each] = None


def _variations(value: dict[str, Json]) -> Iterator[dict[str, Json]]:
    """Yield an object with a property less, a property more, and other types."""
    for name, own in value.items():
        yield {k: v for k, v in value.items() if k != name}
        others: list[Json] = [None, "x", -1, 2.5, [], {}, str(own)]
        for other in others:
            yield {**copy.deepcopy(value), name: other}
    yield {**value, "one_more": 1}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Read everything that was noted, and leave the counts."""
    del session
    found, told = Counter[str](), list[str]()
    alike = Counter[tuple[str, str]]()
    # In memory where the system has a disk of it: each job syncs its files a dozen times.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        for number, (cls, texts) in enumerate(SEEN.items()):
            # A parametrized test makes its class anew each time.
            own = (f"{cls.__module__}.{cls.__qualname__}", _schema_text(cls))
            alike[own] += 1
            if alike[own] > MOST_ALIKE:
                found["classes left out, as two of the same name and schema were read"] += 1
                continue
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    _compare(cls, list(texts), Path(folder) / str(number), caught, found, told)
                except Exception as error:  # noqa: BLE001 - counted, and the others go on
                    found["classes that break something, SILENT"] += 1
                    told.append(f"{own[0]}: {error!r}"[:600])
    Path(os.environ["FOREIGN_COUNTS"]).write_text(json.dumps([found, told]))


def _compare(
    cls: type[BaseModel],
    texts: list[str],
    store: Path,
    caught: list[warnings.WarningMessage],
    found: Counter[str],
    told: list[str],
) -> None:
    """Submit a class, answer, collect with it and without, and count where the three agree."""
    frame = pd.DataFrame({"text": texts})
    try:
        job = frame.llmbatch.submit(
            "{{ text }}", "m", response_model=cls, provider="file", store=store, prefix="out_"
        )
    except FrameEnrichError:
        found["classes that submit refuses"] += 1  # before anything is sent
        return
    except Exception as error:  # noqa: BLE001 - classes whose schema pydantic itself cannot make
        if _schema_text(cls):
            told.append(f"{cls.__module__}.{cls.__qualname__}: submit: {error!r}"[:300])
        found["classes without a JSON Schema"] += 1
        return
    found["classes"] += 1
    answer(job, store.with_suffix(".jsonl"))
    own = _read(job.collect(frame))
    class_rules._kept.clear()
    class_rules._warned.clear()
    caught.clear()
    stored = _read(frameenrich.open_job(job.id, store).collect(frame))
    warned = any(issubclass(w.category, FrameEnrichWarning) for w in caught)
    for text, mine, other in zip(texts, own, stored, strict=True):
        found["answers"] += 1
        right = _is_valid(cls, text)
        if (mine[0] == "ok") != right:
            found["with the class: pydantic says otherwise"] += 1
            told.append(f"{cls.__qualname__} {text}: pydantic {right}, here {mine}"[:300])
        if mine == other:
            continue
        kind = "value" if mine[0] == other[0] == "ok" else "status"
        found[f"without the class: another {kind}, {'warned of' if warned else 'SILENT'}"] += 1
        if not warned:
            told.append(f"{cls.__qualname__} {text}: {mine} became {other}"[:300])


def answer(job: frameenrich.Job, path: Path) -> None:
    """Answer each request with its own text."""
    with path.open("w") as file:
        for requests in job.requests:
            for line in Path(requests).read_text().splitlines():
                request = json.loads(line)
                said = request["body"]["messages"][-1]["content"]
                choice = {"message": {"content": said}, "finish_reason": "stop"}
                response = {"status_code": 200, "body": {"choices": [choice]}}
                whole = {"custom_id": request["custom_id"], "response": response, "error": None}
                file.write(json.dumps(whole) + "\n")
    job.import_responses(path)


def _read(out: pd.DataFrame) -> list[tuple[str, str]]:
    """Return each row's status, and its values as text."""
    values = [name for name in out if str(name).startswith("out_")]
    rows = out[values].astype(object).to_dict("records")
    return list(zip(out["llmbatch_status"].astype(str), map(repr, rows), strict=True))


def _is_valid(cls: type[BaseModel], text: str) -> bool:
    try:
        cls.model_validate_json(text)
    except Exception:  # noqa: BLE001 - validators raise what they like
        return False
    return True


def _schema_text(cls: type[BaseModel]) -> str:
    """Return a class's JSON Schema; empty where pydantic itself cannot make it."""
    try:
        return json.dumps(cls.model_json_schema(), sort_keys=True)
    except Exception:  # noqa: BLE001 - whatever pydantic raises
        return ""
