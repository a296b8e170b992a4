"""Attachments of others to the tables (grants, policies, indexes, publications, views), carried over in a swap.

A swap gives a name to another table. To fill the live one instead would keep all of this by itself, but readers would
wait for as long as millions of rows take, subscribers would be sent every row, and other columns would need migrations.
So the swap reads from the catalog what the old table has, and gives it to the new one:

- Parts of the table are copied: owner, grants, policies of others, settings, indexes, constraints. The old
  table keeps its own, so that no user can read there what they could not read before.
- What exists once moves: triggers, places in publications, extended statistics, foreign keys from and to the table.
- What names the table is made again in its place. `CREATE OR REPLACE` with the text of a view or function finds the new
  table under the old name, and keeps its owner, its grants, its comments and what depends on it. A materialized view
  cannot be replaced: a new one takes its name, as a table does.

Anything else is refused by name, before anything is touched. Views of other sessions' temporary schemas are left alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier, Literal

from adapters.postgres.policies import NAMES
from adapters.postgres.tables import MARK, NEXT, OLD, SCHEMA, name
from projections.engine.read_model import ReadModel

_PLACE = "\x01"
"""Stands for the schema of a table in statements that are run for the same table in another one."""

_NOT_LIVE = [OLD, NEXT]
"""Schemas of tables that are not live. They keep what was copied to them, and are dropped soon."""


class InTheWay(Exception):
    """An attachment cannot be carried over to the new tables. The message names it, and says what to do."""

    def __init__(self, found: str) -> None:
        super().__init__(f"{found} Drop it, and make it again when the tables are rebuilt.")


class Part(NamedTuple):
    """A part of a table: the column it belongs to, and how it is made and dropped.

    What is `early` is made before the swap, since it takes long, or says which statistics are made. What may name other
    tables is made `again` even where it seems to be there.
    """

    column: str | None
    make: str
    drop: str
    early: bool
    again: bool


class Dependent(NamedTuple):
    """A view, function or policy that names a table, with the statement that makes it again; `fill` is run after it."""

    oid: int
    kind: str
    schema: str
    name: str
    owner: str
    make: str
    fill: str | None


@dataclass(frozen=True, slots=True)
class Attachments:
    """Statements that attach the parts and dependents to the tables after the swap."""

    parts: Sequence[str]
    dependents: Sequence[Dependent]
    of_views: Mapping[int, Sequence[Part]]
    """Parts of materialized views."""
    moved: Sequence[str]
    measured: Sequence[str]
    """Relations whose statistics are lost."""


async def check(connection: AsyncConnection[TupleRow], models: Sequence[ReadModel]) -> None:
    """Raises: InTheWay, when something at the live tables cannot be carried over to those of this version."""
    columns = [(model.name, str(column.name)) for model in models for column in model.table.columns]
    async with connection.transaction():
        live = await _tables(connection, models, SCHEMA)
        query = SQL(_REFUSED).format(
            tables=_ids(live.values()),
            not_live=Literal(_NOT_LIVE),
            mark=Literal(MARK),
            names=Literal([table for table, _ in columns]),
            columns=Literal([column for _, column in columns]),
        )
        found = await (await connection.execute(query)).fetchall()
    if found:
        raise InTheWay(" ".join(f"{what[:1].upper()}{what[1:]} {why}." for what, why in found))


async def prepare(connection: AsyncConnection[TupleRow], models: Sequence[ReadModel]) -> None:
    """Make on the next tables what is made before the swap. Raises: InTheWay."""
    for model in models:
        async with connection.transaction():
            live, coming = [await _tables(connection, [model], schema) for schema in (SCHEMA, NEXT)]
            parts = await _parts(connection, [*live.values(), *coming.values()])
            for table, oid in live.items():
                missing = _missing(parts[oid], parts[coming[table]], model.blank, early=True)
                for statement in missing:
                    await _execute(connection, statement.replace(_PLACE, NEXT))
                if missing:
                    await connection.execute(SQL("ANALYZE {}").format(name(model, NEXT)))


async def detach(connection: AsyncConnection[TupleRow], models: Sequence[ReadModel]) -> Attachments:
    """Lock the live tables and the views on them, and take off what cannot be at two tables.

    For the transaction of the swap: from then on, its statements must name all schemas. Raises: InTheWay.
    """
    live, coming = [await _tables(connection, models, schema) for schema in (SCHEMA, NEXT)]
    for view in reversed(await _dependents(connection, live.values())):
        if view.owner:
            # That changes nothing but takes the lock, in the order that readers take them in: views, then tables.
            await _execute(connection, f"ALTER TABLE {view.name} OWNER TO {view.owner}")
    for table in live:
        await connection.execute(SQL("LOCK TABLE {}.{}").format(Identifier(SCHEMA), Identifier(table)))
    await check(connection, models)
    dependents = await _dependents(connection, live.values())
    views = [view.oid for view in dependents if view.kind == "m"]
    parts = await _parts(connection, [*live.values(), *coming.values(), *views])
    differences = [
        statement.replace(_PLACE, SCHEMA)
        for model in models
        if model.name in live
        for statement in _missing(parts[live[model.name]], parts[coming[model.name]], model.blank)
    ]
    query = SQL(_MOVED).format(tables=_ids([*live.values(), *views]), not_live=Literal(_NOT_LIVE))
    moved = await (await connection.execute(query)).fetchall()
    for drop, _, _ in moved:
        await _execute(connection, drop)
    return Attachments(
        differences,
        dependents,
        {oid: parts[oid] for oid in views},
        [statement for _, makes, _ in moved for statement in makes],
        [*(relation for _, _, relation in moved if relation), *(view.name for view in dependents if view.fill)],
    )


async def attach(connection: AsyncConnection[TupleRow], attachments: Attachments) -> None:
    """Attach them to the tables that have the names now. Raises: InTheWay."""
    for statement in attachments.parts:
        await _execute(connection, statement)
    replaced = []
    for dependent in attachments.dependents:
        if dependent.kind == "m":
            aside = f"{OLD}_{dependent.oid}"
            await connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(aside)))
            await _execute(connection, f"ALTER TABLE {dependent.name} SET SCHEMA {aside}")
            replaced.append(aside)
        await _execute(connection, dependent.make, dependent.name)
        if dependent.kind == "m":
            cursor = await connection.execute("SELECT %s::regclass::oid::int8", (dependent.name,))
            [[oid]] = await cursor.fetchall()
            made = await _parts(connection, [oid])
            for statement in _missing(attachments.of_views[dependent.oid], made[oid]):
                await _execute(connection, statement.replace(_PLACE, dependent.schema))
        if dependent.fill:
            await _execute(connection, dependent.fill, dependent.name)
    for aside in reversed(replaced):
        await connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(aside)))
    for statement in attachments.moved:
        await _execute(connection, statement)


async def measure(connection: AsyncConnection[TupleRow], attachments: Attachments) -> None:
    """Have the planner's statistics made that the swap has taken away."""
    for relation in dict.fromkeys(attachments.measured):
        with suppress(psycopg.errors.UndefinedTable):  # the view has been dropped since
            await connection.execute(f"ANALYZE {relation}".encode())


