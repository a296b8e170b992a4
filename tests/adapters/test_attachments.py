"""Objects that users attach to the tables are carried over to their replacements."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from adapters.postgres import projector, rebuild, rules, tables
from adapters.postgres.attachments import InTheWay
from ops.servers.embedded import EmbeddedPostgres
from projections.apps import apps
from projections.messages import messages
from tests.adapters.test_postgres import RecordedLog, caught_up, following, query, rebuilt, recorded_files
from tests.projections.history import History
from tests.projections.wandering import wander


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    async with tables.connect(database_url) as connection:
        yield connection


@pytest.fixture
async def role(database_url: str, connection: AsyncConnection[TupleRow]) -> AsyncIterator[str]:
    """A login that the test may give rights to; it sees all rows."""
    await tables.set_up(database_url)
    name = f"b_{uuid4().hex[:12]}"
    await connection.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE headrace_reader").format(sql.Identifier(name)))
    yield name
    await connection.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.fixture
async def history(database_url: str) -> History:
    """A history that is in the tables."""
    history = wander(Random(30), 500, few=6)
    async with following(database_url, history):
        await caught_up(database_url, history)
    return history


async def run(connection: AsyncConnection[TupleRow], statements: str) -> None:
    await connection.execute(statements.encode())


async def catalog(connection: AsyncConnection[TupleRow], table: str = "messages") -> dict[str, list[Any]]:
    """Entries of the catalog for a table, by its name."""
    of = f"'headrace.{table}'::regclass"
    return {
        what: await query(connection, f"SELECT {columns} FROM {source} ORDER BY 1")
        for what, columns, source in (
            ("table", "relacl::text, relrowsecurity, relforcerowsecurity, reloptions::text, relreplident::text",
             f"pg_class WHERE oid = {of}"),
            ("columns", "attname::text, attacl::text, attstattarget, attoptions::text, attstorage::text, "
             "attcompression::text, atthasdef", f"pg_attribute WHERE attrelid = {of} AND attnum > 0"),
            ("indexes", "pg_get_indexdef(indexrelid), indisclustered, indisreplident, obj_description(indexrelid)",
             f"pg_index WHERE indrelid = {of}"),
            ("constraints", "conname::text, pg_get_constraintdef(oid), obj_description(oid)",
             f"pg_constraint WHERE conrelid = {of} OR confrelid = {of}"),
            ("policies", "policyname::text, permissive, roles::text, cmd, qual, with_check",
             f"pg_policies WHERE schemaname = 'headrace' AND tablename = '{table}'"),
            ("publications", "p.oid, attnames::text, rowfilter", f"pg_publication_tables JOIN pg_publication p USING "
             f"(pubname) WHERE (schemaname, tablename) = ('headrace', '{table}')"),
            ("triggers", "pg_get_triggerdef(oid), tgenabled::text",
             f"pg_trigger WHERE tgrelid = {of} AND NOT tgisinternal"),
            ("statistics", "pg_get_statisticsobjdef(oid), stxstattarget, obj_description(oid)",
             f"pg_statistic_ext WHERE stxrelid = {of}"),
            ("measured", "attname::text", f"pg_stats WHERE (schemaname, tablename) = ('headrace', '{table}')"),
        )
    }  # fmt: skip


async def test_a_rebuild_keeps_grants_indexes_and_publications(
    database_url: str, connection: AsyncConnection[TupleRow], role: str, history: History
) -> None:
    await run(
        connection,
        f"GRANT SELECT ON headrace.messages TO {role}; CREATE INDEX ON headrace.messages (lower(query));"
        "CREATE PUBLICATION p FOR TABLE headrace.messages",
    )
    live = await tables.table_digests(database_url)
    await rebuilt(database_url, history, "messages")
    assert await query(connection, f"SELECT has_table_privilege('{role}', 'headrace.messages', 'SELECT')") == [True]
    assert await query(
        connection, "SELECT indexname::text FROM pg_indexes WHERE indexdef LIKE '%ON headrace.messages %lower(query)%'"
    ) == ["messages_lower_idx"]
    assert await query(connection, "SELECT schemaname || '.' || tablename FROM pg_publication_tables") == [
        "headrace.messages"
    ]
    assert await tables.table_digests(database_url) == live


EVERYTHING = """
GRANT SELECT, TRIGGER ON headrace.messages TO {role} WITH GRANT OPTION;
GRANT REFERENCES (id), SELECT (query) ON headrace.messages TO {role};
GRANT SELECT (status) ON headrace.messages TO PUBLIC;
REVOKE SELECT ON headrace.messages FROM headrace_reader;
ALTER TABLE headrace.messages ENABLE ROW LEVEL SECURITY;
CREATE POLICY "only theirs" ON headrace.messages AS RESTRICTIVE FOR SELECT TO {role}, headrace_reader
    USING (tenant_id = 'default' AND app_id IN (SELECT id FROM headrace.apps WHERE name <> 'it''s'));
