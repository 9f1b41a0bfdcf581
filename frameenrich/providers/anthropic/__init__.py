"""Anthropic Message Batches."""