async def _tables(connection: AsyncConnection[TupleRow], models: Sequence[ReadModel], schema: str) -> dict[str, int]:
    """The ids of the tables that are there. From then on, names are shown and read with their schemas."""
    await connection.execute("SET LOCAL search_path = ''")
    cursor = await connection.execute(
        "SELECT relname, oid::int8 FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r' "
        "AND relname = ANY(%s) ORDER BY array_position(%s, relname::text)",
        (schema, names := [model.name for model in models], names),
    )
    return dict(await cursor.fetchall())


def _ids(tables: Iterable[int]) -> Literal:
    return Literal("{" + ",".join(map(str, tables)) + "}")


async def _parts(connection: AsyncConnection[TupleRow], tables: Iterable[int]) -> Mapping[int, list[Part]]:
    query = SQL(_PARTS).format(
        tables=_ids(tables), place=Literal(_PLACE), mark=Literal(MARK), ours=Literal(list(NAMES))
    )
    parts: dict[int, list[Part]] = defaultdict(list)
    for oid, *part in await (await connection.execute(query)).fetchall():
        parts[oid].append(Part(*part))
    return parts


def _missing(
    live: Sequence[Part], coming: Sequence[Part], columns: Container[str] | None = None, *, early: bool = False
) -> list[str]:
    """The statements that give the next table what the live one has of others, and nothing else; of these columns."""
    kept = {part.make for part in live} & {part.make for part in coming if not part.again}
    wanted = [part for part in live if part.column is None or columns is None or part.column in columns]
    drops = [part.drop for part in reversed(coming) if part.make not in kept and part.early >= early]
    return [*filter(None, drops), *(part.make for part in wanted if part.make not in kept and part.early >= early)]


