"""What this process has of a job beside its folder: provider, client, output and budget."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from frameenrich.answers.class_rules import keep_class, stored_output
from frameenrich.answers.judge import READERS
from frameenrich.answers.output import Output
from frameenrich.errors import CredentialsError, OutputError, ProviderError
from frameenrich.lifecycle.wait import send
from frameenrich.prepare.output_options import output_from_options
from frameenrich.pricing.money import Budget, check_max_cost
from frameenrich.pricing.prices import PricesLike, check_prices
from frameenrich.providers.protocol import Provider
from frameenrich.providers.registry import connect, provider_names
from frameenrich.store.folder import JobFolder


class Session:
    """A job's folder, and what was said of it in this process alone.

    Parameters
    ----------
    folder, output, provider, client, budget
        As `Job` takes them.
    """

    def __init__(
        self,
        folder: JobFolder,
        output: Output | None,
        provider: Provider | None,
        client: Any,
        budget: Budget | None,
    ) -> None:
        self.folder = folder
        self.client = client
        self._output = output
        self._provider = provider
        self._budget = budget or Budget()
        if output is not None:
            keep_class(folder.path, output)

    def provider(self) -> Provider:
        """Return the connected provider; connects when it is first needed."""
        if self._provider is None:
            spec = self.folder.spec
            self._provider = connect(spec.provider, self.client, spec.models[0], spec.pace)
        return self._provider

    def check_has(self, model: str) -> None:
        """Make a provider that runs models itself refuse what it does not have, before a round."""
        name = self.folder.spec.provider
        if self.provider().blocking and name in provider_names():
            with contextlib.suppress(CredentialsError):  # a key is not the question
                connect(name, self.client, model)

    def output(self, **options: Any) -> Output:
        """Return how to read answers: as this call, this session or the folder says.

        Parameters
        ----------
        **options
            ``labels``, ``response_model`` and ``parser``, as `Job.collect` takes them.
        """
        folder = self.folder
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
        return stored_output(folder.path, folder.id, Output(folder.spec.output))

    def budget(self, max_cost: float | None = None, prices: PricesLike | None = None) -> Budget:
        """Return what this call says of money, else this session."""
        cap = check_max_cost(max_cost)
        return Budget(
            self._budget.max_cost if cap is None else cap,
            {**self._budget.prices, **check_prices(prices)},
        )

    def send(self) -> None:
        """Send what is not sent yet; a provider that answers in this process answers all."""
        if self._provider is None and self.folder.read().settled:
            return  # without a key, too
        try:
            send(self.folder, self.provider())
        except (ProviderError, KeyboardInterrupt) as error:
            vars(error)["job_id"] = self.folder.id  # who called submit has no job to ask
            raise
