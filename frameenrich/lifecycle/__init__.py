"""Send a written job, wait for it, read and match its answers, and retry rows."""
