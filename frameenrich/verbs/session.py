"""Keep what a process knows of a job beside its folder: provider, client, output and budget."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from frameenrich.answers.class_rules import keep_class, stored_output
from frameenrich.answers.judge import READERS
from frameenrich.answers.output import Output
from frameenrich.errors import (
    CredentialsError,
    InputError,
    OutputError,
    ProviderError,
    warn_user,
)
from frameenrich.lifecycle.collect import Reading
from frameenrich.lifecycle.regenerate import Elsewhere
from frameenrich.lifecycle.step import is_lost
from frameenrich.lifecycle.usage import prices_of
from frameenrich.lifecycle.wait import send
from frameenrich.prepare.output_options import output_from_options
from frameenrich.pricing.money import Budget, check_max_cost
from frameenrich.pricing.prices import PricesLike, check_prices
from frameenrich.providers.protocol import Provider
from frameenrich.providers.registry import (
    connect,
    connect_other,
    live_version,
    provider_names,
)
from frameenrich.providers.routed import Routed
from frameenrich.store.folder import JobFolder, JobPath, JobState
from frameenrich.store.local import SIDECAR


class Session:
    """A job's folder, with the provider, output and budget given in this process.

    Parameters
    ----------
    folder, output, provider, client, budget
        As `Job` takes them.
    """

    def __init__(
        self,
        folder: JobPath,
        output: Output | None,
        provider: Provider | None,
        client: Any,
        budget: Budget | None,
    ) -> None:
        self.folder = folder
        self.client = client
        self._output = output
        self._provider = provider
        self._others: dict[str, Provider] = {}
        self._budget = budget or Budget()
        self.last_round = ""  # what the newest regenerate of this session sent, and what it left
        if output is not None:
            keep_class(folder.path, output)

    def job(self) -> JobFolder:
        """Return the job with what its sidecar says of it, read by the first call of a session."""
        # Not when the handle is made: a verb that opens the sidecar anyway opens it once, then.
        folder = self.folder = self.folder.open()
        return folder

    @contextlib.contextmanager
    def opened(self) -> Iterator[JobState]:
        """Read the job's state, and keep its sidecar open while a verb reads it."""
        with self.folder.opened() as job:
            self.folder = JobFolder(job.store, job.id, job.facts, job.resumed)
            yield job

    def provider(self) -> Provider:
        """Return the job's own provider, connected on first use."""
        # Not before it is used: answers that are on disk need no key and no network.
        if self._provider is None:
            spec = self.job().spec
            provider = connect(spec.provider, self.client, spec.models[0], spec.pace)
            # A pilot is answered live, in a later session too.
            self._provider = live_version(provider) if spec.pilot else provider
        return self._provider

    def provider_of(self, name: str | None) -> Provider:
        """Return the provider that some of the job's batches go to; None is the job's own."""
        if name is None:
            return self.provider()
        if name not in self._others:
            self._others[name] = connect_other(name, self.job().spec.provider, self.provider)
        return self._others[name]

    def routes(self, job: JobState | None = None) -> Provider:
        """Return a provider for all batches of the job, whichever provider each is at."""
        batches = (job or self.job().read()).batches
        # Mostly all of a job is at its own provider, which needs no routing.
        if not any(batch.provider for batch in batches):
            return self.provider()
        left = [batch.provider for batch in batches if not batch.settled]
        return Routed(self.job().spec.provider, self.provider_of, left)

    def elsewhere(self, provider: str | Provider | None) -> Elsewhere | None:
        """Return where a round goes; None where that is the job's own provider.

        Raises
        ------
        ParameterError
            There is no such provider, or it does not answer the job's endpoint.
        """
        own = self.job().spec.provider
        if not isinstance(provider, str | None):
            given = connect(provider)
            provider = given.name
            # An object given for this round is kept, so that later steps use its client, too.
            if provider == own:
                self._provider = given
            else:
                self._others[provider] = given
        if provider is None or provider == own:
            return None
        other = self.provider_of(provider)
        check = getattr(other, "check", lambda _: None)
        return Elsewhere(provider, other.url(self.job().spec.endpoint), check)

    def check_has(self, model: str, elsewhere: Elsewhere | None = None) -> None:
        """Refuse a model that a provider in this process does not have, before a round."""
        other = elsewhere.provider if elsewhere else None
        name = other or self.job().spec.provider
        if self.provider_of(other).blocking and name in provider_names():
            with contextlib.suppress(CredentialsError):  # a key is not the question
                connect(name, None if other else self.client, model)

    def output(self, **options: Any) -> Output:
        """Return how to read answers: by this call's options, this session's or the folder's.

        Parameters
        ----------
        **options
            ``labels``, ``response_model`` and ``parser``, as `Job.collect` takes them.
        """
        folder = self.job()
        if any(option is not None for option in options.values()):
            if folder.spec.output.kind in READERS:
                raise OutputError(
                    f"The answers of the job {folder.id} are data of {folder.spec.endpoint}, "
                    "no text.",
                    "Collect without labels=, response_model= and parser=.",
                )
            read = output_from_options(**options)
            samples = folder.spec.output.samples  # so many answers came, however they are read
            return replace(read, spec=replace(read.spec, samples=samples))
        if self._output is not None:
            return self._output
        if folder.spec.output.kind == "parser":
            raise OutputError(
                f"The job {folder.id} reads its answers with a parser that this session lacks.",
                "Pass it again: collect(parser=...); nothing is sent for that.",
            )
        called = f"The schema in {folder.path}/{SIDECAR}"
        return stored_output(folder.path, folder.id, Output(folder.spec.output, called=called))

    def budget(self, max_cost: float | None = None, prices: PricesLike | None = None) -> Budget:
        """Return the cap and prices of this call, else those of this session."""
        cap = check_max_cost(max_cost)
        return Budget(
            # The newest cap wins: to go beyond a cap is to name a greater one.
            self._budget.max_cost if cap is None else cap,
            {**self._budget.prices, **check_prices(prices)},
        )

    def reading(
        self,
        budget: Budget,
        *,
        usage: bool = False,
        flatten: bool = False,
        overwrite: bool = False,
        **output: Any,
    ) -> Reading:
        """Return how answers become columns, by the options of `Job.collect`."""
        prices = prices_of(self.job(), budget)
        return Reading(self.output(**output), prices, usage, flatten, overwrite)

    def send(self, job: JobState | None = None) -> None:
        """Send what is not sent yet; a provider that answers in this process answers all."""
        job = job or self.job().read()
        if job.settled:
            return  # without a key, too
        try:
            send(job, self.routes(job))
        except InputError:
            if any(batch.provider is None and not batch.settled for batch in job.batches):
                raise
            # All that is left goes to a provider that this session lacks. Whoever runs a notebook
            # again comes to the call that has it; `wait` and `collect` say what is missing.
        except (ProviderError, KeyboardInterrupt) as error:
            if isinstance(error, ProviderError) and is_lost(error):
                warn_user(f"The job {self.folder.id} lacks a batch. {error}")  # the rest was sent
                return
            vars(error)["job_id"] = self.folder.id  # who called submit has no job to ask
            raise
