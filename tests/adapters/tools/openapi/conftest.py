"""One reader of documents for all tests of this folder, and a memory in place of servers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from adapters.sandbox.choice import choose
from adapters.tools.openapi.reading import ContainedDocuments
from tests.adapters.tools.openapi.api import DOCUMENTS
from tests.memory import Memory


@pytest.fixture(scope="session", autouse=True)
async def documents() -> AsyncIterator[ContainedDocuments]:
    async with ContainedDocuments((await choose("auto")).sandbox) as found:
        DOCUMENTS.append(found)
        yield found
        DOCUMENTS.remove(found)


@pytest.fixture
def memory() -> Memory:
    return Memory()
