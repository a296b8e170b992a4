"""The view `workflow_app_logs`: a row for each run that was no test."""

from __future__ import annotations

import psycopg
from psycopg.rows import dict_row

from projections.apps import workflow_id
from tests.adapters.test_postgres import caught_up, following
from tests.projections.history import History
from tests.projections.runs import begun


async def test_runs_that_were_no_tests_are_rows(database_url: str) -> None:
    history = History()
    begun(history, "one", trigger="webhook", user="")
    history.person = "the-person"
    begun(history, "two")
    begun(history, "three", trigger="draft", version=None)
    async with following(database_url, history):
        await caught_up(database_url, history)
    async with await psycopg.AsyncConnection.connect(database_url, row_factory=dict_row) as connection:
        query = "SELECT * FROM headrace.workflow_app_logs ORDER BY created_at"
        one, two = await (await connection.execute(query)).fetchall()
    assert (one["workflow_run_id"], one["created_from"], one["created_by_role"]) == ("one", "webhook", "account")
    assert (one["created_by"], one["workflow_id"]) == ("ada", workflow_id("the-app", 3))
    assert (two["id"], two["created_by_role"], two["created_by"], two["person_id"]) == (
        "two", "end_user", "bo", "the-person"
    )  # fmt: skip
