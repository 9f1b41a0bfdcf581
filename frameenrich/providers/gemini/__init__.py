"""Gemini's batches (Developer API)."""
