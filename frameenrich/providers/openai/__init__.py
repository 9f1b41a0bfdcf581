"""The OpenAI Batch API, and servers that speak it."""
