"""One call for each request, in Batch-format lines."""
