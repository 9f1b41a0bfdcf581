"""Define the command line's other options: where requests go, which table, how long to wait.

A command takes a group as one parameter; `flatten_options` makes one option of each of its fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from frameenrich.cli.option_groups import given
from frameenrich.cli.values import read_cache, read_pairs, read_params, read_prices
from frameenrich.errors import ParameterError

_SEND = "Where to"
_WAIT = "Waiting"
_IN_OUT = "In and out"


@dataclass(frozen=True)
class BudgetOptions:
    """Options on the job's cost cap and the model's prices."""

    max_cost: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="USD",
            help="What the whole job may cost, later rounds too; else nothing is sent.",
            rich_help_panel=_SEND,
        ),
    ] = None
    prices: Annotated[
        str | None,
        typer.Option(
            metavar="INPUT,OUTPUT[,CACHED[,WRITTEN]]",
            help="The model's price, in live USD per million tokens, where it is not known.",
            rich_help_panel=_SEND,
        ),
    ] = None

    def kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments ``max_cost`` and ``prices``, those that were given."""
        return given(self, prices=None if self.prices is None else read_prices(self.prices))


@dataclass(frozen=True)
class ServerOptions:
    """Options on the server, where it is not the one that the environment names."""

    base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The server, such as http://localhost:11434/v1; for --provider openai and live. "
            "By default $OPENAI_BASE_URL, else OpenAI. One on this machine needs no key.",
            rich_help_panel=_SEND,
        ),
    ] = None
    api_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE",
            help="The environment variable that holds the server's key.",
            rich_help_panel=_SEND,
            show_default="OPENAI_API_KEY",
        ),
    ] = None

    def client(self, provider: str | None = None) -> Any:
        """Make a client for the server; None where the environment variables name it.

        Raises
        ------
        ParameterError
            The provider takes its server from its own variables, or the name is no variable's.
        CredentialsError
            The variable is empty.
        """
        from frameenrich.providers.dialects import client_at  # noqa: PLC0415 - heavy

        # None and not a client: the provider then reads the environment as its SDK does, or needs
        # no key.
        if self.base_url is None and self.api_key_env is None:
            return None
        # Anthropic's and the others' SDKs read variables of their own; an OpenAI client would reach
        # them with the wrong key, and the error would be about something else.
        if provider not in (None, "openai", "live"):
            raise ParameterError(
                f"--base-url and --api-key-env are for --provider openai and live, not {provider}.",
                "Leave them out: the provider's own variables name its server and its key.",
            )
        return client_at(self.base_url, self.api_key_env)