CREATE POLICY everything ON headrace.messages USING (true) WITH CHECK (query <> '');
COMMENT ON POLICY everything ON headrace.messages IS 'A comment.';
ALTER TABLE headrace.messages SET (autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_enabled = off);
ALTER TABLE headrace.messages ALTER query SET STATISTICS 500, ALTER app_id SET (n_distinct = 7),
    ALTER answer SET STORAGE EXTERNAL, ALTER error SET COMPRESSION pglz, ALTER status SET DEFAULT 'asked';
CREATE SCHEMA mine;
CREATE FUNCTION mine.short(words text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT left(words, 20) $$;
CREATE INDEX "Words, in short" ON headrace.messages (mine.short(query)) WHERE status <> 'failed';
COMMENT ON INDEX headrace."Words, in short" IS 'Looked up daily.';
ALTER INDEX headrace."Words, in short" ALTER COLUMN 1 SET STATISTICS 300;
CREATE INDEX ix_messages_mine ON headrace.messages (tenant_id, updated_at);
CREATE UNIQUE INDEX whole ON headrace.messages (id, tenant_id) INCLUDE (status);
ALTER TABLE headrace.messages REPLICA IDENTITY USING INDEX whole;
ALTER TABLE headrace.messages CLUSTER ON whole;
ALTER TABLE headrace.messages ADD CONSTRAINT positive CHECK (attempt >= 0) NOT VALID,
    ADD CONSTRAINT once UNIQUE (id, app_id, tenant_id);
COMMENT ON CONSTRAINT positive ON headrace.messages IS 'Never less.';
CREATE STATISTICS mine.together (ndistinct, dependencies) ON app_id, status FROM headrace.messages;
CREATE STATISTICS mine.shortness ON mine.short(query) FROM headrace.messages;
ALTER STATISTICS mine.together SET STATISTICS 200;
COMMENT ON STATISTICS mine.together IS 'They go together.';
CREATE PUBLICATION a_few FOR TABLE headrace.messages (id, tenant_id, status) WHERE (status = 'answered');
CREATE PUBLICATION all_of_it FOR TABLE headrace.messages, headrace.apps;
CREATE FUNCTION mine.tell() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_notify('m', NEW.id); RETURN NEW; END $$;
CREATE TRIGGER "tells others" AFTER INSERT ON headrace.messages
    FOR EACH ROW WHEN (NEW.query <> '') EXECUTE FUNCTION mine.tell();
CREATE TRIGGER quiet AFTER UPDATE ON headrace.messages FOR EACH ROW EXECUTE FUNCTION mine.tell();
ALTER TABLE headrace.messages DISABLE TRIGGER quiet;
CREATE TABLE mine.notes (tenant_id text, message_id text, note text,
    CONSTRAINT about FOREIGN KEY (tenant_id, message_id) REFERENCES headrace.messages ON DELETE CASCADE);
INSERT INTO mine.notes SELECT tenant_id, id, 'Noted.' FROM headrace.messages LIMIT 3;
CREATE TABLE mine.rates (status text PRIMARY KEY);
INSERT INTO mine.rates VALUES ('asked'), ('answering'), ('answered'), ('failed'), ('stopped'), ('held'), ('blocked');
ALTER TABLE headrace.messages ADD CONSTRAINT rated FOREIGN KEY (status) REFERENCES mine.rates;
CREATE TABLE mine.shown (app_id text);
ALTER TABLE mine.shown ENABLE ROW LEVEL SECURITY;
CREATE POLICY shown ON mine.shown USING (EXISTS (SELECT FROM headrace.messages m WHERE m.app_id = shown.app_id));
ANALYZE headrace.messages;
"""


async def test_all_that_is_at_a_table_follows_a_rebuild_and_an_undo(
    database_url: str, connection: AsyncConnection[TupleRow], role: str, history: History
) -> None:
    await run(connection, EVERYTHING.format(role=role))
    before, others = await catalog(connection), await catalog(connection, "apps")
    assert all(before.values())
    assert len(before["constraints"]) > 5
    live = await tables.table_digests(database_url)
    await rebuilt(database_url, history, "messages")
    assert await catalog(connection) == before
    assert await catalog(connection, "apps") == others
    assert await tables.table_digests(database_url) == live
    old = "SELECT relrowsecurity, has_table_privilege('headrace_reader', oid, 'SELECT') FROM pg_class WHERE oid = "
    assert await query(connection, f"{old}'headrace_old.messages'::regclass") == [(True, False)]
    policy = "SELECT pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polname = 'shown'"
    assert "headrace.messages" in (await query(connection, policy))[0]

    history.app(name="later")
    async with following(database_url, history):
        await caught_up(database_url, history)
    await run(
        connection,
        f'REVOKE ALL ON headrace.messages FROM {role}; DROP INDEX headrace."Words, in short";'
        "DROP POLICY everything ON headrace.messages; GRANT SELECT ON headrace.messages TO headrace_reader;"
        "ALTER TABLE headrace.messages RESET (autovacuum_vacuum_scale_factor), REPLICA IDENTITY FULL;"
        "ALTER TABLE headrace.messages ALTER query SET STATISTICS -1, DROP CONSTRAINT positive;"
        "ANALYZE headrace.messages",
    )
    before, live = await catalog(connection), await tables.table_digests(database_url)
    await rebuild.undo(database_url, RecordedLog(history), recorded_files(history))
    assert await catalog(connection) == before
    assert await tables.table_digests(database_url) == live


async def test_a_rebuild_leaves_to_a_new_table_which_indexes_of_ours_it_has(
    database_url: str, connection: AsyncConnection[TupleRow], history: History
) -> None:
    """An index of an earlier version is not taken for a user's."""
    await run(connection, "CREATE INDEX ix_messages_query ON headrace.messages (tenant_id, query)")
    await run(connection, "COMMENT ON INDEX headrace.ix_messages_query IS 'Made by Headrace.'")
    await run(connection, "CREATE INDEX ix_messages_answer ON headrace.messages (answer)")
    indexes = (
        "SELECT indexname::text FROM pg_indexes WHERE schemaname = 'headrace' AND tablename = 'messages' ORDER BY 1"
    )
    before = set(await query(connection, indexes))
    await rebuilt(database_url, history, "messages")
    assert set(await query(connection, indexes)) == before - {"ix_messages_query"}
    # A version that kept no rules marked no indexes.
    await run(connection, "DELETE FROM headrace_projection.tables")
    await rebuilt(database_url, history, "messages")
    assert set(await query(connection, indexes)) == before - {"ix_messages_query", "ix_messages_answer"}


VIEWS = """
CREATE SCHEMA bi;
CREATE SCHEMA "B. I.";
CREATE VIEW bi.asked WITH (security_barrier, check_option = local) AS
    SELECT id, query AS "Frage", app_id FROM headrace.messages WHERE attempt >= 0;
COMMENT ON VIEW bi.asked IS 'What was asked.';
COMMENT ON COLUMN bi.asked."Frage" IS 'The question.';
GRANT SELECT ON bi.asked TO {role};
CREATE VIEW bi.named AS SELECT asked.*, apps.name FROM bi.asked LEFT JOIN headrace.apps ON apps.id = app_id;
CREATE VIEW bi.words AS SELECT to_jsonb(m) AS message, count(*) OVER () FROM headrace.messages m;
CREATE FUNCTION bi.many(app text) RETURNS bigint LANGUAGE sql STABLE
    BEGIN ATOMIC SELECT count(*) FROM headrace.messages WHERE app_id = app; END;
CREATE MATERIALIZED VIEW "B. I.".daily WITH (fillfactor = 90) AS
    SELECT app_id, bi.many(app_id) AS many, date_trunc('day', created_at) AS day, count(*) AS asked
    FROM headrace.messages GROUP BY 1, 2, 3;
CREATE UNIQUE INDEX daily_key ON "B. I.".daily (app_id, day);
COMMENT ON MATERIALIZED VIEW "B. I.".daily IS 'By day.';
COMMENT ON COLUMN "B. I.".daily.day IS 'In UTC.';
GRANT SELECT ON "B. I.".daily TO {role};
CREATE STATISTICS bi.by_day ON app_id, day FROM "B. I.".daily;
CREATE VIEW bi.weekly AS SELECT date_trunc('week', day) AS week, sum(asked) AS asked FROM "B. I.".daily GROUP BY 1;
CREATE MATERIALIZED VIEW bi.yearly AS SELECT sum(d.asked) AS asked, count(week) AS weeks
    FROM "B. I.".daily d LEFT JOIN bi.weekly w ON w.week = d.day WITH NO DATA;
CREATE MATERIALIZED VIEW bi.seen AS SELECT count(*) FROM bi.named;
GRANT ALL ON SCHEMA bi, "B. I." TO {role};
GRANT SELECT ON headrace.messages TO {role};
DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO {role}', current_database()); END $$;
ALTER MATERIALIZED VIEW "B. I.".daily OWNER TO {role};
ALTER VIEW bi.asked OWNER TO {role};
ANALYZE;
"""

RELATIONS = """
SELECT c.oid::regclass::text, relacl::text, relowner, reloptions::text, obj_description(c.oid), relispopulated,
    pg_get_viewdef(c.oid), (SELECT array_agg((attname, col_description(attrelid, attnum))::text ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0),
    ARRAY(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid),
    ARRAY(SELECT pg_get_statisticsobjdef(e.oid) FROM pg_statistic_ext e WHERE stxrelid = c.oid),
    (SELECT count(*) FROM pg_stats WHERE (schemaname, tablename) = (nspname, relname))
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname ILIKE 'b%i%' AND relkind IN ('v', 'm') ORDER BY 1
"""
ON_OLD = """
SELECT ev_class::regclass::text FROM pg_depend JOIN pg_rewrite r ON r.oid = objid JOIN pg_class c ON c.oid = refobjid
WHERE relnamespace::regnamespace::text LIKE 'headrace_old%' AND ev_class <> refobjid
"""


async def test_views_follow_a_rebuild_and_an_undo(
    database_url: str, connection: AsyncConnection[TupleRow], role: str, history: History
) -> None:
    await run(connection, VIEWS.format(role=role))
    before = await query(connection, RELATIONS)
    assert len(before) == 7
    rows = await query(connection, 'SELECT * FROM "B. I.".daily ORDER BY 1, 3')
    assert rows

    async def check(name: str) -> None:
        assert await query(connection, RELATIONS) == before
        assert await query(connection, ON_OLD) == []
        assert await query(connection, "SELECT oid FROM pg_namespace WHERE nspname LIKE 'headrace_old_%'") == []
        assert await query(connection, 'SELECT * FROM "B. I.".daily ORDER BY 1, 3') == rows
        await run(connection, 'REFRESH MATERIALIZED VIEW CONCURRENTLY "B. I.".daily')
        await run(connection, f"UPDATE headrace.messages SET query = '{name}'")
        assert set(await query(connection, 'SELECT "Frage" FROM bi.named')) == {name}
        assert set(await query(connection, "SELECT message ->> 'query' FROM bi.words")) == {name}
        await run(connection, "DELETE FROM headrace.messages WHERE id = (SELECT max(id) FROM headrace.messages)")
        counts = "SELECT bi.many(app_id) = count(*) FROM headrace.messages GROUP BY app_id"
        assert set(await query(connection, counts)) == {True}

    await rebuilt(database_url, history, "messages")
    await check("rebuilt")
    await rebuilt(database_url, history)
    await check("rebuilt again")
    await rebuilt(database_url, history)
    await rebuild.undo(database_url, RecordedLog(history), recorded_files(history))
    await query(connection, "SELECT count(*) FROM bi.weekly")
    assert await query(connection, RELATIONS) == before
    assert await query(connection, ON_OLD) == []
    await rebuild.drop_old(database_url)
    assert await query(connection, RELATIONS) == before


_MINE = "ALTER TABLE headrace.messages ADD COLUMN mine text"


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            "CREATE RULE loud AS ON INSERT TO headrace.messages DO ALSO NOTIFY loud",
            "rule loud on table headrace.messages",
        ),
        (
            "CREATE FUNCTION public.f() RETURNS SETOF headrace.messages LANGUAGE sql AS 'TABLE headrace.messages'",
            r"function public.f\(\) depends on type headrace.messages",
        ),
        ("CREATE TABLE public.child () INHERITS (headrace.messages)", "table public.child"),
        ("CREATE TABLE public.kept (message headrace.messages)", "table public.kept"),
        ("CREATE VIEW public.whole AS SELECT m FROM headrace.messages m", "view public.whole"),
        ("CREATE SEQUENCE headrace.numbers OWNED BY headrace.messages.attempt", "sequence headrace.numbers"),
        (
            f"{_MINE}; CREATE VIEW public.mine AS SELECT mine FROM headrace.messages",
            "view public.mine names the column mine of headrace.messages",
        ),
        (f"{_MINE}; CREATE INDEX on_mine ON headrace.messages (mine)", "index headrace.on_mine names the column mine"),
    ],
)
async def test_what_cannot_follow_is_refused_by_name_before_anything_is_touched(
    database_url: str, connection: AsyncConnection[TupleRow], history: History, statement: str, named: str
) -> None:
    await run(connection, statement)
    log = RecordedLog(history)
    with pytest.raises(InTheWay, match=f"(?i){named}.*Drop it, and make it again"):
        await rebuild.rebuild(database_url, log, recorded_files(history), ["messages"])
    assert log.reads == 0
    assert await query(connection, "SELECT to_regnamespace('headrace_next')::text") == [None]
    assert await rebuilt(database_url, history, "datasets") == ["datasets"]


