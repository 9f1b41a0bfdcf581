"""Servers on this machine: a real llama.cpp over HTTP, without a key, and none that listens."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from typer.testing import CliRunner

import frameenrich
from frameenrich.cli.main import app
from frameenrich.errors import CredentialsError, ParameterError, ProviderError
from frameenrich.providers.dialects import client_at
from frameenrich.providers.local.provider import EMBEDDED_MODEL, model_path

pytestmark = pytest.mark.any_pandas
Reply = tuple[int, str, bytes]
COLORS = ["red", "blue", "green"]


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    """The base URL of a llama.cpp server with the embedded weights."""
    xllamacpp = pytest.importorskip("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(model_path(EMBEDDED_MODEL))
    settings.n_parallel, settings.n_ctx, settings.verbosity, settings.warmup = 1, 2048, 0, False
    # Two threads would spin for each other's share of a busy core.
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(settings)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three rows in a file."""
    path = tmp_path / "mugs.csv"
    path.write_text("sku,title\nA1,Red mug\nA2,Blue hose\nA3,Green sock\n", encoding="utf-8")
    return path


def closed_port() -> str:
    """Return the base URL of a port where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}/v1"


def test_a_llama_cpp_server_from_the_command_line(llama: str, table: Path, store: Path) -> None:
    """``--provider live --base-url`` asks a real llama.cpp, with no key anywhere."""
    words = ["run", str(table), "out.csv", "-t", "Color of {{ title }}?", "-m", "smollm2"]
    words += ["--key", "sku", "--labels", ",".join(COLORS), "--name", "color"]
    words += ["--provider", "live", "--base-url", llama, "--store", str(store)]
    done = CliRunner().invoke(app, words)

    assert done.exit_code == 0, done.output
    out = pd.read_csv("out.csv")
    assert out["color_status"].tolist() == ["ok"] * 3
    assert out["color"].isin(COLORS).all()
    again = CliRunner().invoke(app, ["status", "--base-url", llama, "--store", str(store)])
    assert again.exit_code == 0


def test_a_server_on_this_machine_needs_no_key(
    llama: str, table: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``OPENAI_BASE_URL`` on this machine, Python asks without a key, too."""
    monkeypatch.setenv("OPENAI_BASE_URL", llama)
    job = pd.read_csv(table).llmbatch.submit(
        "Color of {{ title }}?",
        "smollm2",
        params={"max_tokens": 4, "temperature": 0},
        provider="live",
        store=store,
    )
    out = job.collect()

    assert out["llmbatch_status"].isin(["ok", "truncated"]).all()


@pytest.mark.parametrize("provider", ["live", "openai"])
def test_nobody_listens(provider: str, table: Path, store: Path, pauses: list[float]) -> None:
    """A refused connection is told within two seconds of waiting, with the address."""
    url = closed_port()
    client: Any = openai.OpenAI(api_key="sk-test", base_url=url)
    with pytest.raises(ProviderError, match=url.removeprefix("http://").removesuffix("/v1")):
        pd.read_csv(table, nrows=1).llmbatch.submit(
            "{{ title }}?", "m", provider=provider, client=client, store=store
        )

    assert 0 < sum(pauses) < 2.0


def say(status: int, content: Any, kind: str = "application/json") -> Callable[[str], Reply]:
    """Return what a server answers that has been found, whatever it is asked."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda _: (status, kind, body)


def ollama(path: str) -> Reply:
    """Answer as Ollama does: only under /v1, with a text elsewhere."""
    if not path.startswith("/v1/"):
        return 404, "text/plain", b"404 page not found"
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "red"},
        "finish_reason": "stop",
    }
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "llama3.2:1b",
            "system_fingerprint": "fp_ollama", "choices": [choice],
            "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}}  # fmt: skip
    return 200, "application/json", json.dumps(body).encode()


@contextlib.contextmanager
def serving(answer: Callable[[str], Reply]) -> Iterator[str]:
    """Serve that on a loopback port; yields the address without a path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, kind, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


