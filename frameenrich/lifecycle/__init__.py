"""What happens to a job after it was written: send, wait, read, match, retry."""