async def test_a_view_that_does_not_fit_the_new_table_stops_the_swap_and_nothing_else(
    database_url: str, connection: AsyncConnection[TupleRow], history: History
) -> None:
    live = await tables.table_digests(database_url)
    await run(connection, "ALTER TABLE headrace.messages ALTER attempt TYPE bigint")
    await run(connection, "CREATE VIEW public.attempts AS SELECT id, attempt FROM headrace.messages")
    await run(connection, "CREATE VIEW public.names AS SELECT name FROM headrace.apps")
    with pytest.raises(InTheWay, match=r"^public.attempts cannot be carried .*cannot change data type.*Drop it"):
        await rebuilt(database_url, history)
    assert await tables.table_digests(database_url) == live
    assert await query(connection, ON_OLD) == []
    assert len(await query(connection, "SELECT attempt FROM public.attempts")) == int(live["messages"].split()[0])
    await run(connection, "DROP VIEW public.attempts")
    await rebuilt(database_url, history)
    assert await tables.stale(connection) == []
    assert await tables.table_digests(database_url) == live


async def test_an_upgrade_with_a_view_and_the_tables_of_other_rules(
    database_url: str, connection: AsyncConnection[TupleRow], history: History
) -> None:
    """The tables are as a version without rules left them: one lacks a column, another has rows of earlier rules."""
    live = await tables.table_digests(database_url)
    await run(connection, "CREATE SCHEMA bi; CREATE VIEW bi.v AS SELECT id, query FROM headrace.messages")
    await run(connection, "DROP TABLE headrace_projection.tables; ALTER TABLE headrace.messages DROP COLUMN error_code")
    await run(connection, "UPDATE headrace.apps SET description = 'By earlier rules.'")
    async with following(database_url, history) as task:
        while (
            await tables.positions(connection) == {} or await query(connection, ON_OLD) or not await current(connection)
        ):
            assert not task.done()
            await asyncio.sleep(0.01)
    assert await tables.table_digests(database_url) == live
    assert len(await query(connection, "SELECT * FROM bi.v")) == int(live["messages"].split()[0])


