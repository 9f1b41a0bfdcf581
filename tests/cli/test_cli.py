"""The command line as people and scripts use it: real processes, a real server, real signals."""

from __future__ import annotations

import base64
import contextlib
import csv
import fcntl
import gzip
import io
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main
import warm
import warm_cli
from batch_server import BatchServer, pick, row_name, unit_vector
from conftest import DEPARTMENTS, ROOT
from PIL import Image
from typer.testing import CliRunner, Result

from frameenrich.cli.main import _PANELS, app
from frameenrich.cli.terminal import print_rows
from frameenrich.text import escaped

COMMAND = [sys.executable, "-c", "from frameenrich.cli import main; main()"]
PRODUCTS = ROOT / "sample_data" / "products.csv"
ASK = ["--template", "Which department sells {{ title }}?", "--model", "gpt-4o-mini"]
LABELS = ["--labels", ",".join(DEPARTMENTS)]
FAST = ["--poll-seconds", "0.02"]
MUGS = "sku,title\r\n007,Red mug\r\n008,Blue hose\r\n"


@pytest.fixture(autouse=True)
def environment(server: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server and a key, as a user has them in the environment; MUGS lies in the folder."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-key-that-nobody-may-see")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    Path("mugs.csv").write_text(MUGS, newline="")


def frameenrich(
    *arguments: str | Path, stdin: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    done = warm_cli.run(*arguments, stdin=stdin)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Begin a command in a process of its own."""
    return warm.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def in_terminal(*arguments: str | Path, kill_at: str | None = None) -> str:
    """Run a command whose standard error is a terminal; all that was shown there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    child = warm.Popen([*COMMAND, *map(str, arguments)], stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux' word for the end
        while part := os.read(ours, 65536):
            shown += part
            if kill_at and kill_at.encode() in shown:
                child.kill()
    os.close(ours)
    child.wait(timeout=60)
    return shown.decode()


def here(*arguments: str | Path) -> Result:
    """Run a command in this process, where its own is not needed."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def until(is_so: Callable[[], object], seconds: float = 120) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def commands() -> dict[str, Any]:
    """Every command by name."""
    found: Any = typer.main.get_command(app)
    return dict(found.commands)


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_and_option_has_help(name: str) -> None:
    """A sentence for the command, and one for each option and argument of it."""
    command = commands()[name]

    assert command.help.strip().partition("\n")[0].endswith(".")
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name
    shown = here(name, "--help")
    assert (shown.exit_code, "Usage:" in shown.output) == (0, True)


def test_every_command_stands_in_a_panel_beside_its_own_examples() -> None:
    """No command falls out of the groups of ``--help``, nor shows another one's examples."""
    commands_ = commands()

    assert {command.rich_help_panel for command in commands_.values()} == set(_PANELS)
    for name, command in commands_.items():
        examples = (command.epilog or "").replace("\\\n", "").splitlines()[2:]
        assert {line.split()[1] for line in examples if line.startswith("  fr")} <= {name}


def test_the_verbs_are_there() -> None:
    """The command line mirrors the verbs of Python."""
    verbs = {"run", "submit", "status", "collect", "regenerate", "cancel", "jobs", "preview"}

    assert verbs <= set(commands())


@pytest.mark.slow
def test_shell_completion_can_be_installed() -> None:
    """The shell's completion names the commands."""
    env = {**os.environ, "_FRAMEENRICH_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    script = "import sys; sys.argv[0] = 'frameenrich'; from frameenrich.cli import main; main()"
    done = warm.run(
        [sys.executable, "-c", script],
        env={**env, "COMP_WORDS": "frameenrich re"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "regenerate" in done.stdout
    assert "run" not in done.stdout.split()


# --- run ----------------------------------------------------------------------------------------


def test_run_adds_the_answers_and_touches_nothing_else(server: BatchServer) -> None:
    """The sample catalogue through the server: right answers, and every other byte as it was."""
    done = frameenrich("run", PRODUCTS, "out.csv", *ASK, *LABELS, "--name", "dept", *FAST)

    assert (done.returncode, done.stdout) == (0, "")
    out = pd.read_csv("out.csv")
    wanted = [pick(DEPARTMENTS, f"Which department sells {title}?") for title in out["title"]]
    assert out["dept"].tolist() == wanted
    result = Path("out.csv").read_bytes()
    added = rb",dept,dept_status,dept_error(?=\n)|,(%s),ok,(?=\n)" % "|".join(DEPARTMENTS).encode()
    assert re.subn(added, b"", result) == (PRODUCTS.read_bytes(), 201)
    assert "Job dept-" in done.stderr
    assert "ok\t200" in done.stderr


def test_run_again_asks_nothing(server: BatchServer) -> None:
    """The same command again writes the same file and executes no row."""
    first = here("run", "mugs.csv", "out.csv", *ASK, *FAST)
    before = Path("out.csv").read_bytes()
    Path("out.csv").unlink()
    second = here("run", "mugs.csv", "out.csv", *ASK, *FAST)

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert Path("out.csv").read_bytes() == before
    assert set(server.executed.values()) == {1}
    assert len(server.executed) == 2


def test_standard_input_to_standard_output() -> None:
    """``-`` twice: data on stdout and nothing else there."""
    done = frameenrich(
        "run", "-", "-", "--format", "csv", *ASK, *FAST, "--json", stdin=MUGS.encode()
    )

    assert done.returncode == 0
    assert done.stdout == (
        "sku,title,llmbatch,llmbatch_status,llmbatch_error\r\n"
        "007,Red mug,echo: Which department sells Red mug?,ok,\r\n"
        "008,Blue hose,echo: Which department sells Blue hose?,ok,\r\n"
    )
    job, summary = done.stderr.splitlines()
    assert job.startswith("Job llmbatch-")
    assert json.loads(summary)["statuses"] == {"ok": 2}


def test_a_reader_that_stops_early_is_no_disaster() -> None:
    """``frameenrich run ... - | head -1`` ends without a traceback."""
    rows = "title\n" + "".join(f"thing {n} {'x' * 200}\n" for n in range(2000))
    Path("many.csv").write_text(rows)
    here("run", "many.csv", "out.csv", *ASK, *FAST)
    child = start("run", "many.csv", "-", *ASK, *FAST)
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline().startswith("title,llmbatch")
    child.stdout.close()

    said = child.stderr.read()
    child.stderr.close()
    assert child.wait(timeout=60) == 141
    assert "Traceback" not in said
    assert "Exception" not in said


@pytest.mark.parametrize("ending", ["tsv", "jsonl", "parquet", "csv.gz"])
def test_formats_by_file_ending(ending: str) -> None:
    """CSV in, any format out, and that one in again."""
    assert here("run", "mugs.csv", f"out.{ending}", *ASK, *FAST).exit_code == 0
    again = here("run", f"out.{ending}", "back.csv", *ASK, "--name", "again", *FAST)

    assert again.exit_code == 0
    back = pd.read_csv("back.csv", dtype=str)
    assert back["sku"].tolist() == ["007", "008"]
    assert back["again"].equals(back["llmbatch"])


@pytest.mark.parametrize("verb", ["run", "embed"])
@pytest.mark.parametrize("way", ["--stream", "--no-stream"])
def test_a_table_without_rows_needs_no_key_streamed_or_not(
    verb: str, way: str, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The empty file of a nightly script is done, however it is read."""
    monkeypatch.delenv("OPENAI_API_KEY")
    Path("none.csv").write_bytes(b"sku,title\r\n")

    done = here(verb, "none.csv", "out.csv", *ASK, "--name", "kind", way)

    assert (done.exit_code, server.requests) == (0, [])
    assert Path("out.csv").read_bytes() == b"sku,title,kind,kind_status,kind_error\r\n"


@pytest.mark.parametrize("way", ["--stream", "--no-stream"])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--key", "nokey"], "key column 'nokey' is not in the table"),
        (["--provider", "nosuch"], "There is no provider 'nosuch'"),
        (["--template", "{{ nope }}"], "'nope'"),
    ],
)
def test_wrong_options_are_told_without_rows_too(way: str, wrong: list[str], says: str) -> None:
    """The mistake shows tonight, not when the first row comes."""
    Path("none.csv").write_bytes(b"sku,title\r\n")
    done = here("run", "none.csv", "out.csv", *ASK, *wrong, way)

    assert done.exit_code == 2
    assert says in done.stderr
    assert not Path("out.csv").exists()


@pytest.mark.parametrize(
    ("source", "out", "written"),
    [
        ("none.csv", "out.csv", b"sku;title;kind;kind_status;kind_error\r\n"),
        ("none.csv", "-", b"sku;title;kind;kind_status;kind_error\r\n"),
        ("none.csv", "out.jsonl", b""),
        ("none.csv", "out.parquet", None),
        ("none.parquet", "out.parquet", None),
        ("none.parquet", "out.xlsx", None),
        ("none.xlsx", "out.xlsx", None),
        ("none.jsonl", "out.jsonl", b"\n"),
        ("none.json", "out.json", b"[]\n"),
    ],
)
def test_a_table_without_rows_is_done_at_once(
    source: str, out: str, written: bytes | None, server: BatchServer
) -> None:
    """A nightly script's empty file is no failure: exit 0, header and new columns, nothing sent."""
    Path("none.csv").write_bytes(b"sku;title\r\n")
    Path("none.jsonl").write_bytes(b"\n")
    Path("none.json").write_text("[]")
    nothing = pd.DataFrame({"sku": pd.Series(dtype="Int64"), "title": pd.Series(dtype="string")})
    nothing.to_parquet("none.parquet")
    nothing.to_excel("none.xlsx", index=False)
    ask = [
        *ASK,
        "--name",
        "kind",
        "--labels",
        "a,b",
        *(["--delimiter", ";"] if "csv" in source else []),
    ]

    done = here("run", source, out, *ask)

    assert (done.exit_code, server.requests) == (0, [])
    assert "holds no rows. Nothing was sent" in done.stderr
    if written is not None:
        assert (done.stdout_bytes if out == "-" else Path(out).read_bytes()) == written
    else:
        back = pd.read_excel(out, engine="calamine") if out.endswith("x") else pd.read_parquet(out)
        assert list(back.columns) == ["sku", "title", "kind", "kind_status", "kind_error"]
        assert len(back) == 0
    lost = here("run", source, out, "-t", "{{ nope }}", *ask[2:])
    assert lost.exit_code == (
        2 if "json" not in source else 0
    )  # a wrong column is told all the same


def test_limit_asks_for_the_first_rows_only(server: BatchServer) -> None:
    """A try-out of one row; the whole run later does not ask for it again."""
    here("run", "mugs.csv", "one.csv", *ASK, "--limit", "1", *FAST)
    assert len(pd.read_csv("one.csv")) == 1
    assert len(server.executed) == 1
    done = here("run", "mugs.csv", "two.csv", *ASK, *FAST)

    assert "1 answer came from the store" in done.stderr
    assert len(pd.read_csv("two.csv")) == 2
    assert sorted(server.executed.values()) == [1, 1]


def test_schema_key_params_system_and_usage() -> None:
    """A column a property, rows named by a column, parameters in the body, usage columns."""
    properties = {"color": {"type": "string"}, "n": {"type": "integer"}}
    schema = {
        "type": "object",
        "properties": properties,
        "required": ["color", "n"],
        "additionalProperties": False,
    }
    Path("schema.json").write_text(json.dumps(schema))
    Path("ask.j2").write_text("What is {{ title }}?")
    done = here(
        "run", "mugs.csv", "out.csv", "-t", "@ask.j2", "-m", "gpt-4o-mini", "--key", "sku",
        "--schema", "schema.json", "--prefix", "its_", "--param", "temperature=0",
        "--system", "Be brief.", "--usage", "--json", *FAST,
    )  # fmt: skip

    assert done.exit_code == 0, done.output
    out = pd.read_csv("out.csv")
    assert {"its_color", "its_n", "llmbatch_prompt_tokens", "llmbatch_raw"} <= set(out.columns)
    assert list(map(row_name, out["llmbatch_custom_id"])) == ["row-007", "row-008"]
    job = json.loads(done.stdout)["job"]
    lines = Path(f".frameenrich/{job}/round-0/shard-00000.requests.jsonl").read_text().splitlines()
    body = json.loads(lines[0])["body"]
    assert body["temperature"] == 0
    assert [message["content"] for message in body["messages"]] == ["Be brief.", "What is Red mug?"]


def test_response_model_from_the_working_folder() -> None:
    """``--response-model module:Class`` with the module beside the data."""
    Path("answers.py").write_text(
        "from pydantic import BaseModel\nclass Product(BaseModel):\n    color: str\n"
    )
    done = frameenrich(  # a process of its own: the module comes from its working folder
        "run", "mugs.csv", "out.csv", *ASK, "--response-model", "answers:Product", *FAST
    )

    assert done.returncode == 0, done.stderr
    assert pd.read_csv("out.csv")["color"].notna().all()


def test_a_parser_from_the_working_folder(server: BatchServer) -> None:
    """``--parser module:function``, and another one at collect reads the same answers anew."""
    Path("reading.py").write_text(
        "def words(text):\n    return {'n': len(text.split())}\n\ndef shout(text):\n"
        "    return text.upper()\n"
    )
    job = frameenrich("submit", "mugs.csv", *ASK, "--parser", "reading:words").stdout.strip()
    without = frameenrich("collect", job, "mugs.csv", "out.csv", "--wait", *FAST)
    first = ["collect", job, "mugs.csv", "out.csv", "--wait", *FAST]

    assert without.returncode == 2
    assert "Pass it again" in without.stderr
    assert frameenrich(*first, "--parser", "reading:words").returncode == 0
    assert pd.read_csv("out.csv")["n"].tolist() == [6, 6]
    assert frameenrich(*first, "--parser", "reading:shout").returncode == 0
    assert pd.read_csv("out.csv")["llmbatch"][0] == "ECHO: WHICH DEPARTMENT SELLS RED MUG?"
    assert set(server.executed.values()) == {1}


def test_embed_writes_vectors(server: BatchServer) -> None:
    """Parquet has lists of float32, CSV and JSON Lines their JSON; the same job for all three."""
    wanted = [unit_vector(title, 4) for title in ("Red mug", "Blue hose")]
    ask = ["-t", "{{ title }}", "-m", "text-embedding-3-small", "--dimensions", "4", *FAST]
    for ending in ("parquet", "csv", "jsonl"):
        assert here("embed", "mugs.csv", f"out.{ending}", *ask, "--strict").exit_code == 0

    vectors = pq.read_table("out.parquet")["embedding"]
    assert vectors.type == pa.list_(pa.float32())
    assert np.allclose(vectors.to_pylist(), wanted)
    assert np.allclose([json.loads(v) for v in pd.read_csv("out.csv")["embedding"]], wanted)
    lines = Path("out.jsonl").read_text().splitlines()
    assert np.allclose([json.loads(line)["embedding"] for line in lines], wanted)
    assert np.allclose(np.stack(pd.read_parquet("out.parquet")["embedding"].tolist()), wanted)
    assert set(server.executed.values()) == {1}


def test_images_of_two_columns_go_with_their_row() -> None:
    """``--image`` twice, paths under ``--image-root``, made smaller and with a detail."""
    Path("photos").mkdir()
    for name, size in (("a.png", (64, 32)), ("b.png", (8, 8))):
        Image.new("RGB", size, "red").save(Path("photos", name))
    Path("pictures.csv").write_text("title,front,back\nMug,a.png,b.png\n")
    images = ["--image", "front", "--image", "back", "--image-root", "photos"]
    smaller = ["--image-detail", "low", "--image-max-pixels", "16"]

    shown = here("preview", "pictures.csv", *ASK, *images, *smaller, "--json")
    told = here("preview", "pictures.csv", *ASK, *images, "--image-detail", "close")

    (request,) = json.loads(shown.stdout)["requests"]
    _, front, back = request["body"]["messages"][0]["content"]
    sent = [part["image_url"]["url"].partition(",")[2] for part in (front, back)]
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).size for data in sent]
    assert sizes == [(16, 8), (8, 8)]
    assert {front["image_url"]["detail"], back["image_url"]["detail"]} == {"low"}
    assert told.exit_code == 2
    assert "Use 'low', 'high' or 'auto'" in told.stderr


def test_flatten_gives_nested_members_their_columns() -> None:
    """``--flatten`` on a schema with an object in it."""
    inner = {"type": "object", "properties": {"w": {"type": "integer"}}, "required": ["w"]}
    schema = {"type": "object", "properties": {"size": inner}, "required": ["size"]}
    Path("schema.json").write_text(json.dumps(schema))
    done = here("run", "mugs.csv", "out.csv", *ASK, "--schema", "schema.json", "--flatten", *FAST)

    assert done.exit_code == 0, done.output
    assert "size.w" in pd.read_csv("out.csv").columns


def test_on_null_skips_rows_with_empty_cells() -> None:
    """An empty CSV cell is a null: refused, or skipped when asked."""
    Path("gap.csv").write_text("sku,title\n1,Mug\n2,\n")

    refused = here("run", "gap.csv", "out.csv", *ASK, *FAST)
    skipped = here("run", "gap.csv", "out.csv", *ASK, "--on-null", "skip", "--strict", *FAST)

    assert refused.exit_code == 2
    assert (
        "Row 1 (line 3 of gap.csv) would print a null: column 'title' is empty there."
        in refused.stderr
    )
    assert skipped.exit_code == 0
    assert pd.read_csv("out.csv")["llmbatch_status"].tolist() == ["ok", "skipped"]


def test_safe_csv_neutralises_formulas(server: BatchServer) -> None:
    """A formula that the model wrote is a text in the spreadsheet; the table's own stays."""
    server.faults.add("malformed", where="*", content='=HYPERLINK("http://evil")', times="always")
    Path("f.csv").write_text("title\n=1+1\n")
    here("run", "f.csv", "out.csv", "-t", "{{ title }}", "-m", "m", "--safe-csv", *FAST)

    (row,) = csv.DictReader(io.StringIO(Path("out.csv").read_text()))
    assert (row["title"], row["llmbatch"]) == ("=1+1", '\'=HYPERLINK("http://evil")')
    refused = here("run", "f.csv", "out.parquet", *ASK, "--safe-csv")
    assert refused.exit_code == 2


def test_halves_of_surrogate_pairs_reach_parquet_replaced(server: BatchServer) -> None:
    """In a cell and inside of one, as CSV has them; paid for once."""
    Path("odd.jsonl").write_text('{"title": "\\ud800", "in": [{"\\udc00": "\\ud800x"}]}\n')
    ask = ["-t", "{{ title }}", "-m", "m", *FAST]
    done = frameenrich("run", "odd.jsonl", "out.parquet", *ask)

    assert done.returncode == 0, done.stderr
    (row,) = pq.read_table("out.parquet").to_pylist()
    assert (row["title"], row["in"]) == ("\ufffd", [{"\ufffd": "\ufffdx"}])
    assert set(server.executed.values()) == {1}


# --- exit codes ---------------------------------------------------------------------------------


def test_strict_is_1_where_a_row_has_no_good_answer(server: BatchServer) -> None:
    """The result is written all the same; without --strict the exit code is 0."""
    server.faults.add("malformed", where="row-1", content="no label of ours")
    arguments = ["run", "mugs.csv", "out.csv", *ASK, *LABELS, *FAST]

    strict = frameenrich(*arguments, "--strict")

    assert strict.returncode == 1
    assert pd.read_csv("out.csv")["llmbatch_status"].tolist() == ["ok", "malformed"]
    assert "malformed\t1\t$.label" in strict.stderr
    job = re.findall(r"frameenrich regenerate (\S+)", strict.stderr)[0]
    assert here(*arguments).exit_code == 0
    assert here(*arguments, "--min-ok", "0.5").exit_code == 0
    assert here(*arguments, "--min-ok", "0.95").exit_code == 1

    server.faults.clear()
    assert here("regenerate", job).exit_code == 0
    assert here(*arguments, "--strict").exit_code == 0
    assert pd.read_csv("out.csv")["llmbatch_status"].tolist() == ["ok", "ok"]


@pytest.mark.parametrize(
    "pair",
    ["logprobs=True", "parallel_tool_calls=1", 'seed="7"', 'seed="1e999"', 'temperature="0.1"'],
)
def test_what_an_error_advises_for_a_parameter_can_be_typed(pair: str) -> None:
    """The advised flag goes through a shell, and the command with it ends with 0."""
    ask = ["preview", "mugs.csv", *ASK, "--param"]
    refused = here(*ask, pair)

    assert refused.exit_code == 2
    said = re.search(r"Write (--param .*?);", " ".join(refused.stderr.split()))
    assert said is not None, refused.stderr
    better = here(*ask[:-1], *shlex.split(said[1]))
    assert better.exit_code == 0, better.output


def test_a_customers_number_is_a_text_where_the_api_takes_texts() -> None:
    """``--param user=123`` is what people type."""
    done = here("submit", "mugs.csv", *ASK, "--param", "user=123", "--provider", "file")
    assert done.exit_code == 0, done.output
    (file,) = Path(".frameenrich").glob("*/round-0/*.requests.jsonl")
    assert json.loads(file.read_text().splitlines()[0])["body"]["user"] == "123"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.csv", "out.csv", *ASK], "none.csv cannot be read: No such file"),
        (["mugs.csv", "out.docx", *ASK], "The format of out.docx is not known"),
        (["mugs.csv", ".", *ASK], "The format of '.' is not known"),
        (["mugs.csv", "no/out.csv", *ASK], "there is no folder"),
        (["mugs.csv", "out.csv", *ASK, "--param", "=5"], "--param =5 has no name, or no =."),
        (["mugs.csv", "out.csv", *ASK, "--accept", "2"], "'--accept': Give a share, such as 0.95"),
        (
            ["mugs.csv", "out.csv", *ASK, "--labels", "a,b", "--examples", "mugs.csv"],
            "; rename the one with the answers to 'llmbatch'.",
        ),
        (
            ["mugs.csv", "out.csv", *ASK, "--image", "title"],
            "is not there under --image-root '.'",
        ),
        (["mugs.csv", "out.csv", "-m", "m", "-t", "{{ name }}"], "'name'"),
        (["mugs.csv", "out.csv", "-m", "m"], "No template was given"),
        (["mugs.csv", "out.csv", "-m", "m", "-t", "mugs.csv"], "--template @mugs.csv"),
        (["mugs.csv", "out.csv", *ASK, "--key", "nix"], "key column 'nix' is not in the table"),
        (["mugs.csv", "out.csv", *ASK, "--param", "temprature=1"], "Did you mean 'temperature'?"),
        (["mugs.csv", "out.csv", *ASK, "--provider", "opanai"], "Use 'openai' or another of: anth"),
        (["mugs.csv", "out.csv", *ASK, "--labels", ""], "--labels holds no label"),
        (["mugs.csv", "out.csv", *ASK, "--parser", ""], "--parser does not name a module"),
        (["mugs.csv", "out.csv", *ASK, "--provider", "file"], "Use submit"),
        (["mugs.csv", "out.csv", *ASK, "--limit", "0"], "'--limit': Give 1 or more."),
        (["mugs.csv", "out.csv", *ASK, "--limit", "2.5"], "'--limit': Give a whole number, such"),
        (
            ["mugs.csv", "out.csv", *ASK, "--max-cost", "abc"],
            "'--max-cost': Give a number,",
        ),
        (
            ["mugs.csv", "out.csv", *ASK, "--json-mode", "json"],
            "mode': 'json' is not one of 'auto'",
        ),
        (["mugs.csv", "out.csv", *ASK, "--min-ok", "95"], "'--min-ok': Give a share, such as 0.95"),
        (["-", "-", "--format", "xml", *ASK], "--format xml is not known. Use csv, tsv, jsonl"),
        (["mugs.csv", "out.csv", *ASK, "--format", "CSV.gz"], "--format CSV.gz is not known"),
        (["mugs.csv", "out.csv", *ASK, "--nonsense"], "--nonsense"),
        (["mugs.csv", "out.csv", *ASK, "--lables", "a,b"], "--labels"),
        (["mugs.csv", "out.csv", *ASK, "--temprature", "0.1"], "--param temperature=..."),
        (["mugs.csv", "out.csv"], "--model"),
    ],
)
def test_what_the_caller_has_to_change_is_2(arguments: list[str], says: str) -> None:
    """One message on stderr names the option, the file or the column; nothing is sent."""
    done = here("run", *arguments)

    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stdout == ""
    assert not Path("out.csv").exists()


def test_no_key_is_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing credentials are for the caller to mend; only a server of this machine needs none."""
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")

    assert here("run", "mugs.csv", "out.csv", *ASK).exit_code == 2


def test_no_good_answer_at_all_is_1_without_any_option(server: BatchServer) -> None:
    """A script that went on with nothing would not notice; the file that was written is named."""
    server.faults.add("malformed", times="always", content="no label of ours")

    done = frameenrich("run", "mugs.csv", "out.csv", *ASK, *LABELS, *FAST)

    assert done.returncode == 1
    assert "Wrote 2 rows to out.csv." in done.stderr


def test_a_provider_that_refuses_is_3_and_how_to_go_on(server: BatchServer) -> None:
    """The message is the provider's; the key is in no output; the same command goes on."""
    server.faults.add("unauthorized", times="always")
    arguments = ["run", "mugs.csv", "out.csv", *ASK, *FAST]

    done = frameenrich(*arguments)

    assert done.returncode == 3
    assert "To go on: frameenrich run mugs.csv out.csv --template 'Which" in done.stderr
    assert "nobody-may-see" not in done.stderr + done.stdout
    server.faults.clear()
    assert here(*arguments).exit_code == 0


def test_a_timeout_is_4_and_the_same_command_goes_on(server: BatchServer) -> None:
    """Nothing is written before every row has its reason; later the same command ends well."""
    server.hold("in_progress")
    arguments = ["run", "mugs.csv", "out.csv", *ASK, *FAST]

    late = frameenrich(*arguments, "--timeout", "0.2")

    assert late.returncode == 4
    assert " after 0.2 seconds." in late.stderr  # as the user gave it, not what sending left
    assert "To go on: frameenrich run mugs.csv" in late.stderr
    assert not Path("out.csv").exists()
    server.release()
    assert here(*arguments).exit_code == 0
    assert set(server.executed.values()) == {1}


@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_a_timeout_holds_while_a_provider_answers_what_it_is_sent(
    fresh: list[str], server: BatchServer
) -> None:
    """One call a request: after the time exit code 4, and what goes on asks only the rest."""
    server.faults.add("slow", where="POST /v1/chat/completions", times="always", seconds=1.0)
    Path("many.csv").write_text("title\n" + "".join(f"thing {n}\n" for n in range(100)))
    live = ["--provider", "live", "--max-in-flight", "1", *fresh]

    late = frameenrich("run", "many.csv", "out.csv", *ASK, *live, "--timeout", "3")
    assert late.returncode == 4, late.stderr
    assert sum(server.executed.values()) < 100

    assert not Path("out.csv").exists()
    hint = late.stderr.splitlines()[-1]
    server.faults.clear()
    words = shlex.split(hint.removeprefix("To go on: frameenrich "))
    assert words[0] == ("collect" if fresh else "run")
    words[words.index("--timeout") + 1] = "120"
    done = here(*words)
    assert done.exit_code == 0, done.stderr
    assert pd.read_csv("out.csv")["llmbatch_status"].tolist() == ["ok"] * 100
    assert sum(server.executed.values()) <= 101  # one may have been on its way


def test_a_timeout_holds_for_further_rounds(server: BatchServer) -> None:
    """A round that is answered while it is sent keeps to what time is left."""
    server.faults.add("malformed", where="*", content="no label", times="always")
    Path("many.csv").write_text("title\n" + "".join(f"thing {n}\n" for n in range(100)))
    run = ["run", "many.csv", "out.csv", *ASK, *LABELS, "--provider", "live"]
    assert here(*run).exit_code == 1  # no row has a good answer
    server.faults.add("slow", where="POST /v1/chat/completions", times="always", seconds=1.0)
    slow = [*run, "--max-in-flight", "1", "--max-rounds", "1", "--timeout", "1"]

    before = sum(server.executed.values())
    late = frameenrich(*slow)
    assert late.returncode == 4, late.stderr
    assert sum(server.executed.values()) - before < 100


def test_modules_of_the_user_that_end_the_process_are_2(server: BatchServer) -> None:
    """A script without a guard, imported for a parser or a class, ends no command silently."""
    Path("script.py").write_text("import sys\nsys.exit(3)\n")

    for option in ("--parser", "--response-model"):
        done = frameenrich("run", "mugs.csv", "out.csv", *ASK, option, "script:read")
        assert done.returncode == 2
        assert f"{option} script:read cannot be imported: SystemExit: 3." in done.stderr
    assert server.requests == []


def test_what_breaks_after_the_work_does_not_change_the_exit_code() -> None:
    """Arrow's threads now and then abort a dying interpreter; a script gets our code still."""
    script = (
        "import atexit, os; atexit.register(os.abort); from frameenrich.cli import main; main()"
    )
    codes = [
        warm.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, check=False
        ).returncode
        for arguments in (["jobs"], ["status"], ["--version"])
    ]

    assert codes == [0, 2, 0]


# --- interrupted, killed, twice at once -----------------------------------------------------------


def test_ctrl_c_is_130_and_says_how_to_go_on(server: BatchServer) -> None:
    """The command that is printed, given to a shell, finishes the job; each row ran once."""
    server.hold("in_progress")
    child = start("run", "mugs.csv", "out put.csv", *ASK, *FAST)
    until(lambda: server.count("GET", "/v1/batches/*"))
    child.send_signal(signal.SIGINT)
    out, said = child.communicate(timeout=60)

    assert (child.returncode, out) == (130, "")
    assert "Traceback" not in said
    hint = said.splitlines()[-1].removeprefix("To go on: ")
    assert hint.startswith("frameenrich run mugs.csv 'out put.csv' --template 'Which")
    server.release()
    Path("frameenrich").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from frameenrich.cli import main; main()' \"$@\"\n"
    )
    Path("frameenrich").chmod(0o755)
    path = {**os.environ, "PATH": f"{Path.cwd()}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", hint], env=path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert pd.read_csv("out put.csv")["llmbatch_status"].tolist() == ["ok", "ok"]
    assert sorted(server.executed.values()) == [1, 1]


