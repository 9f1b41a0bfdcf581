"""Tokens, prices and money."""
