"""From options and rows to a job folder. Nothing here sends anything."""
