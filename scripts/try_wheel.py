"""Build the wheel and the sdist, and try the wheel as a new user would: in a fresh environment.

What it runs is installed from the wheel alone, without any extra, in a folder without a checkout:
the version, the sample data, the demo (which says what is missing), an estimate, and a whole job
against the loopback server of the tests. It takes half a minute::

    uv run python scripts/try_wheel.py
"""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from batch_server import BatchServer  # noqa: E402 - the tests' own server

ASK = ["-t", "Colour of {{ title }}?", "-m", "gpt-4o-mini", "--key", "sku", "--limit", "3"]


def main() -> None:
    """Build, install, try; ends with an exception where something is not as it should be."""
    with tempfile.TemporaryDirectory(prefix="frameenrich-wheel-") as folder:
        wheel = build(Path(folder))
        check_contents(wheel)
        python = install(wheel, Path(folder) / "venv")
        try_it(python, Path(folder))
    print("The wheel works.")


def build(folder: Path) -> Path:
    """Build both archives; return the wheel."""
    run("uv", "build", "-q", "--out-dir", folder / "dist", ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    # Whoever has the sdist alone can run the tests, the checks and the site.
    wanted = {
        "README.md",
        "docs/tables.md",
        "tests/conftest.py",
        "tests/no_authority.pem",
        ".ci/run",
    }
    wanted |= {"benchmarks/workload.py", "mkdocs.yml", "sample_data/products.csv"}
    check(wanted <= names, f"The sdist lacks {sorted(wanted - names)}.")
    return wheel


def check_contents(wheel: Path) -> None:
    """Check that the types and the sample are in it, and that no link of its page is relative."""
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (metadata,) = (name for name in names if name.endswith("METADATA"))
        page = email.message_from_bytes(packed.read(metadata))
    check("frameenrich/py.typed" in names, "py.typed is not in the wheel.")
    check("frameenrich/_sample_data/products.csv" in names, "The sample data is missing.")
    relative = re.findall(r"\]\((?!https?:)[^)]*\)", str(page.get_payload()))
    check(not relative, f"Links that lead nowhere on the package's page: {relative}")


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel in a fresh environment; return its Python."""
    run("uv", "venv", "-q", "--python", sys.executable, folder)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    run("uv", "pip", "install", "-q", "--python", python, wheel)
    return python


def try_it(python: Path, folder: Path) -> None:
    """Do what a new user does first."""
    command = python.parent / "frameenrich"
    sample = "import frameenrich; frameenrich.sample_data().to_csv('rows.csv', index=False)"
    run(python, "-c", sample, cwd=folder)
    check("frameenrich" in run(command, "--version", cwd=folder), "No version.")
    demo = run(command, "demo", cwd=folder, wanted=2)
    check("Asking" not in demo and demo.count("pip install") == 2, f"The demo says: {demo}")  # noqa: PLR2004
    guess = run(command, "estimate", "rows.csv", *ASK, cwd=folder)
    check("at most" in guess, f"The estimate says: {guess}")
    with BatchServer() as server:
        reach = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-test"}
        words = ["run", "rows.csv", "out.csv", *ASK, "--poll-seconds", "0.05"]
        said = run(command, *words, cwd=folder, environment=reach)
    check("Wrote 3 rows" in said, f"The run says: {said}")


def run(
    *words: str | Path,
    cwd: Path | None = None,
    wanted: int = 0,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command; return what it says on both streams."""
    done = subprocess.run(  # noqa: S603 - our own words
        [*map(str, words)],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    check(done.returncode == wanted, f"{words[0]} {words[1]}: {done.returncode}\n{done.stdout}")
    return done.stdout


def check(right: bool, otherwise: str) -> None:
    """Stop with a sentence where something is not right."""
    if not right:
        raise SystemExit(otherwise)


if __name__ == "__main__":
    main()
