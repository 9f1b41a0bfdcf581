"""Promise 9: whatever is written wrong in a call, one sentence says how to write it."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import frameenrich
from frameenrich.errors import FrameEnrichError, FrameEnrichWarning, JobNotFoundError

FRAME = pd.DataFrame({"title": ["Red mug", "Blue hose"], "price": [1.0, 2.0]})
TABLE = pa.table({"sku": ["a", "b"], "title": ["Red mug", "Blue hose"]})

WRONG: tuple[Any, ...] = (
    5, -1, 2.5, float("nan"), "x", "", b"x", [], ["x"], [5], {}, {"x": 5}, {5: 5}, (), object(),
    True, None, pd.NA, "\ud800", Path("none"), np.int64(3), FRAME, FRAME["title"], int, len,
)  # fmt: skip


@pytest.fixture
def job(store: Path) -> frameenrich.Job:
    """A job that nobody sends."""
    return frameenrich.llmbatch(FRAME).submit("{{ title }}", "m", provider="file", store=store)


CALLS: dict[str, str] = {
    "df.submit('{{ title }}')": "submit() was not given 'model'. Write submit(template, model).",
    "df.submit('{{ title }}', 'm', 'Be kind')": "takes only template and model without a name. "
    "Write the name, too: system=..., name=..., response_model=...",
    "df.submit('a', 'm', template='b')": "was given 'template' twice",
    "df.submit('{{ title }}', 'm', fresh='yes')": "fresh= is 'yes', which is not True or False.",
    "df.submit('{{ title }}', 'm', prefix=5)": "prefix= is 5, which is not a text.",
    "df.submit('{{ title }}', 'm', image_root=None)": "image_root= is None, which is not a path.",
    "df.submit('{{ title }}', 'm', on_null=FRAME)": "on_null= is a DataFrame, which is not a text.",
    "df.submit('{{ title }}', 5)": "model= is 5, which names no model.",
    "df.submit('gpt-4o-mini', '{{ title }}')": "model= is '{{ title }}', which is a template. "
    "The template comes first, then the model.",
    "df.preview('{{ title }}', 'm', n='3')": "n= is '3', which is not a whole number. Write n=3.",
    "df.pilot('{{ title }}', 'm', n=2.5)": "n= is 2.5, which is not a whole number. Write n=3.",
    "df.review()": "review() was not given 'n'. Write review(n=...).",
    "df.status(1, 2)": "status() takes only job without a name.",
    "df.sumbit('{{ title }}', 'm')": "df.llmbatch has no 'sumbit'. Did you mean 'submit'?",
    "df.tolist()": "A column of that name is written df['llmbatch'].",
    "df.collect(wait=True, timeout='1 h')": "timeout= is '1 h', which is not a number of seconds",
    "job.regenrate()": "A job has no 'regenrate'. Did you mean 'regenerate'?",
    "job.requets": "A job has no 'requets'. Did you mean 'requests'?",
    "job.regenerate(status=['failed'])": "Did you mean 'statuses'?",
    "job.wait(timout=5)": "wait() has no option 'timout'. Did you mean 'timeout'?",
    "job.wait(poll_seconds=-1)": "poll_seconds= is -1, which is not a number of seconds",
    "job.flagged(['x'])": "frame= is a list, which is not a DataFrame. Write frame=df or leave",
    "job.evaluate(level='0.95')": "level= is '0.95', which is not a share. Write level=0.95.",
    "job.compare(5)": "holds no job 5, by id or by name.",
    "job.give_up(force='no')": "force= is 'no', which is not True or False.",
    "df.jobs(store=b'x')": "store= is b'x', which is not a folder or a URL.",
    "job.collect(overwrit=True)": "Did you mean 'overwrite'?",
    "job.report(labls=['a'])": "Did you mean 'labels'?",
    "frameenrich.colect": "frameenrich has no 'colect'. Did you mean 'collect'?",
    "frameenrich.Jobs()": "frameenrich has no 'Jobs'. Did you mean 'jobs'?",
    "frameenrich.jobs(stor='x')": "Did you mean 'store'?",
    "frameenrich.open_job()": "open_job() was not given 'id'. Write open_job(id).",
    "frameenrich.clean(older='30d')": "Did you mean 'older_than'?",
    "frameenrich.submit(TABLE, '{{ title }}')": "was not given 'model' and 'key'. "
    "Write submit(table, template, model, key=...).",
    "frameenrich.llmbatch(TABLE).flaged()": "Did you mean 'flagged'?",
    "frameenrich.llmbatch(TABLE).job(stor='x')": "Did you mean 'store'?",
}


@pytest.mark.parametrize("call", CALLS)
def test_what_is_written_wrong_is_told_how_to_write(call: str, job: frameenrich.Job) -> None:
    """A name, a missing argument, one too many, a value of another kind."""
    with pytest.raises(FrameEnrichError) as caught:
        eval(call, globals() | {"df": FRAME.llmbatch, "job": job})

    assert CALLS[call] in str(caught.value)


def test_a_missing_name_is_still_an_attribute_error(job: frameenrich.Job) -> None:
    """As `hasattr`, `copy` and `pickle` go by it."""
    assert not hasattr(job, "colect")
    assert not hasattr(FRAME.llmbatch, "sumbit")
    assert not hasattr(frameenrich, "colect")
    assert copy.copy(job).id == pickle.loads(pickle.dumps(job)).id == job.id


def made(call: Callable[..., Any], **given: Any) -> Any:
    """Return what a call makes, None where it is refused in our own words; let no other pass."""
    with warnings.catch_warnings(action="ignore", category=FrameEnrichWarning):
        try:
            return call(**given)
        except FrameEnrichError:
            return None


OPTIONS = [name for name in inspect.signature(FRAME.llmbatch.submit).parameters if name != "store"]


@pytest.mark.parametrize("option", OPTIONS)
def test_submit_refuses_or_takes_whatever_it_is_given(option: str, tmp_path: Path) -> None:
    """And what it takes is a job that can be opened, not one that its own store cannot read."""
    for value in WRONG:
        given: dict[str, Any] = {"template": "{{ title }}", "model": "m", "provider": "file"}
        given |= {option: value, "store": tmp_path}
        job = made(FRAME.llmbatch.submit, **given)
        if job is not None:
            assert frameenrich.open_job(job.id, tmp_path).spec.provider == "file"


VERBS = ["collect", "flagged", "evaluate", "finish", "regenerate", "report", "review", "status"]


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_of_a_job_refuse_or_take_whatever_they_are_given(
    verb: str, job: frameenrich.Job, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No argument of another kind comes out as an error of Python's own."""
    monkeypatch.chdir(store)
    method = getattr(FRAME.llmbatch, verb)
    parameters = inspect.signature(method).parameters
    for name in sorted(set(parameters) - {"client", "provider"}):
        for value in WRONG:
            given = {"job": job, "store": store, "n": 1, "timeout": 0} | {name: value}
            if name == "timeout" and (value is None or isinstance(value, float | np.int64)):
                continue  # it would wait
            made(method, **{each: given[each] for each in given if each in parameters})


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        *[("compare", "other"), ("withdraw_import", "which"), ("import_responses", "path")],
        *[("requests_by_custom_id", "custom_ids"), ("add_review", "path"), ("report", "path")],
        *[(verb, "frame") for verb in ("collect", "flagged", "regenerate")],
        *[("regenerate", "model"), ("review", "by"), ("evaluate", "level"), ("give_up", "force")],
    ],
)
def test_arguments_of_a_jobs_own_verbs_are_refused_or_taken(
    verb: str, name: str, job: frameenrich.Job, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame that is a list, a share that is a text, another job that is a number."""
    monkeypatch.chdir(store)
    for value in WRONG:
        made(getattr(job, verb), **{name: value}, **({"n": 1} if verb == "review" else {}))


def test_embed_takes_params_of_no_other_kind() -> None:
    """Also where dimensions= goes into them, and preview looks at a client that is a frame."""
    for value in WRONG:
        assert made(FRAME.llmbatch.embed, template="{{ title }}", model="m", params=value,
                    provider="file", dimensions=5) is None or value in (None, {})  # fmt: skip


def test_a_damaged_job_does_not_stand_for_one_that_is_not_there(
    job: frameenrich.Job, store: Path
) -> None:
    """A name that no job has is said to be none, with a warning of what cannot be read."""
    damaged = FRAME.llmbatch.submit("{{ title }}!", "m", provider="file", store=store, name="kind")
    (Path(damaged.path) / "sidecar.parquet").write_bytes(b"no Parquet")

    with (
        pytest.warns(FrameEnrichWarning, match="damaged job was passed over"),
        pytest.raises(JobNotFoundError, match="holds no job 'nope'"),
    ):
        FRAME.llmbatch.collect("nope", store=store)