async def _dependents(connection: AsyncConnection[TupleRow], tables: Iterable[int]) -> list[Dependent]:
    """Those of these tables, each after those that it depends on itself."""
    query = SQL(_DEPENDENTS).format(tables=_ids(tables), not_live=Literal(_NOT_LIVE))
    return [Dependent(*row[:-1]) for row in await (await connection.execute(query)).fetchall()]


async def _execute(connection: AsyncConnection[TupleRow], statement: str, what: str = "") -> None:
    try:
        await connection.execute(statement.encode())
    except psycopg.OperationalError:  # servers that are away, locks, full disks
        raise
    except psycopg.Error as error:
        reason = str(error).partition("\n")[0]
        raise InTheWay(f"{what or statement} cannot be carried over to the new tables: {reason}.") from error


_EDGES = """
WITH RECURSIVE edges AS (
    -- what depends on what: views, functions whose bodies are parsed, policies
    SELECT 'pg_class'::regclass::oid AS class, ev_class AS object, refclassid, refobjid
    FROM pg_depend JOIN pg_rewrite r ON (classid, objid) = ('pg_rewrite'::regclass, r.oid)
        JOIN pg_class v ON v.oid = ev_class
    WHERE rulename = '_RETURN' AND relpersistence <> 't' AND (refclassid, refobjid) <> ('pg_class'::regclass, ev_class)
    UNION
    SELECT classid, objid, refclassid, refobjid FROM pg_depend JOIN pg_proc p ON p.oid = objid
    WHERE classid = 'pg_proc'::regclass AND prosqlbody IS NOT NULL AND (refclassid, refobjid) <> (classid, objid)
    UNION
    SELECT classid, objid, refclassid, refobjid FROM pg_depend
        JOIN pg_policy p ON p.oid = objid JOIN pg_class c ON c.oid = polrelid
    WHERE classid = 'pg_policy'::regclass AND polrelid <> ALL ({tables}::oid[]) AND refobjid <> polrelid
        AND relnamespace::regnamespace::text <> ALL ({not_live})
), replaced AS (
    SELECT 'pg_class'::regclass::oid AS class, unnest({tables}::oid[]) AS object
    UNION
    SELECT class, object FROM replaced r(refclassid, refobjid) JOIN edges USING (refclassid, refobjid)
    WHERE class = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class WHERE oid = object AND relkind = 'm')
)"""

_DEPENDENTS = f"""{_EDGES}, chain AS (
    SELECT 'pg_class'::regclass::oid AS class, unnest({{tables}}::oid[]) AS object, 0 AS level
    UNION
    SELECT edges.class, edges.object, level + 1
    FROM chain JOIN edges ON (refclassid, refobjid) = (chain.class, chain.object) WHERE level < 1000
), found AS (
    SELECT class, object, max(level) AS level FROM chain
    WHERE EXISTS (
        SELECT FROM edges JOIN replaced r ON (refclassid, refobjid) = (r.class, r.object)
        WHERE (edges.class, edges.object) = (chain.class, chain.object)
    ) GROUP BY 1, 2
)
SELECT object::int8, relkind::text, quote_ident(nspname), format('%I.%I', nspname, relname),
    quote_ident(pg_get_userbyid(relowner)),
    CASE relkind
        WHEN 'm' THEN format('CREATE MATERIALIZED VIEW %I.%I AS %s WITH NO DATA', nspname, relname,
            rtrim(pg_get_viewdef(c.oid), ';'))
        ELSE format('CREATE OR REPLACE VIEW %I.%I%s AS %s', nspname, relname,
            ' WITH (' || array_to_string(reloptions, ', ') || ')', pg_get_viewdef(c.oid))
    END,
    CASE WHEN relkind = 'm' AND relispopulated THEN format('REFRESH MATERIALIZED VIEW %I.%I', nspname, relname) END,
    level
FROM found JOIN pg_class c ON (class, object) = ('pg_class'::regclass, c.oid)
    JOIN pg_namespace n ON n.oid = relnamespace
UNION ALL
SELECT object::int8, 'function', '', object::regprocedure::text, '', pg_get_functiondef(object), NULL, level
FROM found WHERE class = 'pg_proc'::regclass
UNION ALL
SELECT object::int8, 'policy', '', format('policy %I on %s', polname, polrelid::regclass), '',
    format('ALTER POLICY %I ON %s', polname, polrelid::regclass)
        || coalesce(' USING (' || pg_get_expr(polqual, polrelid) || ')', '')
        || coalesce(' WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')', ''), NULL, level
FROM found JOIN pg_policy p ON (class, object) = ('pg_policy'::regclass, p.oid)
ORDER BY level, 1
"""