async def current(connection: AsyncConnection[TupleRow]) -> bool:
    try:
        return not await tables.stale(connection)
    except psycopg.errors.UndefinedTable:
        return False


async def test_a_table_that_other_rules_made_is_rebuilt_at_the_start(
    database_url: str, connection: AsyncConnection[TupleRow], history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = await tables.table_digests(database_url)
    await run(connection, "UPDATE headrace.apps SET description = 'By earlier rules.'")
    await run(connection, "UPDATE headrace.messages SET query = 'By the same rules.'")
    digests = dict(rules.digests())
    monkeypatch.setattr(rules, "digests", lambda: digests | {"apps": "other"})
    assert await tables.stale(connection) == [apps]
    async with following(database_url, history):
        while await tables.stale(connection):
            await asyncio.sleep(0.01)
    assert (await tables.table_digests(database_url))["apps"] == live["apps"]
    assert await query(connection, "SELECT DISTINCT query FROM headrace.messages") == ["By the same rules."]
    assert await query(
        connection, "SELECT rules FROM headrace_projection.tables WHERE name = 'apps' ORDER BY schema"
    ) == [
        "other",
        digests["apps"],
    ]
    monkeypatch.undo()
    await run(connection, "UPDATE headrace_projection.tables SET rules = 'even others' WHERE schema = 'headrace_old'")
    with pytest.raises(rebuild.NothingKept, match="Another version of Headrace made these old tables: apps"):
        await rebuild.undo(database_url, RecordedLog(history), recorded_files(history))


async def test_the_projector_waits_for_what_is_in_the_way(
    database_url: str, connection: AsyncConnection[TupleRow], history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "LOOK_AGAIN_S", 0.05)
    live = await tables.table_digests(database_url)
    await run(connection, "ALTER TABLE headrace.messages ADD COLUMN mine text")
    await run(connection, "CREATE VIEW public.mine AS SELECT mine FROM headrace.messages")
    async with following(database_url, history) as task:
        while not (waiting := await tables.waiting(connection)):
            await asyncio.sleep(0.01)
        assert waiting.keys() == {messages.name}
        assert "View public.mine names the column mine" in waiting["messages"]
        await asyncio.sleep(0.2)
        assert not task.done()
        await run(connection, "DROP VIEW public.mine")
        while await tables.stale(connection):
            await asyncio.sleep(0.01)
        assert await tables.waiting(connection) == {}
        history.app(name="later")
        await caught_up(database_url, history)
        assert not task.done()
    assert (await tables.table_digests(database_url))["messages"] == live["messages"]


async def test_readers_of_views_are_waited_for_without_a_deadlock(
    database_url: str, connection: AsyncConnection[TupleRow], history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(
        connection, "CREATE VIEW public.v AS SELECT id FROM headrace.messages; CREATE VIEW public.w AS TABLE public.v"
    )
    async with tables.connect(database_url) as reader:
        done = asyncio.Event()

        async def read() -> int:
            times = 0
            while not done.is_set():
                await reader.execute("SELECT count(*) FROM public.w")
                times += 1
            return times

        reading = asyncio.create_task(read())
        for _ in range(3):
            await rebuilt(database_url, history, "messages")
        done.set()
        assert await reading > 0


async def test_a_subscriber_gets_every_change_before_and_after_a_rebuild(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path) as server, tables.connect(server.url) as connection:
        await run(connection, "ALTER SYSTEM SET wal_level = logical")
    history = wander(Random(30), 500, few=6)
    async with EmbeddedPostgres(tmp_path) as server, tables.connect(server.url) as connection:
        for database in ("published", "subscribed"):
            await run(connection, f"CREATE DATABASE {database}")
        url, other = server.url_of("published"), server.url_of("subscribed")
        await tables.set_up(other)
        async with (
            following(url, history),
            tables.connect(url) as publisher,
            tables.connect(other) as subscriber,
        ):
            await caught_up(url, history)
            await run(publisher, "CREATE PUBLICATION p FOR TABLE headrace.apps")
            await run(publisher, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
            settings = "WITH (create_slot = false, slot_name = 's')"
            await run(subscriber, f"CREATE SUBSCRIPTION s CONNECTION '{url}' PUBLICATION p {settings}")
            for _ in range(2):
                history.app(name="before")
                await caught_up(url, history)
                await rebuilt(url, history)
                history.app(name="after")
                await caught_up(url, history)
            live = await query(publisher, "SELECT * FROM headrace.apps ORDER BY tenant_id, id")
            async with asyncio.timeout(20):
                while await query(subscriber, "SELECT * FROM headrace.apps ORDER BY tenant_id, id") != live:
                    await asyncio.sleep(0.05)
            await run(subscriber, "ALTER SUBSCRIPTION s DISABLE")
            await run(subscriber, "ALTER SUBSCRIPTION s SET (slot_name = NONE)")
            await run(subscriber, "DROP SUBSCRIPTION s")
