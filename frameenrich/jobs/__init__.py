"""What a user does with jobs, one module for each verb."""
