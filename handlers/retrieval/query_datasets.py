"""Test queries of datasets: hits and their ranks are recorded as a retrieval."""

from __future__ import annotations

from contextlib import suppress

from domain.knowledge.dataset_query import DatasetQuery
from domain.knowledge.retrieval import Retrieval
from domain.log import Commit
from handlers.cause import Cause
from handlers.ports.models import ModelError
from handlers.repository import Repository
from handlers.retrieval.retrieve import Question, Retrieve


class QueryDatasets:
    def __init__(self, repository: Repository, retrieve: Retrieve) -> None:
        self._repository = repository
        self._retrieve = retrieve

    async def __call__(self, commit: Commit) -> None:
        """React to a requested query. Raises: Unavailable, to be retried."""
        for event in commit.events:
            if isinstance(event, DatasetQuery.Requested):
                await self._query(commit, event)

    async def _query(self, commit: Commit, event: DatasetQuery.Requested) -> None:
        """The cause of the query: the retrieval has its id, and a call that a dead worker left open is resumed."""
        id, tenant = commit.subject.id, commit.subject.tenant
        if not event.query or await self._repository.get(Retrieval, tenant, id):
            return
        cause = Cause(commit.metadata, "dataset", id, 1)
        with suppress(ModelError):  # it is recorded in the retrieval
            retrieved = await self._retrieve.find(Question(id, cause, event.query, event.datasets, event.retrieval))
            await retrieved.record()
