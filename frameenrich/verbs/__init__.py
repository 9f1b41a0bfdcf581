"""Verbs of users on jobs, one module for each.

It is not called ``jobs``: importing a folder of that name would put it in the way of the public
function ``frameenrich.jobs()``.
"""