_REFUSED = f"""{_EDGES}, tables AS (
    SELECT c.*, nspname, EXISTS (
        SELECT FROM headrace_projection.tables t WHERE (schema, name) = (nspname, relname) AND rules <> ''
    ) AS marked FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE c.oid IN (SELECT object FROM replaced)
), ours AS (
    SELECT class, object FROM replaced
    UNION ALL SELECT 'pg_type'::regclass, reltype FROM tables
    UNION ALL SELECT 'pg_type'::regclass, typarray FROM tables JOIN pg_type y ON y.oid = reltype
    UNION ALL SELECT 'pg_class'::regclass, indexrelid FROM tables JOIN pg_index ON indrelid = tables.oid
    UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM tables JOIN pg_constraint k ON conrelid = tables.oid
), hanging AS (
    SELECT d.*, CASE WHEN rulename = '_RETURN' THEN pg_describe_object('pg_class'::regclass, ev_class, 0)
            ELSE pg_describe_object(classid, objid, 0) END AS what,
        CASE classid
            WHEN 'pg_rewrite'::regclass THEN rulename = '_RETURN' AND refclassid <> 'pg_type'::regclass
            WHEN 'pg_proc'::regclass THEN refclassid <> 'pg_type'::regclass
                AND EXISTS (SELECT FROM pg_proc p WHERE p.oid = objid AND prosqlbody IS NOT NULL)
            WHEN 'pg_class'::regclass THEN EXISTS (SELECT FROM pg_index WHERE indexrelid = objid)
            WHEN 'pg_attrdef'::regclass THEN EXISTS (
                SELECT FROM pg_attrdef f JOIN pg_attribute a ON (attrelid, attnum) = (adrelid, adnum)
                WHERE f.oid = objid AND attgenerated = ''
            )
            WHEN 'pg_constraint'::regclass THEN EXISTS (
                SELECT FROM pg_constraint k WHERE k.oid = objid AND conrelid <> 0
            )
            ELSE classid IN (
                'pg_trigger'::regclass, 'pg_policy'::regclass, 'pg_statistic_ext'::regclass,
                'pg_publication_rel'::regclass
            )
        END AS carried
    FROM ours JOIN pg_depend d ON (refclassid, refobjid) = (class, object)
        LEFT JOIN pg_rewrite r ON (classid, r.oid) = ('pg_rewrite'::regclass, objid)
        LEFT JOIN pg_class v ON v.oid = ev_class
    WHERE deptype <> 'i' AND v.relpersistence IS DISTINCT FROM 't'
)
SELECT DISTINCT what, format('depends on %s and cannot follow to a new table',
    pg_describe_object(refclassid, refobjid, 0))
FROM hanging WHERE NOT carried
UNION
SELECT what, format('names the column %s of %s, which this version does not have', attname, attrelid::regclass)
FROM hanging JOIN tables t ON (refclassid, refobjid) = ('pg_class'::regclass, t.oid)
    JOIN pg_attribute ON (attrelid, attnum) = (refobjid, refobjsubid)
WHERE carried AND attnum > 0 AND relkind = 'r'
    AND (relname, attname) NOT IN (SELECT n::name, c::name FROM unnest({{names}}::text[], {{columns}}::text[]) a(n, c))
    AND classid <> 'pg_attrdef'::regclass
    AND NOT EXISTS (SELECT FROM pg_constraint k
        WHERE (classid, k.oid) = ('pg_constraint'::regclass, objid) AND contype IN ('p', 'n'))
    AND NOT EXISTS (SELECT FROM pg_class i WHERE (classid, i.oid) = ('pg_class'::regclass, objid)
        AND (obj_description(i.oid, 'pg_class') IS NOT DISTINCT FROM {{mark}}
            OR NOT marked AND starts_with(i.relname, format('ix_%s_', t.relname))))
UNION
SELECT pg_describe_object(classoid, objoid, objsubid), 'has a security label, which cannot follow to a new table'
FROM pg_seclabel JOIN replaced ON (classoid, objoid) = (class, object)
ORDER BY 1, 2
"""

