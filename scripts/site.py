"""Build the documentation site, strictly: a link that leads nowhere is an error.

The pages are copied as they lie in the repository, the reference is made of the docstrings and of
``--help``. The site is in ``build/site``::

    uv run --group docs python scripts/site.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "pages"
COPIED = ["*.md", "LICENSE", "docs", "notebooks/*.ipynb", "tests/*.md", "benchmarks/*.md"]

REFERENCE = {
    "frameenrich": [
        "frameenrich.tables.submit",
        "frameenrich.tables.collect",
        "frameenrich.tables.llmbatch",
        "frameenrich.verbs.submit.submit_requests",
        "frameenrich.verbs.list_jobs.jobs",
        "frameenrich.verbs.find.open_job",
        "frameenrich.verbs.clean.clean",
        "frameenrich.verbs.sample.sample_data",
        "frameenrich.model.RowStatus",
    ],
    "accessor": ["frameenrich.accessor.LLMBatch"],
    "job": ["frameenrich.verbs.job.Job"],
    "errors": ["frameenrich.errors"],
    "providers": ["frameenrich.providers.protocol"],
}
TITLES = {
    "frameenrich": "frameenrich",
    "accessor": "df.llmbatch",
    "job": "Job",
    "errors": "Errors",
    "providers": "Providers of your own",
}


def main() -> None:
    """Stage the pages and build the site."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for pattern in COPIED:
        for found in ROOT.glob(pattern):
            copy(found, PAGES / found.relative_to(ROOT))
    (PAGES / "reference").mkdir()
    for name, objects in REFERENCE.items():
        directives = "\n\n".join(f"::: {each}" for each in objects)
        write(name, f"# {TITLES[name]}\n\n{directives}\n")
    write("command_line", command_line())
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    environment = {**os.environ, "DISABLE_MKDOCS_2_WARNING": "true", "NO_MKDOCS_2_WARNING": "true"}
    subprocess.run(words, cwd=ROOT, env=environment, check=True)  # noqa: S603 - our own words


def copy(source: Path, target: Path) -> None:
    """Copy a page, or a folder of them."""
    if source.is_dir():
        shutil.copytree(source, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def write(name: str, text: str) -> None:
    """Write a page of the reference."""
    (PAGES / "reference" / f"{name}.md").write_text(text, encoding="utf-8")


def command_line() -> str:
    """Return the help of each command."""
    from typer.main import get_command  # noqa: PLC0415
    from typer.testing import CliRunner  # noqa: PLC0415

    from frameenrich.cli.main import app  # noqa: PLC0415 - typer

    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})
    names = list(getattr(get_command(app), "commands", {}))
    texts = [(name, runner.invoke(app, [name, "--help"]).output) for name in names]
    sections = [f"## frameenrich {name}\n\n```text\n{text.strip()}\n```\n" for name, text in texts]
    whole = runner.invoke(app, ["--help"]).output.strip()
    return f"# Command line\n\n```text\n{whole}\n```\n\n" + "\n".join(sections)


if __name__ == "__main__":
    main()