def test_an_ollama_behind_a_proxys_variables(
    table: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server on this machine is asked directly, whatever proxy leads elsewhere."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, closed_port().removesuffix("/v1"))
    with serving(ollama) as address:
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://{address}/v1")
        job = pd.read_csv(table).llmbatch.submit(
            "{{ title }}?", "llama3.2:1b", labels=COLORS, provider="live", store=store
        )
        assert job.collect()["llmbatch_status"].tolist() == ["ok"] * 3
        sdk = client_at(f"http://{address}/v1")
        found = sdk.post("/chat/completions", body={}, cast_to=dict[str, Any])
        assert found["model"] == "llama3.2:1b"


PAGE = b"<html><body>Sign in</body></html>"
FLAT = {"object": "error", "message": "The model `m` does not exist.", "type": "NotFoundError",
        "param": None, "code": 404}  # fmt: skip
UNKNOWN = {"error": "Unexpected endpoint or method. (POST /chat/completions). Returning 200 anyway"}
PULL = {"error": {"message": 'model "m" not found, try pulling it first', "type": "api_error"}}


@pytest.mark.parametrize(
    ("answer", "url", "says"),
    [
        (ollama, "http://{}", "18 bytes that are no JSON object: .* Check base_url"),
        (say(404, PULL), "http://{}/v1", "try pulling it first. Check base_url"),
        (say(404, FLAT), "http://{}/v1", "The model `m` does not exist. Check base_url"),
        (say(404, {"detail": "Not Found"}), "http://{}", "Check base_url .it usually ends in /v1"),
        (say(200, UNKNOWN), "http://{}", "Unexpected endpoint .* Check base_url"),
        (say(200, PAGE, "text/html"), "http://{}/v1", "text/html, 33 bytes .* Check base_url"),
        (ollama, "https://{}/v1", "write http://, not https://"),
    ],
    ids=["Ollama without /v1", "Ollama, no model", "vLLM, no model", "vLLM without /v1",
         "LM Studio without /v1", "a page", "https"],
)  # fmt: skip
def test_a_wrong_address_is_told_at_once(
    answer: Any, url: str, says: str, table: Path, store: Path, pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each server has its own words for a wrong path or name; they come within two seconds."""
    with serving(answer) as address:
        monkeypatch.setenv("OPENAI_BASE_URL", url.format(address))
        with pytest.raises(ProviderError, match=says):
            pd.read_csv(table, nrows=1).llmbatch.submit(
                "{{ title }}?", "m", provider="live", store=store
            )

    assert sum(pauses) < 2.0


@pytest.mark.slow
def test_a_server_without_a_batch_api(llama: str, table: Path, store: Path) -> None:
    """Who forgets ``--provider live`` is told to use it."""
    words = ["submit", str(table), "-t", "{{ title }}?", "-m", "m", "--base-url", llama]
    done = CliRunner().invoke(app, [*words, "--store", str(store)])

    assert done.exit_code == 3
    assert "--provider live" in done.output


def test_which_key_goes_where(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is read from the variable that is named, and a missing one is named."""
    monkeypatch.setenv("GATEWAY_KEY", "sk-gateway")
    assert client_at("https://gateway.example.org/v1", "GATEWAY_KEY").api_key == "sk-gateway"
    assert client_at("http://127.0.0.1:8000/v1").api_key == "none"
    with pytest.raises(CredentialsError, match="OPENAI_API_KEY"):
        client_at("https://gateway.example.org/v1")
    with pytest.raises(CredentialsError, match="NO_SUCH_KEY"):
        client_at("http://127.0.0.1:8000/v1", "NO_SUCH_KEY")
    with pytest.raises(ParameterError, match="http://"):
        client_at("localhost:11434/v1")
    words = ["submit", str(table), "-t", "{{ title }}?", "-m", "m", "--provider", "groq"]
    done = CliRunner().invoke(app, [*words, "--base-url", "http://127.0.0.1:8000/v1"])
    assert done.exit_code == 2
    assert "not groq" in done.output


def test_help_names_the_variables() -> None:
    """``frameenrich --help`` names every environment variable that is read."""
    told = CliRunner().invoke(app, ["--help"]).output
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "FRAMEENRICH_STORE", "AZURE_OPENAI_ENDPOINT"):
        assert name in told
    assert frameenrich.__version__
