"""Promise 9 in a real kernel: a first day in a notebook, with the mistakes that people make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer
from jupyter_client.manager import start_new_kernel

ANSI = re.compile(r"\x1b\[[0-9;]*m")
CELL_SECONDS = 60


@dataclass
class Ran:
    """What a notebook shows of a cell."""

    error: str = ""
    error_name: str = ""
    told: str = ""
    shown: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Kernel:
    """A kernel, as a notebook talks to it."""

    manager: Any
    client: Any
    server: BatchServer

    def run(self, code: str, *, interrupt_at: str | None = None) -> Ran:
        """Run a cell; interrupt it when it has printed something."""
        asked, ran = self.client.execute(code), Ran()
        while True:
            message = self.client.get_iopub_msg(timeout=CELL_SECONDS)
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                ran.told += content["text"]
                if interrupt_at is not None and interrupt_at in ran.told:
                    self.manager.interrupt_kernel()
                    interrupt_at = None
            elif kind == "error":
                ran.error = ANSI.sub("", "\n".join(content["traceback"]))
                ran.error_name = content["ename"]
            elif kind in ("execute_result", "display_data"):
                ran.shown.append(content["data"])
            elif kind == "status" and content["execution_state"] == "idle":
                return ran


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for all tests here, beside a server; each test has a store of its own."""
    home = tmp_path_factory.mktemp("notebook")
    with BatchServer() as server, pytest.MonkeyPatch.context() as patch:
        for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
            (home / name).mkdir()
            patch.setenv(name, str(home / name))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        patch.setenv("OPENAI_API_KEY", "sk-test")
        patch.setenv("OPENAI_BASE_URL", server.base_url)
        manager, client = start_new_kernel(kernel_name="python3", cwd=str(home))
        try:
            yield Kernel(manager, client, server)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


@pytest.fixture
def day(kernel: Kernel, tmp_path: Path) -> Kernel:
    """The kernel with a frame, and a store that is empty."""
    kernel.server.faults.clear()
    kernel.server.release()
    kernel.run(
        f"""
        import os, pandas as pd, frameenrich
        os.environ["FRAMEENRICH_STORE"] = {str(tmp_path / "store")!r}
        df = pd.DataFrame({{"title": ["Red mug", "Blue hose"], "price": [3.0, None]}})
        """
    )
    return kernel


MISTAKES = {
    "df.llmbatch.submit('Sort {title}', 'gpt-4o-mini')": "Did you mean {{ title }}?",
    "df.llmbatch.submit('Sort {{ titel }}', 'gpt-4o-mini')": "Did you mean 'title'?",
    "df.llmbatch.submit('{{ price }}', 'gpt-4o-mini')": "pass on_null='empty' or 'skip'",
    "df.llmbatch.submit('ask.j2', 'gpt-4o-mini')": "looks like the name of a file",
    "df.llmbatch.submit('{{ title }}', 'gpt-4o-mini', respons_model={})": "'response_model'?",
    "df.llmbatch.collect()": "holds no job for this frame",
    "df.llmbatch.status('kidn')": "holds no job 'kidn', by id or by name",
    "frameenrich.open_job('kind')": "holds no job",
}


@pytest.mark.parametrize("code", MISTAKES)
def test_a_mistake_is_the_line_of_the_cell_and_the_sentence(code: str, day: Kernel) -> None:
    """Nothing of this package's own lines stands between the two."""
    ran = day.run(f"x = 1\n{code}")

    assert ran.error.startswith("Cell In[")
    where, line, *rest = ran.error.splitlines()
    assert where.endswith(", line 2")
    assert line == f"----> 2 {code}"
    (sentence,) = filter(None, rest)
    assert sentence.startswith(f"{ran.error_name}: ")
    assert MISTAKES[code] in sentence


def test_a_helper_of_the_users_own_is_shown_too(day: Kernel) -> None:
    """Where the mistake is made in a function, both lines are theirs."""
    ran = day.run("def ask():\n    return df.llmbatch.collect()\n\nask()")

    assert re.findall(r"line (\d)\n----> \d (.*)", ran.error) == [
        ("4", "ask()"),
        ("2", "return df.llmbatch.collect()"),
    ]


def test_an_interrupt_says_that_the_job_goes_on_and_how_to_come_back(day: Kernel) -> None:
    """What it says to type is typed, and gets the answers; nothing is paid twice."""
    day.server.hold("in_progress")
    before = len(day.server.batches)
    ran = day.run(
        """
        job = df.llmbatch.submit("Sort {{ title }}", "gpt-4o-mini", name="kind")
        import threading, time
        threading.Timer(0.3, lambda: print("waits", flush=True)).start()
        df.llmbatch.collect(wait=True)
        """,
        interrupt_at="waits",
    )

    assert ran.error_name == "JobInterruptedError"
    assert "goes on at the provider and is paid" in ran.error
    typed = re.search(r"df\.llmbatch\.collect\(.*?\)", ran.error)
    assert typed is not None
    day.server.release()
    again = day.run(f"out = {typed.group()}; print(out['kind_status'].tolist())")
    assert "['ok', 'ok']" in again.told
    assert len(day.server.batches) == before + 1


def test_a_warning_points_at_the_users_line(day: Kernel) -> None:
    """As of a cell that was corrected by hand: the cell and its line, not a module of ours."""
    ran = day.run(
        """
        job = df.llmbatch.submit("Sort {{ title }}", "gpt-4o-mini", name="kind")
        out = df.llmbatch.collect(wait=True, poll_seconds=0.02)
        out.loc[0, "kind"] = "Kitchen"
        out = out.llmbatch.collect()
        """
    )

    assert ran.error == ""
    assert "out = out.llmbatch.collect()" in ran.told
    assert "kept as somebody's correction" in ran.told
    assert "frameenrich/" not in ran.told
