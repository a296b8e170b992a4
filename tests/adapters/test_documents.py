"""Documents by what their metadata says, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, get_args

import pytest
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from adapters.postgres.documents import PostgresDocuments
from domain.chat.app import Condition
from handlers.commands import retrieval
from handlers.ports.documents import Documents
from handlers.ports.log import Unavailable

GIVEN: dict[str, dict[str, Any]] = {
    "novel": {"title": "The Mill on the Floss", "year": 1860, "at": "1860-04-04", "tags": "river"},
    "manual": {"title": "Mill manual 100%", "year": 2026.5, "at": "2026-05-04T10:00:00+02:00", "tags": ""},
    "notes": {"title": 'it\'s _a_ \\ "note"', "year": "1860", "at": 1777881600, "tags": None},
    "odd": {"title": 7, "year": True, "at": "now", "draft": True},
    "bare": {},
}

TABLE = """
CREATE SCHEMA headrace;
CREATE TABLE headrace.documents (
    tenant_id text, dataset_id text, id text, name text, created_by text,
    created_at timestamptz, updated_at timestamptz, doc_metadata jsonb NOT NULL
)
"""


@pytest.fixture
async def documents(module_database_url: str) -> AsyncIterator[Documents]:
    async with await AsyncConnection.connect(module_database_url, autocommit=True) as connection:
        known = await (await connection.execute("SELECT to_regclass('headrace.documents')")).fetchone()
        if known == (None,):
            await connection.execute(TABLE)
            rows = [
                (
                    tenant,
                    dataset,
                    f"{id}{'' if dataset == 'set' and tenant == 'acme' else '-' + tenant + dataset}",
                    id,
                    Jsonb(metadata),
                )
                for tenant, dataset in (("acme", "set"), ("acme", "other"), ("zenith", "set"))
                for id, metadata in GIVEN.items()
            ]
            await connection.cursor().executemany(
                "INSERT INTO headrace.documents VALUES"
                " (%s, %s, %s, %s, 'ada', '2026-05-04 12:00Z', '2026-05-05 12:00Z', %s)",
                rows,
            )
    async with PostgresDocuments(module_database_url) as adapter:
        yield adapter


async def matching(documents: Documents, *conditions: tuple[str, str, Any], operator: str = "and") -> set[str]:
    found = await documents.matching(
        "acme",
        ["set"],
        [Condition(name=name, comparison_operator=how, value=value) for name, how, value in conditions],
        logical_operator=operator,
    )
    assert len(found) == len(set(found))
    return set(found)


EVIL = ["' OR true --", "%(tenant)s", "$name", "}}'; DROP TABLE headrace.documents; --", "(.*)+$", ".*", "\\", "%", "_"]


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("how", ["contains", "start with", "end with", "is", "in"])
async def test_names_and_values_of_conditions_are_neither_sql_nor_patterns(
    documents: Documents, evil: str, how: str
) -> None:
    value = [evil] if how == "in" else evil
    tests = {"contains": str.__contains__, "start with": str.startswith, "end with": str.endswith}
    held = {id for id, fields in GIVEN.items() if tests.get(how, str.__eq__)(str(fields.get("title", "")), evil)}
    assert await matching(documents, ("title", how, value)) == held
    assert await matching(documents, (evil, how, value)) == set()
    assert await matching(documents, ("title", "not empty", None)) == {"novel", "manual", "notes", "odd"}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (("title", "contains", "Mill"), {"novel", "manual"}),
        (("title", "contains", "mill"), set()),
        (("title", "contains", "%"), {"manual"}),
        (("title", "contains", "_a_ \\"), {"notes"}),
        (("title", "not contains", "Mill"), {"notes", "odd"}),
        (("title", "start with", "Mill"), {"manual"}),
        (("title", "end with", "Floss"), {"novel"}),
        (("title", "is", "Mill manual 100%"), {"manual"}),
        (("title", "is", "7"), {"odd"}),
        (("draft", "is", "true"), {"odd"}),
        (("title", "is not", "Mill manual 100%"), {"novel", "notes", "odd"}),
        (("tags", "empty", None), {"manual", "notes", "odd", "bare"}),
        (("tags", "not empty", None), {"novel"}),
        (("title", "in", ["7", 'it\'s _a_ \\ "note"', "nothing"]), {"odd", "notes"}),
        (("title", "not in", ["7", "The Mill on the Floss"]), {"manual", "notes"}),
        (("year", "=", 1860.0), {"novel"}),
        (("year", "≠", 1860.0), {"manual"}),
        (("year", ">", 1860.0), {"manual"}),
        (("year", "<", 2026.5), {"novel"}),
        (("year", "≥", 1860.0), {"novel", "manual"}),
        (("year", "≤", 2026.5), {"novel", "manual"}),
        (("at", "before", "2026-05-04T08:00:01Z"), {"novel", "manual", "notes"}),
        (("at", "before", "2026-05-04T08:00:00Z"), {"novel"}),
        (("at", "after", "1860-04-03"), {"novel", "manual", "notes"}),
        (("at", "after", "2026-W19-1"), {"manual", "notes"}),
        (("nowhere", "is not", "anything"), set()),
        (("nowhere", "empty", None), set(GIVEN)),
        (("document_name", "is", "bare"), {"bare"}),
        (("uploader", "is", "ada"), set(GIVEN)),
        (("upload_date", "before", "2026-05-04T12:00:01Z"), set(GIVEN)),
        (("last_update_date", "after", "2026-05-05T12:00:01Z"), set()),
    ],
)
async def test_every_operator_compares_by_type(
    documents: Documents, condition: tuple[str, str, Any], expected: set[str]
) -> None:
    retrieval.ConditionFields(name=condition[0], comparison_operator=condition[1], value=condition[2])  # type: ignore[arg-type]
    assert await matching(documents, condition) == expected


async def test_no_operator_is_forgotten(documents: Documents) -> None:
    operators = get_args(retrieval.ConditionFields.model_fields["comparison_operator"].annotation)
    assert len(operators) == 18
    values: dict[str, Any] = {"in": ["x"], "not in": ["x"], "before": "2026-01-01", "after": "2026-01-01"}
    for operator in operators:
        value = values.get(operator, 1.0 if operator in "=≠><≥≤" else "x")
        await matching(documents, ("title", operator, value))


async def test_conditions_are_joined_by_and_or_or(documents: Documents) -> None:
    conditions = (("title", "contains", "Mill"), ("year", "=", 1860.0))
    assert await matching(documents, *conditions) == {"novel"}
    assert await matching(documents, *conditions, operator="or") == {"novel", "manual"}
    assert await matching(documents, ("nowhere", "is", "x"), conditions[1], operator="or") == {"novel"}


@pytest.mark.parametrize(
    "text",
    [
        "' OR true --",
        "'); DROP TABLE headrace.documents; --",
        "%s %(tenant)s $1 $name $value {0}",
        "\\",
        "a' || 'b",
        "☃",
    ],
)
async def test_nothing_that_is_given_is_read_as_sql(documents: Documents, text: str) -> None:
    for operator in ("contains", "is", "start with", "end with"):
        assert await matching(documents, ("title", operator, text)) <= ({"notes"} if text == "\\" else set())
        assert await matching(documents, (text, operator, "x")) == set()
    assert await matching(documents, ("title", "in", [text])) == set()
    assert await matching(documents, (text, "empty", None)) == set(GIVEN)


async def test_neither_other_tenants_nor_other_datasets_are_met(documents: Documents) -> None:
    condition = [Condition(name="year", comparison_operator="=", value=1860.0)]
    for tenant, datasets, expected in (
        ("acme", ["set", "other"], {"novel", "novel-acmeother"}),
        ("zenith", ["set"], {"novel-zenithset"}),
        ("zenith", ["other"], set()),
        ("acme", [], set()),
    ):
        assert set(await documents.matching(tenant, datasets, condition, logical_operator="and")) == expected


async def test_a_database_that_is_away_is_waited_for() -> None:
    async with PostgresDocuments("postgresql://unknown@127.0.0.1:1/none", timeout_s=0.2) as away:
        with pytest.raises(Unavailable):
            await away.matching("acme", ["set"], [], logical_operator="and")
