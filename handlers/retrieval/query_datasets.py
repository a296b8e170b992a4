"""Queries datasets to test them: what is found, and where it ranks, is put on record as a retrieval."""

from __future__ import annotations

from domain.knowledge.dataset_query import DatasetQuery
from domain.knowledge.retrieval import Retrieval
from domain.log import Commit
from handlers.repository import Repository
from handlers.retrieval.retrieve import Question, Retrieve
from handlers.work.cause import Cause


class QueryDatasets:
    def __init__(self, repository: Repository, retrieve: Retrieve) -> None:
        self._repository = repository
        self._retrieve = retrieve

    async def __call__(self, commit: Commit) -> None:
        """React to a query that was requested. Raises: Unavailable, to be called again."""
        for event in commit.events:
            if isinstance(event, DatasetQuery.Requested):
                await self._query(commit, event)

    async def _query(self, commit: Commit, event: DatasetQuery.Requested) -> None:
        """Its retrieval has its id; a call of a model that a dead worker left open is gone on with."""
        id, tenant = commit.subject.id, commit.subject.tenant
        if not event.query or await self._repository.get(Retrieval, tenant, id):
            return
        cause = Cause(commit.metadata, "dataset", id, 1)
        retrieved = await self._retrieve.find(Question(id, cause, event.query, event.datasets, event.retrieval))
        await retrieved.record()
