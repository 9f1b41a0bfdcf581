"""Providers send requests and bring raw response lines back; none of them knows pandas.

They are found by name through the entry points ``frameenrich.providers``, imported on first use.
"""

from __future__ import annotations

from frameenrich.providers.protocol import Provider, Shard, ShardWriter
from frameenrich.providers.registry import connect, provider_names

__all__ = ["Provider", "Shard", "ShardWriter", "connect", "provider_names"]