def test_ctrl_c_of_a_fresh_run_does_not_offer_to_pay_again(server: BatchServer) -> None:
    """``--fresh`` again would be a new job: the hint collects the one that was sent."""
    server.hold("in_progress")
    child = start("run", "mugs.csv", "out.csv", *ASK, *FAST, "--fresh", "--store", "jobs here")
    until(lambda: server.count("GET", "/v1/batches/*"))
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)

    assert child.returncode == 130
    hint = said.splitlines()[-1]
    assert re.fullmatch(
        r"To go on: frameenrich collect --wait --store 'jobs here' --poll-seconds 0.02 "
        r"llmbatch-\w+ mugs.csv out.csv",
        hint,
    )


def test_the_hint_of_a_fresh_run_has_every_option_that_collect_takes(server: BatchServer) -> None:
    """What was to be written, and how to wait and to read, is as it was asked for."""
    server.hold("in_progress")
    kept = (
        "--format csv --limit 2 --no-stream --usage --flatten --safe-csv --strict --max-rounds 1 "
        "--timeout 60.0 --poll-seconds 0.02 --parser json:dumps --max-cost 5.0 --prices 1,2"
    )
    run = ["run", "-", "-", *ASK, "--param", "max_tokens=9", "--fresh", "--json", *kept.split()]
    with warm.Popen(
        [*COMMAND, *run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        child.stdin.write(MUGS.encode())
        child.stdin.close()
        child.stdin = None
        until(lambda: server.count("GET", "/v1/batches/*"))
        child.send_signal(signal.SIGINT)
        said = child.communicate(timeout=60)[1].decode()

    words, _, note = said.splitlines()[-1].partition("  # ")
    assert note == "with the same standard input"
    assert re.sub(r"llmbatch-\w+", "JOB", words) == (
        f"To go on: frameenrich collect --wait --json {kept} JOB - -"
    )
    job = re.findall(r"llmbatch-\w+", words)[0]
    server.release()
    done = frameenrich(*words.split()[4:], stdin=MUGS.encode())
    assert (done.returncode, done.stdout.count(",ok,")) == (0, 2), done.stderr
    assert json.loads(done.stderr)["job"] == job


def test_the_hint_of_a_fresh_run_leaves_out_a_cap_without_rounds(server: BatchServer) -> None:
    """``collect`` takes ``--max-cost`` for further rounds only."""
    server.hold("in_progress")
    money = ["--max-cost", "5", "--prices", "1,2", "--param", "max_tokens=9"]
    done = frameenrich(
        "run", "mugs.csv", "out.csv", *ASK, *FAST, *money, "--fresh", "--timeout", "0.3"
    )

    assert done.returncode == 4
    hint = done.stderr.splitlines()[-1]
    assert re.search(r"--timeout 0.3 --poll-seconds 0.02 --prices 1,2 llmbatch-\w+ mugs", hint)


MOMENTS: dict[str, tuple[str, str] | None] = {
    "while the batch is made": ("slow", "POST /v1/batches"),
    "after it was made, before it is known": ("slow_answer", "POST /v1/batches"),
    "while it runs": None,
    "while answers come": ("slow", "GET /v1/files/*/content"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_run_again_every_row_is_executed_once(moment: str, server: BatchServer) -> None:
    """SIGKILL to a real run in the middle; the same command again finishes, and pays once."""
    fault = MOMENTS[moment]
    if fault is None:
        server.hold("in_progress")
    else:
        server.faults.add(fault[0], where=fault[1], seconds=3.0)
    arguments: list[str | Path] = ["run", PRODUCTS, "out.csv", *ASK, *LABELS, *FAST]
    child = start(*arguments)
    until(lambda: server.faults.fired[fault[0]] if fault else server.batches)
    assert child.poll() is None
    child.kill()
    child.communicate()

    assert not Path("out.csv").exists()
    server.release()
    done = frameenrich(*arguments)

    assert done.returncode == 0, done.stderr
    assert pd.read_csv("out.csv")["llmbatch_status"].tolist() == ["ok"] * 200
    assert len(server.executed) == 198  # two titles of the catalogue stand there twice
    assert set(server.executed.values()) == {1}


def test_the_bar_goes_on_where_it_was(server: BatchServer) -> None:
    """A killed run's bar stood half-way; the next one's begins there, and ends at all of them."""
    server.in_progress_steps = 4
    arguments: list[str | Path] = ["run", PRODUCTS, "out.csv", *ASK, "--poll-seconds", "0.1"]
    killed = in_terminal(*arguments, kill_at="100/198 requests")
    shown = in_terminal(*arguments)
    again = in_terminal(*arguments)

    assert "198/198" not in killed
    counts = [int(n) for n in re.findall(r"(\d+)/198 requests", shown)]
    assert counts[0] >= 100
    assert counts == sorted(counts)
    assert counts[-1] == 198
    assert "requests [" not in again  # nothing was waited for


def test_two_processes_at_once_pay_once(server: BatchServer) -> None:
    """The same command twice at the same time: both end well, each row is executed once."""
    one = start("run", PRODUCTS, "one.csv", *ASK, *LABELS, *FAST)
    two = start("run", PRODUCTS, "two.csv", *ASK, *LABELS, *FAST)
    said = [child.communicate(timeout=120)[1] for child in (one, two)]

    assert (one.returncode, two.returncode) == (0, 0), said
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()
    assert set(server.executed.values()) == {1}
    assert len(server.batches) == 1


# --- the other verbs ----------------------------------------------------------------------------


def test_submit_then_collect_in_another_process(server: BatchServer) -> None:
    """``submit`` prints the job's id; ``collect`` with it, without it, and before the end."""
    server.hold("in_progress")
    submitted = frameenrich("submit", "mugs.csv", *ASK)
    job = submitted.stdout.strip()
    early = frameenrich("collect", job, "mugs.csv", "out.csv", "--strict")

    assert re.fullmatch(r"llmbatch-[0-9a-f]{16}", job)
    assert early.returncode == 4
    assert "2 rows still run; to go on: frameenrich collect" in early.stderr
    assert pd.read_csv("out.csv")["llmbatch_status"].tolist() == ["pending", "pending"]
    server.release()
    assert here("collect", "mugs.csv", "out.csv", "--wait", "--strict", *FAST).exit_code == 0
    assert pd.read_csv("out.csv")["llmbatch_status"].tolist() == ["ok", "ok"]
    assert here("collect", job, "out.csv", "out.csv").exit_code == 0
    assert list(pd.read_csv("out.csv").columns) == [
        "sku", "title", "llmbatch", "llmbatch_status", "llmbatch_error",
    ]  # fmt: skip


def test_collect_of_other_rows_is_refused() -> None:
    """Answers do not go beside rows that changed under their positions."""
    job = here("submit", "mugs.csv", *ASK).stdout.strip()
    Path("mugs.csv").write_text("sku,title\n008,Blue hose\n007,Red mug\n")

    done = here("collect", job, "mugs.csv", "out.csv")

    assert done.exit_code == 2
    assert "2 of the table's rows changed under their keys" in done.stderr
    assert not Path("out.csv").exists()


def test_collect_wants_two_or_three_names() -> None:
    """[JOB] IN OUT, said in the usage error."""
    for names in (["out.csv"], ["a", "b", "c", "d"]):
        done = here("collect", *names)
        assert done.exit_code == 2
        assert "[JOB] IN OUT" in done.stderr


def test_status_jobs_and_cancel(server: BatchServer) -> None:
    """Plain lines for scripts and people, JSON when asked, the newest job by default."""
    server.hold("in_progress")
    job = here("submit", "mugs.csv", *ASK).stdout.strip()

    running = json.loads(here("status", job, "--json").stdout)
    assert (running["job"], running["ended"], running["requests"]) == (job, False, 2)
    assert here("status").stdout.startswith(f"{job}: ")
    head, line = here("jobs").stdout.splitlines()
    heads = "job prompt model provider rows ok flagged cost age size batches"
    assert head.split("\t") == heads.split()
    asked = r"Which department sells {{ title }}\?\tgpt-4o-mini\topenai\t2\t0\t0\t\$0.00"
    assert re.fullmatch(rf"{job}\t{asked}\t\d+ s\t\S+ kB\tin_progress", line)
    (told,) = json.loads(here("jobs", "--json").stdout)
    assert (told["job"], told["settled"]) == (job, False)
    assert told["bytes"] > 0
    server.release()
    assert json.loads(here("cancel", job, "--json").stdout)["job"] == job
    assert here("collect", job, "mugs.csv", "out.csv", "--wait", *FAST).exit_code == 0
    assert json.loads(here("status", job, "--json").stdout)["ended"] is True


def test_a_batch_that_the_provider_has_lost(server: BatchServer) -> None:
    """Every command says what to type, `give-up` is the user's word, and regenerate asks again."""
    job = here("submit", "mugs.csv", *ASK).stdout.strip()
    server.faults.add("batch_not_found", times="always")

    lost = frameenrich("collect", job, "mugs.csv", "out.csv", "--wait", *FAST)
    assert (lost.returncode, "frameenrich give-up" in lost.stderr) == (3, True), lost.stderr

    assert json.loads(here("give-up", job, "--json").stdout)["ended"] is True
    assert here("collect", job, "mugs.csv", "out.csv").exit_code == 1
    assert "lost at the provider" in Path("out.csv").read_text()
    server.faults.clear()
    here("regenerate", job)
    assert here("collect", job, "mugs.csv", "out.csv", "--wait", *FAST).exit_code == 0


def test_clean_shows_asks_and_deletes() -> None:
    """``--dry-run`` looks, ``--yes`` acts; with nobody to ask, neither is 2."""
    job = here("run", "mugs.csv", "out.csv", *ASK, *FAST, "--json").stdout
    name = json.loads(job)["job"]
    age = ["--older-than", "0d"]

    young = here("clean", "--older-than", "30d", "--yes")
    assert (young.exit_code, young.stderr) == (0, "0 deleted, 0 B.\n")
    looked = here("clean", *age, "--dry-run")
    assert re.search(rf"{name}\tjob\t\d+ s\t\S+ kB\twould be deleted", looked.stdout)
    refused = here("clean", *age)
    assert refused.exit_code == 2
    assert "Add --yes" in refused.stderr
    assert Path(".frameenrich", name).is_dir()
    (told,) = json.loads(here("clean", *age, "--yes", "--json").stdout)
    assert (told["name"], told["deleted"]) == (name, True)
    assert here("jobs").stdout.count("\n") == 1
    assert here("clean", "--older-than", "old").exit_code == 2


def test_a_damaged_job_is_a_warning_in_one_line() -> None:
    """On standard error, without Python's own words around it; the others are listed."""
    good = here("submit", "mugs.csv", *ASK).stdout.strip()
    bad = here("submit", "mugs.csv", *ASK, "--name", "bad").stdout.strip()
    Path(".frameenrich", bad, "sidecar.parquet").write_bytes(b"rot")
    listed = frameenrich("jobs")

    ends = [line.split("\t")[-1].split()[-1] for line in listed.stdout.splitlines()[1:]]
    assert ends in (["in_progress", "damaged"], ["validating", "damaged"])
    (said,) = listed.stderr.splitlines()
    assert said.startswith("warning: The store's file ")
    assert f"{bad}/sidecar.parquet cannot be read" in said
    newest = frameenrich("status")
    assert newest.stdout.startswith(f"{good}: ")
    assert newest.stderr.startswith("warning: A damaged job was passed over: ")


def test_an_unknown_job_and_an_empty_store_are_2() -> None:
    """The message lists what there is."""
    assert "holds no job" in here("status").stderr
    assert here("status").exit_code == 2
    here("submit", "mugs.csv", *ASK)
    done = here("cancel", "nowhere")
    assert done.exit_code == 2
    assert "Its jobs are: llmbatch, llmbatch-" in done.stderr
    assert "Did you mean 'llmbatch'?" in here("cancel", "llmbath").stderr


def test_a_job_is_named_as_it_was_called_and_is_the_newest_by_default() -> None:
    """A name stands wherever an id does; without either, which job it was is said."""
    ask = ("mugs.csv", *ASK, "--provider", "file")
    first = here("submit", *ask, "--name", "kind").stdout.strip()
    second = here("submit", *ask, "--name", "shelf").stdout.strip()

    assert here("status", "kind").stdout.startswith(f"{first}: ")
    assert here("collect", "kind", "mugs.csv", "out.csv").exit_code == 4
    assert "kind_status" in Path("out.csv").read_text()
    assert json.loads(here("report", "kind", "--json").stdout)["job"] == first
    assert "To write the report there: --out page.html." in here("report", "page.html").stderr
    done = here("regenerate")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{second}: ")
    assert f"The newest job: {second}." in done.stderr
    Path("answers.jsonl").write_text("{}\n")
    assert f"job {second}" in here("import", "answers.jsonl").stderr
    assert f"job {first}" in here("import", "kind", "answers.jsonl").stderr
    assert "give [JOB] FILE..." in here("import", "kind").stderr


def test_the_store_is_where_it_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """By option, else by FRAMEENRICH_STORE."""
    monkeypatch.setenv("FRAMEENRICH_STORE", "from_env")
    here("submit", "mugs.csv", *ASK)
    here("submit", "mugs.csv", *ASK, "--store", "from_option")

    assert Path("from_env").is_dir()
    assert Path("from_option").is_dir()
    assert not Path(".frameenrich").exists()


def test_preview_sends_nothing(server: BatchServer) -> None:
    """The first requests, as text and as JSON; no job, no key needed."""
    shown = here("preview", "mugs.csv", *ASK, *LABELS, "-n", "1")
    told = json.loads(here("preview", "mugs.csv", *ASK, "--json").stdout)

    assert "[user] Which department sells Red mug?" in shown.stdout
    assert "Blue hose" not in shown.stdout
    assert told["columns"] == ["llmbatch", "llmbatch_status", "llmbatch_error"]
    assert told["requests"][1]["body"]["model"] == "gpt-4o-mini"
    assert (server.requests, Path(".frameenrich").exists()) == ([], False)


def test_requests_to_a_file_and_answers_from_one(server: BatchServer) -> None:
    """``--provider file``: submit tells the files, somebody answers them, import takes that."""
    told = json.loads(here("submit", "mugs.csv", *ASK, "--provider", "file", "--json").stdout)
    lines = [json.loads(line) for line in Path(told["requests"][0]).read_text().splitlines()]
    answer = {"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    answers = [
        {
            "custom_id": line["custom_id"],
            "response": {"status_code": 200, "body": {"choices": [answer]}},
            "error": None,
        }
        for line in lines
    ]
    Path("answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in answers))

    assert here("import", told["job"], "answers.jsonl").exit_code == 0
    assert here("collect", told["job"], "mugs.csv", "out.csv", "--strict").exit_code == 0
    assert pd.read_csv("out.csv")["llmbatch"].tolist() == ["hi", "hi"]
    assert server.requests == []


# --- what a terminal shows ------------------------------------------------------------------------


def test_control_characters_of_answers_reach_no_terminal(server: BatchServer) -> None:
    """Escape sequences are written out in messages; in the data they stay what they are."""
    server.faults.add("malformed", where="*", content="\x1b]0;owned\x07\x1b[2J", times="always")
    Path("evil.csv").write_text("title\n\x1b[31mred\u202e\n")
    arguments = ["evil.csv", "out.csv", "-t", "{{ title }}", "-m", "m", "--labels", "a,b"]
    done = frameenrich("run", *arguments, *FAST)
    shown = frameenrich("preview", "evil.csv", "-t", "{{ title }}", "-m", "m")

    for text in (done.stderr, shown.stdout):
        assert not set(text) & set("\x1b\x07\u202e")
    assert "\\x1b[31mred\\u202e" in shown.stdout
    assert b"\x1b[31mred" in Path("out.csv").read_bytes()


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\r", "\u202e"])
def test_unprintable_characters_are_written_out(character: str) -> None:
    """Whatever moves a cursor, rings or turns text around."""
    assert character not in escaped(f"a{character}b")
    assert escaped("tab\tline\nü漢👩‍🚀") == "tab\tline\nü漢👩‍🚀"


class Terminal(io.StringIO):
    """Something that says that somebody looks."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_tables_are_for_eyes_and_tabs_for_programs() -> None:
    """A terminal gets a table, without taking markup or escapes from a cell."""
    rows = [["ok", "2", "[red]x[/red]\n\x1b[0m"]]
    seen, piped = Terminal(), io.StringIO()
    print_rows(["status", "rows", "why"], rows, file=seen)
    print_rows(["status", "rows", "why"], rows, file=piped)

    assert piped.getvalue() == "status\trows\twhy\nok\t2\t[red]x[/red] \\x1b[0m\n"
    assert "[red]x[/red] \\x1b[0m" in seen.getvalue()
    assert "───" in seen.getvalue()


def test_a_terminal_too_narrow_for_a_table_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven columns in 48 characters are shown row by row: no word is folded into letters."""
    for name, value in {"COLUMNS": "48", "LINES": "30", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    heads = ["job", "prompt", "model", "provider", "rows", "ok", "flagged"]
    seen = Terminal()
    print_rows(
        heads, [["llmbatch-4826fecea574e184", "Colour?", "m", "live", "6", "6", ""]], file=seen
    )

    lines = [line.split() for line in seen.getvalue().splitlines()]
    assert any(line[-1:] == ["llmbatch-4826fecea574e184"] for line in lines)
    assert any("provider" in "".join(line) for line in lines)
    assert not any("flagged" in "".join(line) for line in lines)


@pytest.mark.parametrize("columns", [60, 100, 140])
def test_no_short_cell_is_broken(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any width a word, a number and a name stand whole; only sentences go on below."""
    for name, value in {"COLUMNS": f"{columns}", "LINES": "30", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    cells = {
        "job": "dept-e37c9bae1d9ffbc6",
        "prompt": "Which department sells {{ title }}? " * 2,
        "model": "gpt-5.4-mini",
        "provider": "openai",
        "rows": "12",
        "ok": "1,234,567",
        "cost": "$0.0004",
        "age": "51 s",
        "size": "8.3 kB",
        "batches": "in_progress",
    }
    seen = Terminal()
    print_rows(list(cells), [list(cells.values())], file=seen)

    for name, cell in cells.items():
        assert name in seen.getvalue()
        assert name == "prompt" or cell in seen.getvalue()
    assert ("───" in seen.getvalue()) == (columns == 140)


# --- requests that came ready -------------------------------------------------------------------


def ready(*custom_ids: str) -> bytes:
    """Requests in the batch format, a line each."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say it."}]}
    lines = [
        {"custom_id": i, "method": "POST", "url": "/v1/chat/completions", "body": body}
        for i in custom_ids
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_ready_requests_become_a_table_by_custom_id(ending: str, server: BatchServer) -> None:
    """Waits and writes; the same command again, from standard input too, sends nothing."""
    Path("asked.jsonl").write_bytes(ready("one", "two, too"))
    out = f"out.{ending}"

    done = frameenrich("requests", "asked.jsonl", out, *FAST, "--strict")
    again = frameenrich("requests", "-", out, *FAST, stdin=ready("two, too", "one"))

    assert (done.returncode, again.returncode) == (0, 0)
    if ending == "jsonl":
        table = pd.read_json(out, lines=True)
    else:
        table = pd.read_csv(out) if ending == "csv" else pd.read_parquet(out)
    assert table["custom_id"].tolist() == ["one", "two, too"]
    assert table["answer"].tolist() == ["echo: Say it."] * 2
    assert len(server.batches) == 1


def test_ready_requests_without_out_give_the_jobs_id(server: BatchServer) -> None:
    """As `submit` does; a bad line is named, with exit code 2."""
    Path("asked.jsonl").write_bytes(ready("one"))

    done = frameenrich("requests", "asked.jsonl", "--name", "said")
    bad = frameenrich("requests", "-", stdin=ready("one") + b"{}\n")

    assert done.stdout.startswith("said-")
    assert frameenrich("status").stdout.startswith(done.stdout.strip())
    assert bad.returncode == 2
    assert "The request at position 1: the request lacks 'body'" in bad.stderr
    assert len(server.batches) == 1


@pytest.mark.parametrize("source", ["asked.jsonl", "asked.jsonl.gz", "-"])
def test_limit_sends_the_first_requests_only(source: str, server: BatchServer) -> None:
    """The rest is not looked at; a bad one among the first is told with its line."""
    lines = ready("one", "two") + b"broken\n"
    Path("asked.jsonl").write_bytes(lines)
    Path("asked.jsonl.gz").write_bytes(gzip.compress(lines))

    done = frameenrich("requests", source, "out.csv", "--limit", "2", *FAST, stdin=lines)
    bad = frameenrich("requests", "asked.jsonl", "out.csv", "--limit", "3", *FAST)

    assert done.returncode == 0, done.stderr
    assert pd.read_csv("out.csv")["custom_id"].tolist() == ["one", "two"]
    assert (bad.returncode, "asked.jsonl, line 3: this is not JSON" in bad.stderr) == (2, True)
    assert len(server.batches) == 1


def test_ready_requests_are_not_replaced_by_their_answers(server: BatchServer) -> None:
    """The same file twice is refused before anything is sent, by whatever path."""
    Path("asked.jsonl").write_bytes(ready("one"))
    Path("same.jsonl").symlink_to("asked.jsonl")

    for target in ("asked.jsonl", "./asked.jsonl", "same.jsonl"):
        done = frameenrich("requests", "asked.jsonl", target)
        assert (done.returncode, "the input as well as the output" in done.stderr) == (2, True), (
            done.stderr
        )
    assert Path("asked.jsonl").read_bytes() == ready("one")
    assert server.requests == []


def test_the_embedded_embedder_leaves_logging_to_the_caller() -> None:
    """WordLlama sets up the root logger as it is imported; that is undone."""
    script = (
        "import logging; from frameenrich.providers.local.embeddings import Embedder; Embedder()\n"
        "assert (logging.root.handlers, logging.root.level) == ([], logging.WARNING)"
    )
    done = warm.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_a_row_that_cannot_be_asked_is_named_by_its_line(stream: list[str]) -> None:
    """A record may take several lines; the file and the line are said, and what to type."""
    Path("goods.csv").write_text('sku,title\n1,"red\nmug"\n2,\n')

    done = here("submit", "goods.csv", *ASK, "--provider", "file", *stream)

    assert done.exit_code == 2
    assert "(line 4 of goods.csv) would print a null" in done.stderr
    assert "pass --on-null empty or skip" in done.stderr


@pytest.mark.parametrize(("sign", "typed"), [(";", "';'"), ("\t", "tab"), ("|", "'|'")])
def test_a_table_with_other_delimiters_is_told_and_read(sign: str, typed: str) -> None:
    """What the file uses is said with what to type; so given, it is read and kept."""
    text = f"sku{sign}title\n007{sign}Red, mug\n"
    Path("goods.csv").write_text(text)
    run = ("run", "goods.csv", "out.csv", *ASK, *FAST, *LABELS)

    refused = here(*run)
    assert refused.exit_code == 2
    assert f"Pass --delimiter {typed}" in refused.stderr
    assert here(*run, "--delimiter", shlex.split(typed)[0]).exit_code == 0
    head, row = Path("out.csv").read_text().splitlines()
    assert head == sign.join(["sku", "title", "llmbatch", "llmbatch_status", "llmbatch_error"])
    assert row.startswith(f"007{sign}Red, mug{sign}")
    assert here("run", "out.csv", "out.csv", *run[3:], "--delimiter", sign).exit_code == 0


def test_a_line_that_another_delimiter_would_cut_right_says_so() -> None:
    """Where the header has commas too, a line that does not fit tells."""
    Path("goods.csv").write_text("sku;title, long;price\n1;Red mug;3,50\n2;hose;4\n")

    told = here("preview", "goods.csv", *ASK)

    assert "line 3: 1 cell, where the header has 2. The file looks like it uses ';'." in told.stderr
    assert here("preview", "goods.csv", *ASK, "--delimiter", "ab").exit_code == 2
    Path("goods.csv").write_text("title;and more\nRed mug\n")
    ask = ("-t", '{{ row["title;and more"] }}', "-m", "m")
    assert here("preview", "goods.csv", *ask, "--delimiter", ",").exit_code == 0


def test_a_key_that_was_given_for_its_variable_is_not_repeated() -> None:
    """Promise 7: the key itself, typed after --api-key-env, goes into no log of a terminal."""
    told = here("run", "mugs.csv", "out.csv", *ASK, "--api-key-env", "sk-proj-0123456789")

    assert told.exit_code == 2
    assert "--api-key-env is not the name of an environment variable." in told.stderr
    assert "0123456789" not in told.output
    unset = here("run", "mugs.csv", "out.csv", *ASK, "--api-key-env", "NOT_SET")
    assert "There is no API key for the provider 'openai'. Set NOT_SET;" in unset.stderr


def test_a_mark_of_the_byte_order_is_no_part_of_the_first_name() -> None:
    """Also where the encoding that was given has none of its own, as utf-16-le."""
    Path("goods.csv").write_bytes("sku,title\n1,Mug\n".encode("utf-16"))

    told = here("preview", "goods.csv", *ASK, "--encoding", "utf-16-le", "--key", "sku")
    assert "row '1'" in told.stdout


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_table_in_another_encoding_is_told_and_read(encoding: str) -> None:
    """What is written is UTF-8 with a mark, which is read again whatever --encoding says."""
    Path("goods.csv").write_bytes("sku,title\n1,Größe\n".encode(encoding))
    run = ("run", "goods.csv", "goods.csv", *ASK, *FAST)

    assert "--encoding" in here(*run).stderr
    for _ in range(2):
        assert here(*run, "--encoding", encoding).exit_code == 0
        assert Path("goods.csv").read_bytes().startswith("\ufeffsku,title,llmbatch,".encode())
        assert "1,Größe,echo: Which department sells Größe?,ok" in Path("goods.csv").read_text()
    assert here(*run, "--encoding", "nonsense").exit_code == 2
    Path("bad.csv").write_bytes(b"title\nred\x81\n")
    bad = here("preview", "bad.csv", *ASK, "--encoding", "cp1252")
    assert "bad.csv, line 2: this is not cp1252" in bad.stderr
