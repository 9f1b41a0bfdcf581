"""Promise 7: secrets stay out, data is never code, names stay inside, displays are harmless."""

from __future__ import annotations

import ast
import logging
import os
import re
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from audit import ASK, check_rows, finish, shelf
from batch_server import BatchServer, Reply
from batch_server.books import ApiError
from conftest import ROOT, status_counts

import frameenrich
from frameenrich import errors
from frameenrich.providers.openai.batch import OpenAIBatch

KEY = "sk-PLANTED0123456789abcdef"
BARE_KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"  # Azure's look like this: no prefix tells them
ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp.exe"


# --- secrets -------------------------------------------------------------------------------------


class LeakyServer(BatchServer):
    """Puts the caller's key in every error message and every batch's metadata-free words."""

    def create_batch(self, asked: dict[str, Any], project: str) -> dict[str, Any]:
        """Fail once with the key, then work."""
        if self.leak("create"):
            raise ApiError(
                500, f"Key {project} is having a bad day. Authorization: Bearer {project}"
            )
        return super().create_batch(asked, project)

    def poll_batch(self, batch_id: str, project: str) -> dict[str, Any]:
        """Refuse with the key."""
        if self.leak("poll"):
            raise ApiError(403, f"Your key {project} may not look. Bearer {project}")
        return super().poll_batch(batch_id, project)

    def _fail(self, batch: Any, errors: list[dict[str, Any]]) -> None:
        said = f"Refused for {batch.project} (Authorization: Bearer {batch.project})"
        super()._fail(batch, [{**each, "message": said, "param": said} for each in errors])

    def leak(self, where: str) -> bool:
        """Whether to misbehave here: twice each."""
        counts: dict[str, int] = self.__dict__.setdefault("leaks", {})
        counts[where] = counts.get(where, 0) + 1
        return counts[where] <= 2


@pytest.fixture(params=[KEY, BARE_KEY], ids=["sk", "bare"])
def key(request: pytest.FixtureRequest) -> str:
    """The secret."""
    secret: str = request.param
    return secret


@pytest.fixture
def leaky(key: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LeakyServer, OpenAIBatch]]:
    """A leaky server, and a provider whose client holds the key; the environment does, too."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with LeakyServer() as server, openai.OpenAI(base_url=server.base_url) as client:
        assert client.api_key == key
        yield server, OpenAIBatch(client, attempts=2, wait_seconds=0.01)


def shown(error: BaseException) -> str:
    """All that a person sees of an exception, and all that it carries."""
    return f"{error} {error!r} {vars(error)} {error.args}" + "".join(
        traceback.format_exception(error)
    )


def test_the_key_is_nowhere(
    key: str,
    leaky: tuple[LeakyServer, OpenAIBatch],
    store: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """No file, log, repr, page or traceback holds the key, though the server repeats it often."""
    caplog.set_level(logging.DEBUG)
    server, provider = leaky
    frame = shelf(4)
    seen: list[str] = []
    server.faults.add("fails_after_validating", code=f"code {key}")

    def attempt(verb: Callable[[], Any]) -> None:
        try:
            seen.append(repr(verb()))
        except (errors.ProviderError, errors.FrameEnrichWarning) as error:
            seen.append(shown(error))

    def send(confirm_seconds: float) -> Any:
        options = {"provider": provider, "store": store, "confirm_seconds": confirm_seconds}
        return frame.llmbatch.submit(ASK, "m", **options)

    attempt(lambda: send(3600))
    assert "unconfirmed" in seen[-1]  # a 500 may have made it: looked for before it is made again
    while not server.batches:
        job = send(0)
    attempt(lambda: job.collect(frame))
    attempt(job.status)
    assert any("HTTP 403" in text for text in seen)
    out = finish(frame, job)
    check_rows(out, frame, dict.fromkeys(frame.index, "failed"))
    assert "Refused for ***" in out["llmbatch_error"].iloc[0]
    again = finish(frame, job.regenerate())
    assert status_counts(again) == {"ok": 4}

    seen += [repr(job), str(job), job._repr_html_(), repr(provider), str(job.status())]
    seen += [
        out.to_csv(),
        again.to_csv(),
        job.flagged(frame).to_csv(),
        frameenrich.jobs(store).to_csv(),
    ]
    seen += [f"{r.getMessage()} {r.args} {r.exc_text}" for r in caplog.records]
    seen += list(capfd.readouterr())
    files = [path for path in store.rglob("*") if path.is_file()]
    assert len(files) >= 8
    seen += [path.read_bytes().decode("latin-1") for path in files]
    for text in seen:
        assert key not in text
        assert "authorization: bearer" not in text.lower()
        assert "PLANTED" not in text


def test_no_key_is_asked_for_by_name(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key the error names the variable; with a wrong one it does not show it."""
    with pytest.raises(errors.CredentialsError, match="OPENAI_API_KEY"):
        shelf(2).llmbatch.submit(ASK, "m", store=store)

    with BatchServer(require_key="sk-another-key") as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        with pytest.raises(errors.ProviderError, match="Check the API key") as caught:
            shelf(2).llmbatch.submit(ASK, "m", store=store)
    assert KEY not in shown(caught.value)


