"""A real HTTP server on loopback that speaks Anthropic's Message Batches API, with faults.

>>> from anthropic_server import AnthropicServer
>>> with AnthropicServer() as server:
...     base_url = server.origin  # give it to anthropic.Anthropic(base_url=..., api_key="test")
...     fault = server.faults.add("expired", ran=0.25)

It is `batch_server` with other routes, shapes and rules: the same options, ledger and fault words
(those of whole requests with ``where="POST /v1/messages/batches"`` and the like; of batches
``expired``, ``cancelled`` and ``stuck``; of rows all that edit a reply, and ``unparseable_line``,
``not_utf8_line``, ``duplicate_line``, ``null_custom_id``). A batch takes a step when it is looked
at or listed. `executed` counts by the custom_id without its mark.
"""

from .app import AnthropicServer

__all__ = ["AnthropicServer"]
