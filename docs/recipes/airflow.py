"""An Airflow DAG: one task submits, a sensor looks now and then, one task collects.

Written for the TaskFlow API of Airflow 2.4 and later, and 3. The functions are plain ones, and our
tests run them as such, without Airflow. Every worker has to see the store: a shared folder, or an
object store's URL in $FRAMEENRICH_STORE. The key stays in the workers' environment: it is in no
argument, no XCom and no store.

A task that Airflow runs again is harmless: submitting the same table gives the same job.
"""

from __future__ import annotations

import pandas as pd

import frameenrich
from frameenrich.errors import WaitTimeoutError

try:
    from airflow.sdk import dag, task  # Airflow 3
except ImportError:
    try:
        from airflow.decorators import dag, task  # Airflow 2
    except ImportError:
        dag = task = None  # the functions below need neither

ASK = "Which department sells {{ title }}?"
LABELS = ["Kitchen", "Garden", "Clothing", "Electronics", "Toys"]


def submit(table: str) -> str:
    """Ask for every row; gives the job's id, which is all that the next tasks need."""
    frame = pd.read_csv(table)
    job = frame.llmbatch.submit(ASK, "gpt-4o-mini", labels=LABELS, key="sku", name="department")
    return job.id


def ended(job_id: str) -> bool:
    """One step: send what waits for room, bring home what has ended; then whether all has."""
    job = frameenrich.open_job(job_id)
    try:
        job.wait(timeout=0)
    except WaitTimeoutError:
        return False
    return job.status().ended


def collect(table: str, job_id: str, out: str) -> str:
    """Write the table with its answers; flagged rows say why, in their own columns."""
    frame = pd.read_csv(table)
    frame.llmbatch.collect(job_id).to_parquet(out)
    return out


if dag is not None:

    @dag(schedule=None, catchup=False)
    def enrich_products(table: str = "products.csv", out: str = "products.parquet"):
        """From a table to a table with one column more."""
        job_id = task(retries=3)(submit)(table)
        # "reschedule" gives the worker back between two looks; a batch may take a day.
        looks = task.sensor(mode="reschedule", poke_interval=300, timeout=26 * 3600)(ended)
        looks(job_id) >> task(retries=3)(collect)(table, job_id, out)

    enrich_products()