# --- data is never code --------------------------------------------------------------------------

SANDBOX_ESCAPES = [
    "{{ title.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ title['__class__'] }}",
    "{{ title|attr('__class__') }}",
    "{{ title|attr('__cl' ~ 'ass__') }}",
    "{{ [title]|map(attribute='__class__')|first }}",
    "{{ ([title]|map('attr', '__class__')|list)[0].mro() }}",
    "{{ row.__class__.__base__ }}",
    "{{ row|attr('__init__')|attr('__globals__') }}",
    "{{ row['__class__'] }}",
    "{{ '{0.__class__}'.format(title) }}",
    "{{ '{x.__class__}'.format_map({'x': title}) }}",
    "{{ ('{0.__class__}'|attr('format'))(title) }}",
    "{{ (['{0.__class__}']|map(attribute='format')|list)[0](title) }}",
    "{{ '{0.__class__.__mro__}'|format }}{{ title.format.__self__.__class__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].system('id') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.environment.compile }}",
    "{{ dict.__subclasses__() }}",
    "{{ ([1]|select).gi_frame.f_globals }}",
    "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% set x = title.__class__ %}{{ x }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system }}",
    "{{ range(1000000000)|list }}",
    "{{ url_for.__globals__ }}",
    "{{ config }}",
]


@pytest.mark.parametrize("template", SANDBOX_ESCAPES)
@pytest.mark.parametrize("role", ["user", "system"])
def test_sandbox_escapes_are_refused(
    role: str, template: str, client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """No way out of the template is known to us: refused with a sentence, nothing sent or kept."""
    wishes = {"template": template} if role == "user" else {"template": ASK, "system": template}

    with pytest.raises(errors.TemplateError) as caught:
        shelf(2).llmbatch.submit(model="m", client=client, store=store, **wishes)

    assert caught.value.fix
    assert server.requests == []
    assert frameenrich.jobs(store).empty


CODE = [
    "{{7*7}}",
    "{{ title.__class__ }}",
    "{% for x in range(9) %}x{% endfor %}",
    "{# gone #}",
    "{% raw %}",
    "#{7*7} ${7*7} <%= 7*7 %>",
    "{{ row }}",
]


def test_row_data_stays_text(client: openai.OpenAI, store: Path, server: BatchServer) -> None:
    """Braces in cells, keys and answers are text: sent, answered and sent back as they are."""
    frame = pd.DataFrame({"title": CODE}, index=[f"{{{{{n}*7}}}}" for n in range(len(CODE))])
    job = frame.llmbatch.submit(
        "{{ title }}", "m", system="{{ title }}", client=client, store=store
    )

    out = frame.llmbatch.collect(job, wait=True, poll_seconds=0.01)

    assert out["llmbatch"].tolist() == [f"echo: {text}" for text in CODE]
    assert out.index.tolist() == frame.index.tolist()
    sent = pd.read_json(job.requests[0], lines=True)["body"]
    assert [body["messages"][0]["content"] for body in sent] == CODE


def test_an_answer_stays_text_when_it_is_sent_back(
    client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """Regenerate shows a bad answer to the model as it was; it is no template."""
    server.faults.add("malformed", content="{{7*7}} {% raw %}", times=1)
    frame = shelf(1)
    job = frame.llmbatch.submit(ASK, "m", labels=["a", "b"], client=client, store=store)
    job.wait(poll_seconds=0.01).regenerate()

    messages = pd.read_json(job.requests[1], lines=True)["body"][0]["messages"]

    assert messages[-2] == {"role": "assistant", "content": "{{7*7}} {% raw %}"}


# --- files and names -----------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
@pytest.mark.parametrize("made_before", [False, True], ids=["our folder", "the user's folder"])
def test_others_cannot_read_the_store(
    made_before: bool, client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """Rows and answers lie in folders of mode 0700, whatever the umask."""
    before = os.umask(0)
    try:
        if made_before:
            store.mkdir(mode=0o755)
        server.faults.add("http_error", where=["row-T-01"])
        job = shelf(3).llmbatch.submit(ASK, "m", client=client, store=store)
        job.wait(poll_seconds=0.01).regenerate().wait(poll_seconds=0.01)
    finally:
        os.umask(before)

    folders = [path for path in Path(job.path).rglob("*") if path.is_dir()]
    private = [Path(job.path), *folders, *([] if made_before else [store])]
    assert len(folders) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o700}


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "a/b",
        "/etc/x",
        "CON",
        "..",
        ".",
        "~",
        "a\\b",
        "🦊🦊",
        "-rf",
        "x" * 80,
        "nul.txt",
        "%2e%2e",
    ],
)
def test_names_cannot_leave_the_store(
    name: str, client: openai.OpenAI, store: Path, tmp_path: Path
) -> None:
    """Whatever a job is called, its folder lies in the store, and the column has that name."""
    frame = shelf(2)

    job = frame.llmbatch.submit(ASK, "m", name=name, client=client, store=store)
    out = frame.llmbatch.collect(job, wait=True, poll_seconds=0.01)

    assert Path(job.path).resolve().parent == store.resolve()
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*-[0-9a-f]{16}", job.id)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert out[name].notna().all()
    assert frameenrich.open_job(job.id, store).spec.name == name


