"""Test the tests: change the code that guards answers and money, and see whether one fails.

    uv run --group mutation python tests/mutation.py [--sample 200] [--minutes 120] [--work FOLDER]
    uv run --group mutation python tests/mutation.py --mutant store/lease.py:107 --tests tests/store

Changes one thing in one module at a time: an operator, a number or a condition as Cosmic Ray does,
or a call whose value nobody uses left out. The tests run once under coverage, so that each mutant
meets only the tests that run its line, those of its module first, in a process forked with all
libraries imported. A mutant that no test notices has survived: it is printed, and is a test to
write or a change that changes nothing. The score is of a random sample of each folder.

`--mutant` runs every change of one line, here on the tests that are named: for a test just written.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.machinery
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from types import CodeType
from typing import IO, Any

from coverage import CoverageData

ROOT = Path(__file__).parent.parent
FOLDERS = ("store", "lifecycle", "identity", "answers")
TESTS = [
    *(f"tests/{folder}" for folder in (*FOLDERS, "verbs", "prepare", "providers")),
    *("tests/test_old_store.py", "tests/test_atomic.py", "tests/test_strangers.py"),
    *("tests/test_odd_errors.py", "tests/test_security.py", "tests/test_import.py"),
    *("tests/test_model.py", "tests/test_text.py"),
]
"""What has to notice; one that takes longer than `SLOW` seconds is left out."""


FEW = {"FRAMEENRICH_HYPOTHESIS": "few"}
"""Of each property ten examples: a mutant meets many tests."""


SLOW = 20.0
FIRST_SECONDS, MORE_SECONDS = 30.0, 240.0
"""How much tests' time each mutant meets at first, and a survivor in all.

The first tests notice most; but what only they let through is no survivor yet: the one that was
written for the line may be a slower one.
"""


SIZES = {
    *("_BLOCK_BYTES", "_SMALL_BYTES", "_PART_BYTES", "READ_BYTES", "ROWS_PER_GROUP", "_NOTED"),
    *("_LINES_AT_ONCE", "_BLOCK_ROWS", "BLOCK_ROWS", "REMEMBERED", "TAKEN_ROWS", "SHORT_BYTES"),
}
"""Constants that say how much is taken at once: another value gives the same answers."""


WARM = {
    *("aiohttp", "anthropic", "fsspec", "genai_prices", "httpx2", "hypothesis", "jinja2"),
    *("json_repair", "jsonschema_rs", "openai", "pandas", "pyarrow.dataset", "pyarrow.parquet"),
    *("pydantic", "pytest", "tenacity", "tqdm", "typer"),
}
"""What every child would import; nothing of ours, since that is what is changed."""


@dataclass
class Mutant:
    """One change of one module, and how it went."""

    module: str
    row: int
    what: str
    source: str = field(repr=False)
    change: str = ""
    met: set[str] = field(default_factory=set, repr=False)
    tests: list[str] = field(default_factory=list, repr=False)
    """What it meets, where that is named."""

    outcome: str = ""
    noticed_by: str = ""

    @property
    def name(self) -> str:
        """The module's name as it is imported."""
        return self.module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def main() -> int:
    """Print each folder's score and its survivors; 1 where nothing was run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=200, help="mutants in all")
    parser.add_argument("--minutes", type=float, default=120, help="then no more are begun")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(FOLDERS), help="folders, with commas")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--work", help="keep the copy and its coverage here, for the next run")
    parser.add_argument("--mutant", metavar="MODULE:ROW[:KIND]", help="this line's, alone")
    parser.add_argument("--tests", nargs="+", help="with --mutant: meet these, in this checkout")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="frameenrich-mutants-") as temporary:
        work = Path(asked.work or temporary).absolute()
        work.mkdir(exist_ok=True)
        tests = Tests(work, asked.tests)
        sys.path.insert(0, str(Path.cwd()))
        os.environ.update(FEW)
        for name in sorted(WARM):
            importlib.import_module(name)
        folders = asked.only.split(",")
        if asked.mutant:
            mutants = list(mutants_of_row(asked.mutant))
            folders = [asked.mutant.removeprefix("frameenrich/").split("/")[0]]
        else:
            mutants = sampled(folders, asked.sample // len(folders), random.Random(asked.seed))
        run_all(mutants, tests, asked.jobs, time.monotonic() + asked.minutes * 60)
        doubt(mutants, tests.reports)
    for folder in folders:
        report(folder, [m for m in mutants if m.module.split("/")[1] == folder and m.outcome])
    run = [mutant for mutant in mutants if mutant.outcome]
    killed = sum(mutant.outcome != "survived" for mutant in run)
    print(f"all: {killed} of {len(run)} mutants were noticed")
    return 0 if run else 1


def report(folder: str, run: list[Mutant]) -> None:
    """Print a folder's score and what survived."""
    survivors = [mutant for mutant in run if mutant.outcome == "survived"]
    late = sum(mutant.outcome == "time" for mutant in run)
    print(f"{folder}: {len(run) - len(survivors)} of {len(run)} were noticed, {late} by the clock")
    for mutant in sorted(survivors, key=lambda m: (m.module, m.row)):
        print(f"  survived: {mutant.module}:{mutant.row} {mutant.what}: {mutant.change}")