@dataclass(frozen=True)
class ProviderOptions:
    """Options on sending requests: provider, limits and budget."""

    provider: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="openai (Batch API), live (one call a request), azure, groq, together, anthropic, "
            "mistral, gemini, local (embedded model), file (nowhere), or another.",
            rich_help_panel=_SEND,
        ),
    ] = "openai"
    max_enqueued_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="TOKENS",
            help="How many prompt tokens may wait at the provider at once.",
            rich_help_panel=_SEND,
        ),
    ] = None
    max_in_flight: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="REQUESTS",
            help="With --provider live: how many requests may wait for their answers at once.",
            rich_help_panel=_SEND,
            show_default="64",
        ),
    ] = None
    requests_per_minute: Annotated[
        int | None,
        typer.Option(
            "--rpm",
            min=1,
            metavar="REQUESTS",
            help="With --provider live: requests a minute.",
            rich_help_panel=_SEND,
        ),
    ] = None
    tokens_per_minute: Annotated[
        int | None,
        typer.Option(
            "--tpm",
            min=1,
            metavar="TOKENS",
            help="With --provider live: tokens a minute.",
            rich_help_panel=_SEND,
        ),
    ] = None
    request_timeout_seconds: Annotated[
        float | None,
        typer.Option(
            "--request-timeout",
            min=0.001,
            metavar="SECONDS",
            help="With --provider live: how long one answer may take; a row that takes longer "
            "fails, and is not asked again by itself.",
            rich_help_panel=_SEND,
            show_default="600",
        ),
    ] = None
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A note on the provider's batches, may be given several times.",
            rich_help_panel=_SEND,
        ),
    ] = None
    completion_window: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How long a batch may take, where the provider lets you say: 72h, 7d.",
            rich_help_panel=_SEND,
            show_default="24h",
        ),
    ] = None
    confirm_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="How long a batch whose creation got no answer is looked for, before a new one.",
            rich_help_panel=_SEND,
            show_default="60",
        ),
    ] = None
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="on|seed",
            help="Have the provider cache the system message: on marks it, seed also sends one "
            "row ahead as a batch of its own.",
            rich_help_panel=_SEND,
        ),
    ] = None
    probe: Annotated[
        bool | None,
        typer.Option(
            "--probe/--no-probe",
            help="Whether one row is asked live first, so that what the server refuses is told "
            "before all rows go out.",
            rich_help_panel=_SEND,
            show_default="from 1,000 requests on",
        ),
    ] = None
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Ask everything anew, and pay for it.", rich_help_panel=_SEND),
    ] = False
    spending: BudgetOptions = BudgetOptions()
    server: ServerOptions = ServerOptions()

    def kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of ``submit`` that are not in `RequestOptions`."""
        metadata = None if self.metadata is None else read_pairs("--metadata", self.metadata)
        client = self.server.client(self.provider)
        cache = None if self.cache is None else read_cache(self.cache)
        own = given(self, metadata=metadata, client=client, cache=cache, probe=None)
        if self.probe is not None:  # `given` would drop an explicit --no-probe
            own["probe"] = self.probe
        return {**own, **self.spending.kwargs()}


@dataclass(frozen=True)
class InputOptions:
    """Options on reading any input."""

    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="csv, tsv, jsonl or json, where no file ending says it, as for -.",
            rich_help_panel=_IN_OUT,
        ),
    ] = None
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="ROWS", help="The first rows only.", rich_help_panel=_IN_OUT),
    ] = None


@dataclass(frozen=True)
class TableInputOptions(InputOptions):
    """Options on reading a table: sheet, delimiter, encoding."""

    sheet: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which sheet of a workbook is the table.",
            rich_help_panel=_IN_OUT,
            show_default="the only one that holds something",
        ),
    ] = None
    delimiter: Annotated[
        str | None,
        typer.Option(
            metavar="SIGN",
            help="What stands between the cells of a CSV: ';', tab, '|', ...",
            rich_help_panel=_IN_OUT,
            show_default="a comma; in .tsv a tab",
        ),
    ] = None
    encoding: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How IN is saved, such as cp1252 or utf-16; what is written is UTF-8.",
            rich_help_panel=_IN_OUT,
            show_default="utf-8",
        ),
    ] = None


@dataclass(frozen=True)
class StreamInputOptions(TableInputOptions):
    """Options on reading a table that may be larger than memory."""

    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            help="Whether IN is read a chunk at a time, which takes the same memory however large "
            "it is.",
            rich_help_panel=_IN_OUT,
            show_default="where it is larger than 256 MB",
        ),
    ] = None


@dataclass(frozen=True)
class WaitOptions:
    """Options on how long to wait for answers."""

    timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="How long to wait; for ever by default.",
            rich_help_panel=_WAIT,
        ),
    ] = None
    poll_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Between two polls; by default more and more.",
            rich_help_panel=_WAIT,
        ),
    ] = None


@dataclass(frozen=True)
class RetryOptions:
    """Options on what other request some rows are asked again with."""

    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Another model for these rows.")
    ] = None
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A request parameter to change for these rows."),
    ] = None

    def kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments ``model`` and ``params``."""
        # Only what differs is given: the row otherwise goes as it was last sent.
        return {"model": self.model, "params": read_params(self.param)}


@dataclass(frozen=True)
class CollectOptions:
    """Options on waiting, on the columns written, and on the exit code."""

    usage: Annotated[
        bool,
        typer.Option(
            "--usage",
            help="Add columns on model, attempts, tokens and the raw answer.",
            rich_help_panel=_IN_OUT,
        ),
    ] = False
    flatten: Annotated[
        bool,
        typer.Option(
            "--flatten",
            help="Give nested objects a column for each member, field.sub.",
            rich_help_panel=_IN_OUT,
        ),
    ] = False
    safe_csv: Annotated[
        bool,
        typer.Option(
            "--safe-csv",
            help="Put ' before answers that a spreadsheet would run as a formula (CSV, TSV).",
            rich_help_panel=_IN_OUT,
        ),
    ] = False
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with 1 where a row has no usable answer; the result is written anyway.",
            rich_help_panel=_IN_OUT,
        ),
    ] = False
    min_ok: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Exit with 1 where fewer of the rows than this, say 0.95, have a usable answer; "
            "without it, where none has.",
            rich_help_panel=_IN_OUT,
        ),
    ] = None
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Write over cells of an earlier collect that somebody corrected since.",
            rich_help_panel=_IN_OUT,
        ),
    ] = False
    accept: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Add columns on how sure each row is, and on whether such rows are right this "
            "often, say 0.95, by the newest review.",
            rich_help_panel=_IN_OUT,
        ),
    ] = None
    max_rounds: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="ROUNDS",
            help="How often rows without a usable answer are asked again by itself.",
            rich_help_panel=_WAIT,
        ),
    ] = 0
    waiting: WaitOptions = WaitOptions()

    def kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of ``collect``."""
        rounds = self.max_rounds or None
        # Exit codes and quoting are about the file that is written, so `collect` never hears of
        # them.
        own = given(self, safe_csv=None, strict=None, min_ok=None, max_rounds=rounds)
        return {**own, **given(self.waiting)}


Store = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|URL",
        help="Where jobs are kept.",
        envvar="FRAMEENRICH_STORE",
        show_default=".frameenrich",
    ),
]


AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print the summary as JSON."),
]
