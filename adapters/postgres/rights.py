"""Rights of PUBLIC in the database: readers keep what reads, and lose every function that does more.

PostgreSQL gives every role hundreds of functions. Some fill the disk from a read-only transaction, some hold the locks
that Headrace takes, some end the sessions of others. What is not known to be harmless is revoked, so that a function
of a later version is, too. These rights belong to one database: others on the same server are not touched.
"""

from __future__ import annotations

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

_HARMLESS = """
    amvalidate array_sample array_shuffle clock_timestamp current_query currtid2 currval cursor_to_xml
    cursor_to_xmlschema gen_random_uuid lastval nextval pg_available_wal_summaries pg_blocking_pids
    pg_collation_actual_version pg_control_checkpoint pg_control_init pg_control_recovery pg_control_system
    pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn pg_database_collation_actual_version
    pg_database_size pg_get_loaded_modules pg_get_multixact_members pg_get_sequence_data pg_get_wait_events
    pg_get_wal_replay_pause_state pg_get_wal_resource_managers pg_get_wal_summarizer_state pg_indexes_size
    pg_is_in_recovery pg_is_wal_replay_paused pg_jit_available pg_last_committed_xact pg_last_wal_receive_lsn
    pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_lock_status pg_notification_queue_usage
    pg_partition_ancestors pg_partition_tree pg_prepared_xact pg_relation_size pg_safe_snapshot_blocking_pids
    pg_sequence_last_value pg_sleep pg_sleep_for pg_sleep_until pg_stat_clear_snapshot pg_table_size
    pg_tablespace_size pg_total_relation_size pg_wal_summary_contents pg_xact_commit_timestamp
    pg_xact_commit_timestamp_origin pg_xact_status plpgsql_validator query_to_xml query_to_xml_and_xmlschema
    query_to_xmlschema random random_normal set_config setseed setval timeofday ts_rewrite ts_stat txid_status
    uuidv4 uuidv7
"""

HARMLESS = tuple(_HARMLESS.split())
"""Volatile functions that readers may run. They read, concern their own session alone, or ask for rights on their
argument (`nextval`, `setval`); `query_to_xml` runs a query with the rights of its caller. The getters of statistics,
`pg_stat_get_…`, are allowed as well."""

_EXCESS = f"""
FROM pg_proc WHERE provolatile = 'v' AND proname <> ALL('{{{",".join(HARMLESS)}}}'::name[])
    AND NOT proname ^@ 'pg_stat_get_'
    AND prorettype <> ALL('{{trigger,event_trigger,internal,language_handler}}'::regtype[])
    AND 'internal'::regtype <> ALL(proargtypes)
    AND (pronamespace = 'pg_catalog'::regnamespace OR EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e'))
"""
"""Functions of PostgreSQL and of its extensions that SQL can call, and that may do more than read."""

_REVOCABLE = f"""
SELECT 'EXECUTE ON ROUTINE ' || string_agg(oid::regprocedure::text, ', ') {_EXCESS}
    AND pg_has_role(proowner, 'USAGE') AND EXISTS (
        SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
HAVING count(*) > 0
UNION ALL
SELECT format('TEMPORARY ON DATABASE %I', datname) FROM pg_database
WHERE datname = current_database() AND pg_has_role(datdba, 'USAGE') AND EXISTS (
    SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba)))
    WHERE (grantee, privilege_type) = (0, 'TEMPORARY'))
UNION ALL
SELECT format('CREATE ON SCHEMA %I', nspname) FROM pg_namespace
WHERE nspname = 'public' AND pg_has_role(nspowner, 'USAGE') AND EXISTS (
    SELECT FROM aclexplode(nspacl) WHERE (grantee, privilege_type) = (0, 'CREATE'))
"""
"""Rights of PUBLIC beyond reading that the user of this connection may revoke."""

_OWNERS = """
SELECT rolname FROM pg_roles WHERE NOT rolsuper AND oid IN (
    SELECT datdba FROM pg_database WHERE datname = current_database()
    UNION SELECT nspowner FROM pg_namespace WHERE nspname ^@ 'headrace')
"""

_LOCKS = """
string_agg(oid::regprocedure::text, ', ') FROM pg_proc
WHERE proname ~ '^pg_(try_)?advisory_' AND pronamespace = 'pg_catalog'::regnamespace
"""
"""The functions of advisory locks, as a list for GRANT."""


def for_psql(*lockers: str) -> str:
    """Statements for psql that revoke it, by a superuser; these roles keep the functions of advisory locks."""
    grant = f"'GRANT EXECUTE ON ROUTINE ' || it || ' TO {', '.join(lockers)}'"
    return (
        f"SELECT {grant} FROM (SELECT {_LOCKS}) locks (it) \\gexec\n"
        f"SELECT 'REVOKE ' || it || ' FROM PUBLIC' FROM ({_REVOCABLE}) rights (it) \\gexec\n"
    )


async def restrict(connection: AsyncConnection[TupleRow]) -> None:
    """Revoke from PUBLIC what does more than read, as far as the user of the connection may, within the transaction.

    The owners of Headrace's schemas keep what Headrace uses: the functions of advisory locks, and the one that ends
    sessions of roles whose rights they have.
    """
    cursor = await connection.execute(_REVOCABLE.encode())
    if not (found := [right for (right,) in await cursor.fetchall()]):
        return
    for (owner,) in await (await connection.execute(_OWNERS)).fetchall():
        await grant_locks(connection, owner)
        grant = SQL("GRANT EXECUTE ON FUNCTION pg_terminate_backend TO {}")
        await connection.execute(grant.format(Identifier(owner)))
    for right in found:
        await connection.execute(f"REVOKE {right} FROM PUBLIC".encode())


async def grant_locks(connection: AsyncConnection[TupleRow], role: str) -> None:
    """Let a role take advisory locks, if the user of the connection may grant that."""
    [[functions]] = await (await connection.execute(f"SELECT {_LOCKS}".encode())).fetchall()
    # Without that right, PostgreSQL warns and grants nothing.
    await connection.execute(SQL("GRANT EXECUTE ON ROUTINE {} TO {}").format(SQL(functions), Identifier(role)))


async def excess(connection: AsyncConnection[TupleRow], reader: str) -> list[str]:
    """The functions that this role can run although they may do more than read, by name."""
    cursor = await connection.execute(
        f"SELECT DISTINCT proname {_EXCESS} AND has_function_privilege(%s, oid, 'EXECUTE') ORDER BY 1".encode(),
        (reader,),
    )
    return [name for (name,) in await cursor.fetchall()]
