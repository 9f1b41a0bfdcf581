"""Statistics on a job's answers, and its reviews: how right a column is, within which bounds."""
