"""Where requests go. A provider sees requests and gives a batch and raw lines back, never pandas.

Found by name through the entry point group ``frameenrich.providers`` and imported when asked for.
"""

from __future__ import annotations

from frameenrich.providers.protocol import Provider, Shard, ShardWriter
from frameenrich.providers.registry import connect, provider_names

__all__ = ["Provider", "Shard", "ShardWriter", "connect", "provider_names"]
