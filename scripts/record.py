"""Record a terminal session: ``frameenrich run``, killed half-way, and run again.

Writes ``docs/terminal.cast`` (``asciinema play docs/terminal.cast``) and its last screen as a
picture, ``docs/terminal.svg``. All of it is real: a bash in a terminal, the command line in it,
a SIGKILL. Only the provider is played, by the server of the tests, which answers what the
catalogue says. A session in which a request was executed twice is not recorded but refused.

    uv run python scripts/record.py
"""

from __future__ import annotations

import codecs
import csv
import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.terminal_theme import TerminalTheme

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from batch_server import BatchServer, Reply, user_text  # noqa: E402 - the path comes first

CATALOGUE = ROOT / "sample_data" / "products.csv"
COLUMNS, LINES = 100, 34
KEYSTROKE_SECONDS, PAUSE_SECONDS, PATIENCE_SECONDS = 0.02, 0.8, 60.0
PROMPT = "\x1b[0;32m$\x1b[0;1m "
ASIDE = "\x1b[0;3;36m"  # how a comment looks

RUN = """\
frameenrich run products.csv out.csv --key sku --name dept --model gpt-4o-mini \\
    --template 'Which department sells {{ title }}?' \\
    --labels Kitchen,Garden,Clothing,Electronics,Toys"""
HEAD = """\
python -c 'import pandas as pd
print(pd.read_csv("out.csv")[["sku", "title", "dept", "dept_status"]].head(4))'"""


class Terminal:
    """A bash in a terminal of its own, and all that it showed, with the seconds."""

    def __init__(self, folder: str, environment: dict[str, str]) -> None:
        self.began = time.monotonic()
        self.events: list[tuple[float, str]] = []
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        child, self.screen = pty.fork()
        if child == 0:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting"], environment)  # noqa: S606
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("4H", LINES, COLUMNS, 0, 0))
        self.until(re.escape(PROMPT) + "$")

    @property
    def text(self) -> str:
        """All that was shown."""
        return "".join(text for _, text in self.events)

    def show(self, text: str) -> None:
        """Add to what was shown."""
        self.events.append((round(time.monotonic() - self.began, 3), text))

    def read(self, seconds: float) -> None:
        """Take what the shell shows, for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.screen], [], [], left)[0]:
                self.show(self.decoder.decode(os.read(self.screen, 65536)))

    def until(self, pattern: str, since: int = 0) -> None:
        """Go on until something is shown."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not re.search(pattern, self.text[since:]):
            self.read(0.02)
            if time.monotonic() > end:
                raise TimeoutError(f"{pattern!r} was not shown; what was: {self.text!r}")

    def type(self, text: str) -> None:
        """Type as a person would, and press Enter; what stands there already, paste."""
        known = text in self.text.replace("\r\n", "\n")
        for key in [text, "\n"] if known else text + "\n":
            os.write(self.screen, key.encode())
            self.read(KEYSTROKE_SECONDS)

    def say(self, comment: str) -> None:
        """Type a comment."""
        self.show(ASIDE)
        self.do(f"# {comment}")

    def do(self, command: str) -> None:
        """Type a command, and wait until it has ended."""
        since = len(self.text)
        self.type(command)
        self.until(re.escape(PROMPT) + "$", since)
        self.read(PAUSE_SECONDS)

    def kill(self) -> None:
        """Kill what runs in the foreground, as hard as it gets."""
        os.killpg(os.tcgetpgrp(self.screen), signal.SIGKILL)


def act(terminal: Terminal, server: BatchServer) -> None:
    """Play the session."""
    terminal.say("A server on this machine plays the Batch API, with canned answers.")
    terminal.type(RUN)
    terminal.until(r"99/198 requests")
    terminal.kill()
    terminal.until("Killed")
    terminal.read(PAUSE_SECONDS)
    terminal.say("That was kill -9. What was sent is on disk:")
    terminal.do("frameenrich jobs")
    terminal.say("The same command again:")
    terminal.do(RUN)
    terminal.do(HEAD)
    terminal.say(told(server))


def told(server: BatchServer) -> str:
    """What the server has in its books; that it ran nothing twice is the point of all this."""
    requests, batches = len(server.executed), len(server.batches)
    if set(server.executed.values()) != {1} or batches != 1:
        raise AssertionError(server.executed)
    return (
        f"The server's books: {batches} batch, {requests} requests (two titles stand there twice), "
        "each executed once."
    )


def clerk() -> Any:
    """An answerer that knows the catalogue."""
    rows = list(csv.DictReader(CATALOGUE.open(encoding="utf-8", newline="")))
    known = {row["title"]: row["department"] for row in rows}

    def answer(body: dict[str, Any], _custom_id: str) -> Reply:
        title = user_text(body).removeprefix("Which department sells ").removesuffix("?")
        return Reply(content=json.dumps({"label": known[title]}))

    return answer


def environment_for(server: BatchServer) -> dict[str, str]:
    """What the shell knows: nothing of this machine but where programs are."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "HISTFILE": "/dev/null",
        "PS0": "\x1b[0m",
        "PS1": PROMPT,
        "PS2": "",
        "TQDM_NCOLS": str(COLUMNS - len("Killed") - 1),
        "OPENAI_API_KEY": "sk-any",
        "OPENAI_BASE_URL": server.base_url,
    }


# --- what is made of it -------------------------------------------------------------------------


def cast_of(terminal: Terminal) -> str:
    """The session in asciicast v2 (https://docs.asciinema.org/manual/asciicast/v2/)."""
    head = {"version": 2, "width": COLUMNS, "height": LINES, "idle_time_limit": 2}
    lines = [head, *([seconds, "o", text] for seconds, text in terminal.events)]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        (72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34),
        (88, 166, 255), (188, 140, 255), (118, 190, 208), (177, 186, 196),
    ],
)  # fmt: skip


FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def picture_of(terminal: Terminal) -> str:
    """The last screen as SVG; of what a line showed, the last state."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    decoder = AnsiDecoder()
    for line in terminal.text.removesuffix(PROMPT).rstrip().split("\r\n"):
        console.print(decoder.decode_line(line.rsplit("\r", 1)[-1]), no_wrap=True)
    title = "frameenrich run, killed and run again"
    picture = console.export_svg(title=title, theme=THEME, unique_id="terminal")
    fetching = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # a picture that fetches nothing
    return fetching.sub("", picture).replace("Fira Code, monospace", FONTS)


def main() -> None:
    """Record, and write both files."""
    with (
        tempfile.TemporaryDirectory() as folder,
        BatchServer(in_progress_steps=6, answer=clerk()) as server,
    ):
        shutil.copy(CATALOGUE, folder)
        terminal = Terminal(folder, environment_for(server))
        act(terminal, server)
        if folder in terminal.text:
            raise AssertionError("The recording names a folder of this machine.")
    for name, text in (("cast", cast_of(terminal)), ("svg", picture_of(terminal))):
        path = ROOT / "docs" / f"terminal.{name}"
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(text.encode()):,} bytes")


if __name__ == "__main__":
    main()
