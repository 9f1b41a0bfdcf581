"""Where requests go. A provider sees requests and gives a batch and raw lines back, never pandas.

Found by name through the entry point group ``frameenrich.providers`` and imported when asked for.
"""

from __future__ import annotations

from frameenrich.providers.base import Desk, Provider, Shard, connect, provider_names

__all__ = ["Desk", "Provider", "Shard", "connect", "provider_names"]
