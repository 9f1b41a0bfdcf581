"""What a user does with jobs, one module for each verb.

It is not called ``jobs``: importing a folder of that name would put it in the way of the public
function ``frameenrich.jobs()``.
"""