@pytest.mark.parametrize("name", ["x" * 300, "", " ", "a\nb", "a\0b", "\x1b[31m"])
def test_impossible_names_are_refused(
    name: str, client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """A name that cannot be a column's is refused, without being printed raw."""
    with pytest.raises(errors.ParameterError, match="name=") as caught:
        shelf(2).llmbatch.submit(ASK, "m", name=name, client=client, store=store)

    assert str(caught.value).isprintable()
    assert server.requests == []


def test_keys_cannot_leave_the_store(client: openai.OpenAI, store: Path, tmp_path: Path) -> None:
    """Index labels that look like paths name rows, never files."""
    labels = ["../../x", "/etc/passwd", "a\0b", "..", "C:\\x", "x" * 500]
    frame = shelf(len(labels)).set_axis(labels)

    job = frame.llmbatch.submit(ASK, "m", client=client, store=store)
    out = frame.llmbatch.collect(job, wait=True, poll_seconds=0.01, usage=True)

    check = out["llmbatch_custom_id"].str.fullmatch(r"[A-Za-z0-9_-]{1,64}")
    assert check.all()
    assert out["llmbatch_status"].eq("ok").all()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("job_id", ["../store", "..", "a/../..", "x\0", "🦊", "", "a" * 300])
def test_ids_cannot_leave_the_store(job_id: str, store: Path) -> None:
    """`open_job` and ``collect(job=...)`` open what is in the store, nothing else."""
    with pytest.raises(errors.JobNotFoundError):
        frameenrich.open_job(job_id, store)
    with pytest.raises(errors.JobNotFoundError):
        shelf(2).llmbatch.collect(job_id, store=store)


# --- what a model says ---------------------------------------------------------------------------

HOSTILE = [
    "=cmd|'/c calc'!A1",
    "<script>alert(1)</script>",
    "{{7*7}}{% raw %}",
    ESCAPES,
    "@SUM(A1)\t+1-1",
    "'; DROP TABLE jobs; --",
    "a\r\nb\0c",
]


def test_answers_reach_the_frame_unchanged(store: Path) -> None:
    """Formulas, tags, templates and terminal escapes are data: not a character is touched."""
    frame = shelf(len(HOSTILE))
    said = iter(HOSTILE)
    answers = {f"row-{key}": next(said) for key in frame.index}
    with (
        BatchServer(answer=lambda _, custom_id: Reply(content=answers[custom_id])) as server,
        openai.OpenAI(api_key="sk-test", base_url=server.base_url) as client,
    ):
        job = frame.llmbatch.submit(ASK, "m", client=client, store=store)
        out = finish(frame, job)

    assert out["llmbatch"].tolist() == HOSTILE
    assert job.collect(frame, usage=True)["llmbatch_raw"].tolist() == HOSTILE


def test_our_pages_escape_everything(client: openai.OpenAI, store: Path) -> None:
    """Model names, job names and cells in our HTML are text, not markup."""
    evil = "<img src=x onerror=alert(1)>"
    frame = pd.DataFrame({"title": [f"{evil}&\"'"]}, index=[evil])

    preview = frame.llmbatch.preview("{{ title }}", "m", system=evil, name=evil)
    job = frame.llmbatch.submit("{{ title }}", evil, name=evil, client=client, store=store)

    for page in (preview._repr_html_(), job._repr_html_()):
        assert "<img" not in page
        assert "&lt;img" in page


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("wish", ["text", "labels", "schema", "constraint", "parser"])
def test_reasons_do_not_drive_the_terminal(
    wish: str, client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """``_error`` quotes refusals, provider errors and bad answers without control characters."""

    def refuse(text: str) -> str:
        raise ValueError(f"cannot read {text}")

    wishes: dict[str, dict[str, Any]] = {
        "text": {},
        "labels": {"labels": ["a", "b"]},
        "schema": {"response_model": {"n": int}},
        "constraint": {
            "response_model": {
                "type": "object",
                "properties": {"n": {"type": "string", "pattern": "^x$"}},
                "required": ["n"],
            }
        },
        "parser": {"parser": refuse},
    }
    content = {"constraint": f'{{"n": "{ESCAPES}"}}', "schema": f'{{"n": "{ESCAPES}"}}'}
    server.faults.add("refused", where=["row-T-00"], message=f"No. {ESCAPES}")
    server.faults.add("http_error", where=["row-T-01"], message=ESCAPES, code=ESCAPES)
    server.faults.add("malformed", where=["row-T-02"], content=content.get(wish, ESCAPES))
    frame = shelf(3)

    job = frame.llmbatch.submit(ASK, "m", client=client, store=store, **wishes[wish])
    out = finish(frame, job)

    expected = ["refused", "failed", "ok" if wish == "text" else "malformed"]
    assert out["llmbatch_status"].tolist() == expected
    for reason in [*out["llmbatch_error"].dropna(), *job.flagged(frame)["error"]]:
        assert not CONTROL.search(reason), reason
    assert "red" in out["llmbatch_error"].iloc[0]


def test_a_providers_words_do_not_drive_the_terminal(
    provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Statuses and batch errors with escapes are cleaned before they are shown or raised."""
    server.faults.add("unknown_status", word=ESCAPES, status="validating")
    server.faults.add("fails_after_validating", message=ESCAPES, code=ESCAPES)
    frame = shelf(2)
    job = frame.llmbatch.submit(ASK, "m", provider=provider, store=store)
    server.hold("validating")

    with pytest.raises(errors.WaitTimeoutError) as caught:
        job.wait(timeout=0, poll_seconds=0.01)
    texts = [str(caught.value), repr(job), str(job.status()), job._repr_html_()]
    server.release()
    texts += [str(reason) for reason in finish(frame, job)["llmbatch_error"]]

    for text in texts:
        assert not CONTROL.search(text), text
        assert "\x1b" not in text


# --- the source ----------------------------------------------------------------------------------

SOURCES = sorted((ROOT / "frameenrich").rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "subprocess"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def test_the_only_process_started_is_the_reader_of_workbooks() -> None:
    """Python itself runs our own file, by its path and without a shell: no data names a program."""
    tree = ast.parse((ROOT / "frameenrich/cli/tables/workbook.py").read_text(encoding="utf-8"))
    used = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "subprocess"
    ]
    (call,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "subprocess.run"
    )

    assert sorted(used) == ["subprocess.PIPE", "subprocess.run"]
    assert ast.unparse(call.args[0]).startswith("[sys.executable, '-P', sheet_reader.__file__,")
    assert {word.arg for word in call.keywords} == {"input", "stdout", "stderr", "env", "check"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_source_runs_no_data(source: Path) -> None:
    """No pickle, no eval, no shell: what is read from disk or network is never run."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    attributes = {
        f"{getattr(node.value, 'id', '')}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    }
    shells = {"os.system", "os.popen", "pd.read_pickle", "np.load"}

    assert imported & FORBIDDEN_MODULES == (
        {"subprocess"} if source.name == "workbook.py" else set()
    )
    assert called & FORBIDDEN_CALLS == set()
    assert attributes & shells == set()
    assert not any(name.endswith("_pickle") for name in attributes)