# --- the changes ----------------------------------------------------------------------------------


Change = Callable[[], Mutant | None]
"""Makes a mutant; None where the change would change nothing that runs."""


def sampled(folders: list[str], each: int, rng: random.Random) -> list[Mutant]:
    """Return so many mutants of each folder, in an order that is random, too."""
    mutants: list[Mutant] = []
    for folder in folders:
        every = [
            change
            for path in sorted(Path("frameenrich", folder).glob("*.py"))
            for change in changes_of(path)
        ]
        rng.shuffle(every)
        made = (mutant for _, change in every if (mutant := change()))
        mutants += islice(made, each)
        print(f"{folder}: {len(every)} changes are possible", flush=True)
    rng.shuffle(mutants)  # so that a run that is cut short is a sample of all folders too
    return mutants


def mutants_of_row(where: str) -> Iterator[Mutant]:
    """Yield every mutant of one line, as `store/lease.py:107`, or `:107:AddNot` of one kind."""
    module, row, *kinds = where.split(":")
    path = Path("frameenrich", module.removeprefix("frameenrich/"))
    made = (m for n, change in changes_of(path) if n == int(row) and (m := change()))
    yield from (m for m in made if not kinds or kinds[0] in m.what)


def changes_of(path: Path) -> Iterator[tuple[int, Change]]:
    """Yield every change of a module with its line, unmade, since parsing each takes time."""
    source = path.read_text()
    yield from _of_cosmic_ray(path, source)
    yield from _calls_left_out(path, source)


def _of_cosmic_ray(path: Path, source: str) -> Iterator[tuple[int, Change]]:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast(source)))
    for name in sorted(operator_names()):
        kind = get_operator(name)
        if kind.arguments():
            continue
        operator = kind()
        positions = (p for node in nodes for p in operator.mutation_positions(node))
        for nth, (start, _) in enumerate(positions):

            def make(
                operator: Any = operator, nth: int = nth, row: int = start[0], what: str = name
            ) -> Mutant | None:
                return _mutant(path, row, what, source, mutate_code(source, operator, nth))

            yield start[0], make