_PARTS = """
WITH tables AS (
    SELECT c.*, nspname, {place} || '.' || quote_ident(relname) AS name, EXISTS (
        SELECT FROM headrace_projection.tables t WHERE (schema, t.name) = (nspname, relname) AND rules <> ''
    ) AS marked FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = ANY ({tables}::oid[])
), columns AS (
    SELECT tables.oid AS tid, name, relkind, a.* FROM tables JOIN pg_attribute a ON attrelid = tables.oid
    WHERE attnum > 0 AND NOT attisdropped
), indexes AS (
    SELECT tables.oid AS tid, name, i.*, x.relname AS index, {place} || '.' || quote_ident(x.relname) AS index_name,
        CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END AS uniquely, nspname, tables.relname,
        NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
            AND obj_description(indexrelid, 'pg_class') IS DISTINCT FROM {mark}
            AND (marked OR tables.relkind <> 'r' OR NOT starts_with(x.relname, format('ix_%s_', tables.relname)))
            AS others
    FROM tables JOIN pg_index i ON indrelid = tables.oid JOIN pg_class x ON x.oid = indexrelid WHERE indisvalid
), constraints AS (
    SELECT tables.oid AS tid, name, k.oid AS id, conname FROM tables JOIN pg_constraint k ON conrelid = tables.oid
    WHERE contype IN ('c', 'u', 'x')
), policies AS (
    SELECT tables.oid AS tid, name, p.* FROM tables JOIN pg_policy p(id, polname, polrelid) ON polrelid = tables.oid
    WHERE polname <> ALL({ours})
), parts(oid, place, part_column, early, again, make, drop) AS (
    SELECT oid, 0, NULL::name, false, false, format('ALTER TABLE %s OWNER TO %I', name, pg_get_userbyid(relowner)), NULL
    FROM tables
    UNION ALL
    SELECT tables.oid, 1, NULL, true, false, format('ALTER TABLE %s SET TABLESPACE %I', name, spcname),
        format('ALTER TABLE %s SET TABLESPACE pg_default', name)
    FROM tables JOIN pg_tablespace s ON s.oid = reltablespace
    UNION ALL
    SELECT oid, 1, NULL, true, false, format('ALTER TABLE %s SET UNLOGGED', name),
        format('ALTER TABLE %s SET LOGGED', name)
    FROM tables WHERE relpersistence = 'u'
    UNION ALL
    SELECT oid, 2, NULL, false, false, format('ALTER TABLE %s SET (%s)', name, option),
        format('ALTER TABLE %s RESET (%s)', name, split_part(option, '=', 1))
    FROM (
        SELECT oid, name, unnest(reloptions) AS option FROM tables
        UNION ALL
        SELECT tables.oid, name, 'toast.' || unnest(toast.reloptions)
        FROM tables JOIN pg_class toast ON toast.oid = tables.reltoastrelid
    ) options
    UNION ALL
    SELECT tid, 3, attname, true, false, format('ALTER TABLE %s ALTER %I %s', name, attname, make),
        format('ALTER TABLE %s ALTER %I %s', name, attname, drop)
    FROM columns JOIN pg_type y ON y.oid = atttypid, LATERAL (
        SELECT format('SET STATISTICS %s', attstattarget) AS make, 'SET STATISTICS -1' AS drop WHERE attstattarget >= 0
        UNION ALL
        SELECT format('SET (%s)', array_to_string(attoptions, ', ')), 'RESET (n_distinct, n_distinct_inherited)'
        WHERE attoptions IS NOT NULL
        UNION ALL
        SELECT 'SET STORAGE ' || kind, 'SET STORAGE ' || usual
        FROM (VALUES ('p', 'PLAIN'), ('e', 'EXTERNAL'), ('m', 'MAIN'), ('x', 'EXTENDED')) a(letter, kind),
            (VALUES ('p', 'PLAIN'), ('e', 'EXTERNAL'), ('m', 'MAIN'), ('x', 'EXTENDED')) b(other, usual)
        WHERE attstorage <> typstorage AND letter = attstorage::text AND other = typstorage::text
        UNION ALL
        SELECT 'SET COMPRESSION ' || CASE attcompression WHEN 'p' THEN 'pglz' ELSE 'lz4' END, 'SET COMPRESSION default'
        WHERE attcompression <> ''
        UNION ALL
        SELECT 'SET DEFAULT ' || pg_get_expr(adbin, adrelid), 'DROP DEFAULT'
        FROM pg_attrdef WHERE (adrelid, adnum) = (attrelid, attnum) AND attgenerated = ''
    ) settings
    UNION ALL
    SELECT oid, 4, of_column, false, false,
        format('GRANT %s ON %s TO %s%s', granted, name, who, CASE WHEN passed THEN ' WITH GRANT OPTION' END),
        format('REVOKE %s ON %s FROM %s CASCADE', granted, name, who)
    FROM (
        SELECT oid, name, NULL::name AS of_column, privilege_type AS granted, grantee, bool_or(is_grantable) AS passed
        FROM tables, aclexplode(coalesce(relacl, acldefault('r', relowner))) GROUP BY 1, 2, 3, 4, 5
        UNION ALL
        SELECT tid, name, attname, format('%s (%I)', privilege_type, attname), grantee, bool_or(is_grantable)
        FROM columns, aclexplode(attacl) GROUP BY 1, 2, 3, 4, 5
    ) grants, LATERAL (
        SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS who
    ) grantees
    UNION ALL
    SELECT tid, 5, NULL, true, false,
        format('ALTER TABLE %s ADD CONSTRAINT %I %s', name, conname, pg_get_constraintdef(id)),
        format('ALTER TABLE %s DROP CONSTRAINT %I', name, conname)
    FROM constraints
    UNION ALL
    SELECT tid, 6, NULL, true, false, format('COMMENT ON CONSTRAINT %I ON %s IS %L', conname, name, description),
        format('COMMENT ON CONSTRAINT %I ON %s IS NULL', conname, name)
    FROM constraints JOIN pg_description ON (classoid, objoid) = ('pg_constraint'::regclass, id)
    UNION ALL
    SELECT tid, 7, NULL, true, false,
        format('CREATE %sINDEX %I ON %s ', uniquely, index, name) || substr(pg_get_indexdef(indexrelid),
            1 + length(format('CREATE %sINDEX %I ON %I.%I ', uniquely, index, nspname, relname))),
        'DROP INDEX ' || index_name
    FROM indexes WHERE others
    UNION ALL
    SELECT tid, 8, NULL, true, false, format('COMMENT ON INDEX %s IS %L', index_name, description),
        format('COMMENT ON INDEX %s IS NULL', index_name)
    FROM indexes JOIN pg_description ON (classoid, objoid) = ('pg_class'::regclass, indexrelid) WHERE others
    UNION ALL
    SELECT tid, 8, NULL, true, false,
        format('ALTER INDEX %s ALTER COLUMN %s SET STATISTICS %s', index_name, attnum, attstattarget),
        format('ALTER INDEX %s ALTER COLUMN %s SET STATISTICS -1', index_name, attnum)
    FROM indexes JOIN pg_attribute ON attrelid = indexrelid WHERE others AND attstattarget >= 0
    UNION ALL
    SELECT tid, 9, NULL, false, false, format('ALTER TABLE %s CLUSTER ON %I', name, index),
        format('ALTER TABLE %s SET WITHOUT CLUSTER', name)
    FROM indexes WHERE indisclustered
    UNION ALL
    SELECT tid, 9, NULL, false, false, format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', name, index),
        format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', name)
    FROM indexes WHERE indisreplident
    UNION ALL
    SELECT oid, 9, NULL, false, false,
        format('ALTER TABLE %s REPLICA IDENTITY %s', name, CASE relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END),
        format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', name)
    FROM tables WHERE relreplident IN ('f', 'n') AND relkind = 'r'
    UNION ALL
    SELECT oid, 10, NULL, false, false, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', name), NULL
    FROM tables WHERE relrowsecurity
    UNION ALL
    SELECT oid, 10, NULL, false, false, format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', name),
        format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', name)
    FROM tables WHERE relforcerowsecurity
    UNION ALL
    SELECT tid, 11, NULL, false, true,
        format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', polname, name,
            CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
            CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
                ELSE 'ALL' END,
            (SELECT string_agg(CASE role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END, ', ')
                FROM unnest(polroles) role))
            || coalesce(' USING (' || pg_get_expr(polqual, polrelid) || ')', '')
            || coalesce(' WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')', ''),
        format('DROP POLICY %I ON %s', polname, name)
    FROM policies
    UNION ALL
    SELECT tid, 12, NULL, false, true, format('COMMENT ON POLICY %I ON %s IS %L', polname, name, description), NULL
    FROM policies JOIN pg_description ON (classoid, objoid) = ('pg_policy'::regclass, id)
    UNION ALL
    SELECT oid, 13, NULL, false, false, format('COMMENT ON MATERIALIZED VIEW %s IS %L', name, description), NULL
    FROM tables JOIN pg_description ON (classoid, objoid, objsubid) = ('pg_class'::regclass, oid, 0) WHERE relkind = 'm'
    UNION ALL
    SELECT tid, 13, NULL, false, false, format('COMMENT ON COLUMN %s.%I IS %L', name, attname, description), NULL
    FROM columns JOIN pg_description ON (classoid, objoid, objsubid) = ('pg_class'::regclass, tid, attnum)
    WHERE relkind = 'm'
)
SELECT oid::int8, part_column, make, drop, early, again FROM parts ORDER BY oid, place, make
"""

