"""``df.llmbatch``, which makes jobs of frames and keeps nothing itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

import pandas as pd

from frameenrich.verbs.job_of_frame import JobOfFrame
from frameenrich.verbs.signatures import checks_calls, takes_options_of

if TYPE_CHECKING:
    from frameenrich.answers.output import Parser
    from frameenrich.model import ImageDetail, JsonMode
    from frameenrich.prepare.submit_options import SubmitOptions
    from frameenrich.providers.protocol import Provider
    from frameenrich.rendering.readable import Preview
    from frameenrich.rendering.template_source import Template
    from frameenrich.store.store import StoreLike
    from frameenrich.verbs.estimate import Estimate
    from frameenrich.verbs.job import Job


# A class of thin methods: each imports its verb when it is called, so that the import of
# frameenrich costs next to nothing beside pandas.
@pd.api.extensions.register_dataframe_accessor("llmbatch")
@checks_calls
class LLMBatch(JobOfFrame):
    """Methods that send a DataFrame's rows as LLM batches and add the answers as columns.

    Stateless: pandas makes a new one on every access, and all state is in the job's folder.
    """

    def submit(
        self,
        template: Template,
        model: str,
        *,
        system: str | None = None,
        name: str = "llmbatch",
        response_model: Any = None,
        labels: Any = None,
        examples: Any = None,
        samples: int = 1,
        probe: bool | None = None,
        parser: Parser | None = None,
        json_mode: JsonMode = "auto",
        logprobs: bool = False,
        image: str | Sequence[str] | None = None,
        image_root: str | os.PathLike[str] = ".",
        image_detail: ImageDetail | None = None,
        image_max_pixels: int | Literal["auto"] | None = "auto",
        image_max_bytes: int = 20_000_000,
        on_bad_image: str = "raise",
        key: str | Sequence[str] | None = None,
        params: Mapping[str, Any] | None = None,
        endpoint: str = "/v1/chat/completions",
        provider: str | Provider = "openai",
        client: Any = None,
        store: StoreLike = None,
        on_null: str = "raise",
        prefix: str = "",
        max_enqueued_tokens: int | None = None,
        max_cost: float | None = None,
        prices: Mapping[str, Any] | None = None,
        max_in_flight: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        request_timeout_seconds: float | None = None,
        metadata: Mapping[str, str] | None = None,
        completion_window: str | None = None,
        confirm_seconds: float = 60.0,
        cache: bool | str | None = None,
        fresh: bool = False,
    ) -> Job:
        """Render each row to a request and send them as a batch job.

        The same submit again returns the same job and sends nothing. A request that this store
        has a usable answer to already, from any of its jobs, is not sent either.

        Parameters
        ----------
        template : str, Path or list of dict
            Jinja2 source of the user message over the row's columns (``{{ title }}``, and
            ``{{ row["Product name"] }}`` for names with spaces), a file with it, or messages
            ``{"role": ..., "content": ...}`` whose contents are templates.
        model : str
            The model's name, an Azure deployment, or ``"smollm2-135m"`` with
            ``provider="local"``.
        system : str, optional
            Template of a system message.
        name : str
            Names the enrichment: the output column of single-valued outputs, the prefix of the
            status columns, the start of the job's id.
        response_model : pydantic model class, JSON Schema dict or dict of types, optional
            Asks for JSON; one column per field, whose type the schema alone decides, so that every
            column goes through `to_parquet`. Closed objects (every member named) are dicts, lists
            of one type lists. Compact JSON text in a ``string`` column (`json.loads` reads it) is
            what may differ from row to row: free-form objects (``dict[str, Any]``,
            `additionalProperties`), ``Any``, unions such as ``int | list``, what leads back to
            itself, and a list with any of these in it, whole. Such a part of a closed object is
            JSON text within the dict. A class reads as pydantic does: for an ``int`` field
            ``true`` and ``"1"`` are 1, unless it is ``StrictInt`` or the class strict. Schemas and
            types take no ``true`` for a number, and count the row of a ``"1"`` as repaired.
        labels : list of str, Enum class or dict of labels and definitions, optional
            Asks for one of them; a Categorical column called `name`. The definitions of a dict (a
            codebook: ``{"Kitchen": "things to cook or eat with", ...}``) go to the end of the
            system message of each request.
        examples : DataFrame, list of dict or Review, optional
            Rows with their right answers, shown to the model before each row: the template's
            columns, and the answer in a column called as the output (or ``"answer"``). Of a
            `Review`, its judged rows. Rows that were shown count in no later review or evaluation
            of this job, as the model has seen their answers.
        samples : int
            Answers to each row, asked for in one request (``n``), so that the prompt is paid once:
            each field has the value that most of them gave, and ``<name>_agreement`` is the share
            that gave it (with several fields, the least of theirs); ``usage=True`` adds
            ``<name>_votes``. For `labels` and `response_model`, on ``/v1/chat/completions``.
        probe : bool, optional
            Ask one row live before the batch, so that a refusal of the server shows before all
            rows go out; its answer is reused. Only a 400 or 422 that names a parameter, the model
            or the schema, and that two other rows get too, refuses. By default from 1,000 requests
            on, where this store has no ``ok`` yet for this provider, model, `params` and schema.
        parser : callable, optional
            ``str -> dict | value``, applied at collect; ``ValueError`` flags the row.
        json_mode : {"auto", "schema", "object", "tools", "prompt"}
            How the structure of `labels` or `response_model` is asked for: by a JSON Schema, by
            JSON alone with the schema in words, by a tool that the model has to call, or in words
            alone. By default the best that the model and its server are known to take. The answer
            is validated the same.
        logprobs : bool
            With `labels`: add a column ``<name>_confidence``, from 0 to 1, which is the product
            of the probabilities of the tokens that spell the label; ``<NA>`` where the endpoint
            does not tell.
        image : str or list of str, optional
            Column(s) with a row's images, which go after the text of the last user message. A cell
            is an ``https:`` or ``data:`` URL, a path under `image_root`, bytes or a PIL image
            (PNG, JPEG, WebP or GIF), or a list of these, also as text (JSON). `on_null` says what
            a cell without an image means (``"empty"``: a request without it).
        image_root : str or PathLike
            The folder that local paths are relative to and have to stay in, also through links.
        image_detail : {"low", "high", "auto"}, optional
            How closely the model looks; decides the price of an image.
        image_max_pixels : int, "auto" or None
            Make images whose longest side has more pixels smaller before they are sent; takes
            Pillow (``frameenrich[images]``), as PIL images do. By default to what the model looks
            at, where that is known, and a warning says how many; None sends them as they are.
            URLs are always passed on.
        image_max_bytes : int
            The most that one image may have.
        on_bad_image : {"raise", "skip"}
            What becomes of a row with an image that cannot be used: an error that names all such
            rows, or no request; `collect` then gives the row the status ``skipped``, and says in
            ``<name>_error`` what is wrong with the cell.
        key : str or list of str, optional
            The column(s) that name a row, where the index does not.
        params : mapping, optional
            Request parameters (``temperature``, ``max_tokens``, ...); those that only your server
            knows go under ``"extra_body"``.
        endpoint : str
            ``/v1/chat/completions``, ``/v1/responses``, ``/v1/completions``, ``/v1/embeddings``
            (see `embed`) or ``/v1/moderations``, which adds the columns `name` (whether the text
            was flagged) and ``<name>_categories`` (for what).
        provider : str or Provider
            ``"openai"`` (Batch API), ``"live"`` (the same servers, and those without a Batch API:
            one call a request, answered before this returns), ``"azure"``, ``"groq"``,
            ``"together"``, ``"anthropic"``, ``"mistral"`` and ``"gemini"`` (extras of the same
            names), ``"local"`` (the embedded model) or ``"file"``.
        client : a client of the provider's own SDK, optional
            Such as `openai.OpenAI`; by default built from the environment, as the SDK does.
        store : str or PathLike, optional
            By default ``$FRAMEENRICH_STORE``, else ``.frameenrich`` in the working directory.
        on_null : {"raise", "empty", "skip"}
            What happens to a row where a null would be printed.
        prefix : str
            Put before every output field's column name.
        max_enqueued_tokens : int, optional
            How many prompt tokens may wait at the provider at once (its queue limit for the
            model): batches are made smaller and sent as room comes; `Job.wait` drives that.
        max_cost : float, optional
            USD that the whole job may cost, later rounds in any session included; kept with the
            job. What could cost more is refused before anything is sent, by what `estimate` says:
            so the answers need a cap (``params={"max_tokens": 50}``), or earlier answers of this
            store to the same template, model and parameters, as of a pilot. It binds as exactly as
            tokens can be counted: for models of other makers than OpenAI that is an estimate.
            Exact with ``frameenrich[cost]``; without it, bytes bound the prompts.
        prices : mapping, optional
            What the model costs where that is not known, or is another: live USD per million
            tokens, ``{"input": 0.15, "output": 0.60}`` and perhaps ``"cached_input"``; or such a
            dict by model's name. A batch costs half. Kept with the job, for `Job.usage`.
        max_in_flight, requests_per_minute, tokens_per_minute : int, optional
            For ``provider="live"``: how many requests may wait for their answers at once (64), and
            the server's rate limits. A server that says it is too many is asked less by itself.
        request_timeout_seconds : float, optional
            For ``provider="live"``: how long one answer may take (the client's own time-out,
            which is 600 for OpenAI's). A row that takes longer may have run, and be charged: it
            is ``failed`` with that reason, and asked again only on your word,
            ``regenerate(statuses=["failed"])``.
        metadata : mapping of str to str, optional
            Your own notes on the provider's batches, beside our tag (OpenAI, Azure, Groq,
            Mistral): at most 15 pairs, keys of 64 characters, values of 512. Like the next, no
            part of the job: the same submit with another one is the same job. A pilot is live,
            and leaves both out.
        completion_window : str, optional
            How long a batch may take, such as ``"72h"`` or ``"7d"``: from a day to a week with
            Groq, up to a week with Mistral; OpenAI, Azure and Together take ``"24h"`` alone.
        confirm_seconds : float
            Where the answer to the call that makes a batch was lost, the batch is ``unconfirmed``
            and looked for. It is made again only after so many seconds of looks that found
            nothing: providers show a new batch late.
        cache : bool or "seed", optional
            Have the provider cache the system message, which has to be the same in every row.
            True marks it where a provider wants that (Anthropic for an hour, OpenAI from gpt-5.6),
            which makes the first reading dearer and the others cheaper, and gives a key elsewhere;
            ``"seed"`` also sends one row ahead as a batch of its own, and the rest when it has
            ended: `wait` or `collect` later. No part of the job. By default only a key, where it
            is known to be taken.
        fresh : bool
            Make a new job even where the same one exists, and reuse no answers.

        Returns
        -------
        Job

        Raises
        ------
        InputError
            Something cannot be used; nothing was sent.
        BudgetError
            It could cost more than `max_cost`; nothing was sent, and there is no job.
        ProviderError
            The provider refused or broke; submit again to go on where it stopped.

        Examples
        --------
        >>> import tempfile
        >>> frame = pd.DataFrame({"title": ["Red mug", "Blue hose"]}, index=["A1", "A2"])
        >>> job = frame.llmbatch.submit(
        ...     "Which department sells {{ title }}?",
        ...     model="gpt-4o-mini",
        ...     labels=["Kitchen", "Garden"],
        ...     provider="file",
        ...     store=tempfile.mkdtemp(),
        ... )
        >>> job.id.startswith("llmbatch-"), len(job.requests)
        (True, 1)
        """
        options = dict(locals())  # first, while the parameters are all that there is
        from frameenrich.verbs.submit import submit  # noqa: PLC0415 - nothing but pandas at import

        del options["self"]
        return submit(self._frame, **options)

    @takes_options_of(submit, name="embedding", endpoint="/v1/embeddings")
    def embed(
        self,
        template: Template,
        model: str,
        *,
        dimensions: int | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Job:
        """Request an embedding vector of each row's text: a `submit` to ``/v1/embeddings``.

        `collect` adds a column called `name` with one float32 NumPy vector a row (``None`` where
        there is none): ``np.stack(out["embedding"])`` is a matrix, and it survives Parquet. Its
        dtype is ``object``, since pandas cannot read Arrow's list types back from Parquet; for
        those, ``out["embedding"].astype(pd.ArrowDtype(pa.list_(pa.float32(), 256)))``. A CSV takes
        ``out["embedding"].map(list)``: pandas' own `to_csv` abbreviates arrays (``[0.1 ... 0.2]``).

        Parameters
        ----------
        template : str or Path
            Jinja2 source of the text over the row's columns.
        model : str
            Such as ``"text-embedding-3-small"``, or ``"wordllama-256"`` with
            ``provider="local"`` (the extra ``frameenrich[embed]``).
        dimensions : int, optional
            How long the vectors have to be; another length flags the row ``malformed``.
        **options
            As `submit` takes them: ``name`` names the column too, and ``params`` may hold such as
            ``{"encoding_format": "base64"}``.

        Examples
        --------
        >>> import tempfile
        >>> frame = pd.DataFrame({"title": ["Red mug", "Blue hose"]})
        >>> job = frame.llmbatch.embed(
        ...     "{{ title }}",
        ...     "text-embedding-3-small",
        ...     dimensions=256,
        ...     provider="file",
        ...     store=tempfile.mkdtemp(),
        ... )
        >>> job.collect()["embedding_status"].tolist()
        ['pending', 'pending']
        """
        options = {"name": "embedding", "endpoint": "/v1/embeddings", **options}
        # Other kinds of params are refused by submit, in its own words.
        if dimensions is not None and isinstance(options.get("params"), Mapping | None):
            options["params"] = {**(options.get("params") or {}), "dimensions": dimensions}
        return self.submit(template, model, **options)

    @takes_options_of(submit)
    def preview(
        self, template: Template, model: str, *, n: int = 3, **options: Unpack[SubmitOptions]
    ) -> Preview:
        """Return the first `n` requests as they would be sent; sends and writes nothing.

        Parameters
        ----------
        template, model, **options
            As `submit` takes them.
        n : int
            How many rows.

        Examples
        --------
        >>> frame = pd.DataFrame({"title": ["Red mug"]})
        >>> print(frame.llmbatch.preview("Colour of {{ title }}?", "gpt-4o-mini"))
        row 0
        [user] Colour of Red mug?
        <BLANKLINE>
        -> columns: llmbatch, llmbatch_status, llmbatch_error
        """
        from frameenrich.verbs.preview import preview  # noqa: PLC0415 - nothing but pandas at import

        return preview(self._frame, template, model, n=n, **options)

    @takes_options_of(submit)
    def estimate(
        self, template: Template, model: str, **options: Unpack[SubmitOptions]
    ) -> Estimate:
        """Return what a `submit` would send and cost; sends and writes nothing, and takes no key.

        Tokens are counted offline, exactly where the model's vocabulary is known and
        ``frameenrich[cost]`` is installed; without it, a text's bytes bound its tokens. What
        is repeated, skipped, or answered in the store already costs nothing.

        Parameters
        ----------
        template, model, **options
            As `submit` takes them.

        Returns
        -------
        Estimate
            ``rows``, ``requests``, ``prompt_tokens``, ``max_completion_tokens``, ``batch_usd``,
            ``live_usd`` and more. Without a cap on the answers (``max_tokens``) their length is
            taken from earlier answers of this store, or left out: `Estimate.bound` tells.

        Raises
        ------
        ParameterError
            The model's price is not known, and ``prices=`` does not say it.

        Examples
        --------
        >>> frame = pd.DataFrame({"title": ["Red mug", "Blue hose", "Red mug"]})
        >>> frame.llmbatch.estimate(
        ...     "Colour of {{ title }}?", "gpt-4o-mini", params={"max_tokens": 5}
        ... )
        model              gpt-4o-mini
        rows               3
        requests           2
        prompt tokens      24
        completion tokens  at most 10
        cost, batch        at most $0.0000048
        cost, live         at most $0.0000096
        """
        from frameenrich.verbs.before_paying import estimate  # noqa: PLC0415 - nothing but pandas at import

        return estimate(self._frame, template, model, **options)

    @takes_options_of(submit)
    def pilot(
        self,
        template: Template,
        model: str,
        *,
        n: int = 5,
        seed: int = 0,
        usage: bool = False,
        **options: Unpack[SubmitOptions],
    ) -> pd.DataFrame:
        """Answer `n` rows now, at live price, so that you can check them before paying for all.

        A `submit` with the same options takes these answers over and does not pay for them again;
        nor does the same pilot. The rows are spread over the frame, one out of each n-th of it.

        Parameters
        ----------
        template, model, **options
            As `submit` takes them. With ``provider="openai"`` the requests go to the same server,
            one call each.
        n : int
            How many rows.
        seed : int
            Another number picks other rows; the same one picks the same.
        usage : bool
            Whether to add the columns on model, tokens, custom_id and raw answer.

        Returns
        -------
        DataFrame
            The picked rows under their index: the key columns (where ``key=`` names some),
            ``<name>_prompt``, the output columns, ``<name>_status`` and ``<name>_error``.

        Examples
        --------
        Look first, then pay for the rest: ``df.llmbatch.pilot("Colour of {{ title }}?", "m")``,
        and ``df.llmbatch.submit("Colour of {{ title }}?", "m")`` with the same options.
        """
        from frameenrich.verbs.before_paying import pilot  # noqa: PLC0415 - nothing but pandas at import

        return pilot(self._frame, template, model, n=n, seed=seed, usage=usage, **options)