def _calls_left_out(path: Path, source: str) -> Iterator[tuple[int, Change]]:
    """Yield a module without one of the calls that are made for what they do."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            dropped = " " * node.col_offset + "pass\n"
            kept = "".join((*lines[:first], dropped, *lines[last:]))
            made = partial(_mutant, path, node.lineno, "call left out", source, kept)
            yield node.lineno, made


def _mutant(path: Path, row: int, what: str, source: str, changed: str | None) -> Mutant | None:
    """Return a mutant, unless what was changed changes nothing by a rule of `_bare`."""
    tree = ast.parse(source)
    inert = any(start <= row <= end for start, end in _inert(tree))
    if inert or not changed or _parsed(changed) in {None, ast.dump(_bare(tree))}:
        return None
    was, now = source.splitlines(), changed.splitlines()
    pairs = zip(was, now, strict=False)
    change = next((f"{a.strip()} -> {b.strip()}" for a, b in pairs if a != b), "")
    return Mutant(str(path), row, what.removeprefix("core/"), changed, change)


def _parsed(source: str) -> str | None:
    try:
        return ast.dump(_bare(ast.parse(source)))
    except SyntaxError:
        return None


def _bare(tree: ast.Module) -> ast.Module:
    """Return a module without what no answer hangs on.

    Annotations, which are never evaluated here; sizes of buffers; `is` where `==` says the same
    (`None`, members of an enum); a cache; and what guards against programmers only: `strict=` of
    `zip`, `frozen=`, `slots=` and `kw_only=` of a class.
    """
    guards = {"strict", "frozen", "slots", "kw_only"}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
            node.decorator_list = [d for d in node.decorator_list if ast.unparse(d) != "cache"]
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(value=None)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in SIZES:
            node.value = ast.Constant(value=None)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"zip", "dataclass"}:
            node.keywords = [k for k in node.keywords if k.arg not in guards]
        elif isinstance(node, ast.Compare):
            node.ops = [_EQUAL.get(type(op), type(op))() for op in node.ops]
    return tree


_EQUAL: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Is: ast.Eq, ast.IsNot: ast.NotEq}


def _inert(tree: ast.Module) -> list[tuple[int, int]]:
    """Return the lines of blocks that only type checkers read."""
    return [
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        or (isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases))
    ]


# --- the tests ------------------------------------------------------------------------------------


class Tests:
    """Which tests run which lines, and how long each takes."""

    def __init__(self, work: Path, named: list[str] | None) -> None:
        """Go to the copy and read what each test runs there, unless the tests are named."""
        self.reports = work
        self.named = named
        # What is named is whole files, so an endless loop is given ten minutes.
        self.seconds: dict[str, float] = defaultdict(lambda: 120.0 if named else SLOW)
        self.noticed: dict[str, Counter[str]] = defaultdict(Counter)
        if named:
            os.chdir(ROOT)
            return
        copy = work / "checkout"
        if not copy.exists():
            ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*cache")
            shutil.copytree(ROOT, copy, ignore=ignored)
        os.chdir(copy)
        books, times = work / "coverage.db", work / "times.xml"
        if not times.exists():
            self._record(books, times)
        self.seconds |= {
            f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}": float(
                case.get("time", "0")
            )
            for case in ET.parse(times).iter("testcase")
            if not list(case)  # failed or skipped: it can notice nothing
        }
        self._by_line: dict[tuple[str, int], set[str]] = defaultdict(set)
        self._rows: dict[str, Counter[str]] = defaultdict(Counter)
        """Of each module, how many of its lines each test runs."""
        data = CoverageData(str(books))
        data.read()
        # One text for each test: some lines are run by thousands.
        names = {context: context.rpartition("|")[0] for context in data.measured_contexts()}
        names = {c: test for c, test in names.items() if self.seconds.get(test, SLOW) < SLOW}
        for path in data.measured_files():
            module = str(Path(path).relative_to(Path.cwd()))
            for row, contexts in data.contexts_by_lineno(path).items():
                own = {names[context] for context in contexts if context in names}
                self._by_line[module, row] |= own
                self._rows[module].update(own)
        self._all_rows: Counter[str] = sum(self._rows.values(), Counter())

    def _record(self, books: Path, times: Path) -> None:
        options = [
            "--dist=load",  # or the tests of a group get other names
            "--cov=frameenrich",
            "--cov-context=test",
            "--cov-report=",
            f"--junitxml={times}",
        ]
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "2", *options, *TESTS],
            env={**os.environ, **FEW, "COVERAGE_FILE": str(books), "PYTHONPATH": str(Path.cwd())},
            check=False,  # one that fails is left out
            stdout=subprocess.DEVNULL,
        )

    def meeting(self, mutant: Mutant, seconds: float) -> list[str]:
        """Return the tests that a mutant has not met and that fit into so many seconds."""
        if named := mutant.tests or self.named:
            return [] if mutant.met else named
        chosen, sum_seconds = [], 0.0
        for test in self._ranking(mutant):
            if test not in mutant.met and sum_seconds + self.seconds[test] <= seconds:
                sum_seconds += self.seconds[test]
                chosen.append(test)
        return chosen

    def _ranking(self, mutant: Mutant) -> list[str]:
        """Return the tests of a mutant's line: those first that noticed others of its module.

        Then the quick ones, and those that run little else than this module; of each test with
        parameters one example before the second of any.
        """
        module = self._rows[mutant.module]
        # What runs at import has no test of its own: a constant is met by those of its module.
        found = self._by_line[mutant.module, mutant.row] or set(module)
        costs = {t: max(self.seconds[t], 0.02) * self._all_rows[t] / module[t] for t in found}
        nth: Counter[str] = Counter()
        keys: dict[str, tuple[int, int, float]] = {}
        for test in sorted(found, key=lambda test: (costs[test], test)):
            function = test.partition("[")[0]
            keys[test] = (-self.noticed[mutant.module][test], nth[function], costs[test])
            nth[function] += 1
        return sorted(found, key=lambda test: (keys[test], test))


# --- the runs -------------------------------------------------------------------------------------


def run_all(mutants: list[Mutant], tests: Tests, jobs: int, until: float) -> None:
    """Run the tests on each mutant, some at a time, and note how each went.

    Survivors meet more after all have met some, so that a run that is cut short knows of each.
    """
    for seconds in (FIRST_SECONDS, MORE_SECONDS):
        waiting = deque(mutant for mutant in mutants if mutant.outcome in {"", "survived"})
        running: dict[int, tuple[Mutant, float]] = {}
        while running or (waiting and time.monotonic() < until):
            if waiting and len(running) < jobs and time.monotonic() < until:
                mutant = waiting.popleft()
                met = tests.meeting(mutant, seconds)
                mutant.met.update(met)
                # Ample, since the machine may be busy: only an endless loop is to be ended by it.
                limit = 60 + 5 * sum(map(tests.seconds.__getitem__, met))
                running[_forked(mutant, met, tests.reports)] = (mutant, time.monotonic() + limit)
                continue
            _note_ended(running, tests)
            time.sleep(0.05)


def _note_ended(running: dict[int, tuple[Mutant, float]], tests: Tests) -> None:
    """Write down how those went that have ended, and end those that do not."""
    for process, (mutant, limit) in list(running.items()):
        ended, code = os.waitpid(process, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(code)
            # Of a run without tests nothing is known.
            mutant.outcome = {0: "survived", _NO_SUCH_TEST: ""}.get(code, "noticed")
            mutant.noticed_by = _report_of(process, tests.reports).partition("\n")[0]
            tests.noticed[mutant.module][mutant.noticed_by] += mutant.outcome == "noticed"
        elif time.monotonic() > limit:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            mutant.outcome = "time"
        else:
            continue
        del running[process]
        where = f"{mutant.module}:{mutant.row}"
        print(
            mutant.outcome or "not run",
            where,
            mutant.what,
            mutant.change,
            mutant.noticed_by,
            flush=True,
        )


def doubt(mutants: list[Mutant], reports: Path) -> None:
    """Run the tests that noticed something on the code as it is: one that fails proved nothing."""
    noticing = sorted({mutant.noticed_by for mutant in mutants if "::" in mutant.noticed_by})
    process = _forked(None, noticing, reports)
    os.waitpid(process, 0)
    failed = _report_of(process, reports).splitlines()
    for mutant in mutants:
        if mutant.outcome == "noticed" and (not failed or mutant.noticed_by in failed[:-1]):
            mutant.outcome = ""
            print("doubtful", mutant.module, mutant.row, mutant.noticed_by)


def _report_of(process: int, reports: Path) -> str:
    path = reports / f"report-{process}"
    said = path.read_text().strip() if path.exists() else ""
    path.unlink(missing_ok=True)
    return said


_NO_SUCH_TEST = 4


def _forked(mutant: Mutant | None, tests: list[str], reports: Path) -> int:
    """Start a child in which the mutant's module is imported as it was changed."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()  # so that what its tests start can be ended with it
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        if mutant is not None:
            sys.meta_path.insert(0, _Changed(mutant))
        pytest = importlib.import_module("pytest")
        options = ["-q", "-n", "0", "-p", "no:cacheprovider", "--timeout=60", "-o", "addopts="]
        # What is warm cannot be rewritten, which is no fault of the tests.
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning", *(["-x"] if mutant else [])]
        with (reports / f"report-{os.getpid()}").open("w") as said:
            if mutant is not None:
                # A module that cannot even be imported is seen by any test.
                importlib.import_module(mutant.name)
            ended = pytest.main([*options, *tests], plugins=[_Recorder(said)]) if tests else 0
            print(f"exit={int(ended)}", file=said)
        code = _NO_SUCH_TEST if ended == pytest.ExitCode.USAGE_ERROR else int(ended != 0)
    finally:
        os._exit(code)  # threads of the tests may still wait for something


class _Recorder:
    """A plugin of pytest that writes down which tests failed."""

    def __init__(self, said: IO[str]) -> None:
        self._said = said

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Write one down."""
        if report.failed:
            print(report.nodeid, file=self._said, flush=True)


class _Changed:
    """An importer that gives one module's changed source, and no other module."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """Return how the changed module is loaded."""
        if name != self._mutant.name:
            return None
        path = str(Path(self._mutant.module).absolute())
        loader = _Source(name, path)
        loader.changed = self._mutant.source
        return importlib.util.spec_from_file_location(name, path, loader=loader)


class _Source(importlib.machinery.SourceFileLoader):
    changed: str

    def get_code(self, fullname: str) -> CodeType:
        """Return the changed code; no compiled file is read or written."""
        del fullname
        return compile(self.changed, self.path, "exec", dont_inherit=True)


if __name__ == "__main__":
    sys.exit(main())