_MOVED = """
SELECT drop, array_remove(makes, NULL), measured FROM (
    SELECT 0 AS place, format('DROP STATISTICS %s', name) AS drop, ARRAY[
        pg_get_statisticsobjdef(oid),
        format('ALTER STATISTICS %s OWNER TO %I', name, pg_get_userbyid(stxowner)),
        CASE WHEN stxstattarget >= 0 THEN format('ALTER STATISTICS %s SET STATISTICS %s', name, stxstattarget) END,
        format('COMMENT ON STATISTICS %s IS %L', name, nullif(obj_description(oid, 'pg_statistic_ext'), ''))
    ] AS makes, stxrelid::regclass::text AS measured
    FROM pg_statistic_ext s, LATERAL (SELECT format('%s.%I', stxnamespace::regnamespace, stxname) AS name) names
    WHERE stxrelid = ANY ({tables}::oid[])
    UNION ALL
    SELECT 1, format('ALTER PUBLICATION %I DROP TABLE %s', pubname, prrelid::regclass), ARRAY[
        format('ALTER PUBLICATION %I ADD TABLE %s%s%s', pubname, prrelid::regclass,
            (SELECT ' (' || string_agg(quote_ident(attname), ', ') || ')' FROM pg_attribute
                WHERE attrelid = prrelid AND attnum = ANY (prattrs)),
            ' WHERE (' || pg_get_expr(prqual, prrelid) || ')')
    ], NULL
    FROM pg_publication_rel JOIN pg_publication p ON p.oid = prpubid WHERE prrelid = ANY ({tables}::oid[])
    UNION ALL
    SELECT 2, format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass), ARRAY[
        pg_get_triggerdef(oid),
        format('ALTER TABLE %s %s TRIGGER %I', tgrelid::regclass,
            CASE tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS'
                ELSE 'ENABLE' END, tgname),
        format('COMMENT ON TRIGGER %I ON %s IS %L', tgname, tgrelid::regclass, obj_description(oid, 'pg_trigger'))
    ], NULL
    FROM pg_trigger WHERE tgrelid = ANY ({tables}::oid[]) AND NOT tgisinternal
    UNION ALL
    SELECT 3, format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname), ARRAY[
        format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(k.oid)),
        format('COMMENT ON CONSTRAINT %I ON %s IS %L', conname, conrelid::regclass,
            obj_description(k.oid, 'pg_constraint'))
    ], NULL
    FROM pg_constraint k JOIN pg_class c ON c.oid = conrelid
    WHERE contype = 'f' AND conparentid = 0 AND (conrelid = ANY ({tables}::oid[]) OR confrelid = ANY ({tables}::oid[]))
        AND relnamespace::regnamespace::text <> ALL ({not_live})
) moved ORDER BY place, drop
"""
