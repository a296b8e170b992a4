-- Logins of Headrace's roles: docs/security.md. Made by `headrace postgres roles`. Run it with psql as a superuser, in
-- the database of Headrace; again to change passwords. They are read from files in the folder SECRETS.
\set ON_ERROR_STOP on
\set headrace_owner_password `cat "${SECRETS:-/run/secrets}/POSTGRES_OWNER_PASSWORD"`
\set headrace_indexer_password `cat "${SECRETS:-/run/secrets}/POSTGRES_INDEX_PASSWORD"`
\set headrace_viewer_password `cat "${SECRETS:-/run/secrets}/POSTGRES_VIEW_PASSWORD"`
\set headrace_exporter_password `cat "${SECRETS:-/run/secrets}/POSTGRES_EXPORT_PASSWORD"`
SELECT format('CREATE ROLE %I', role) FROM unnest('{headrace_reader,headrace_tenants,headrace_gateway,headrace_owner,headrace_indexer,headrace_viewer,headrace_exporter}'::text[]) role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
ALTER ROLE headrace_owner LOGIN NOSUPERUSER NOCREATEDB CREATEROLE PASSWORD :'headrace_owner_password';
ALTER ROLE headrace_indexer LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'headrace_indexer_password';
ALTER ROLE headrace_viewer LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'headrace_viewer_password';
ALTER ROLE headrace_exporter LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'headrace_exporter_password';
GRANT headrace_reader TO headrace_indexer, headrace_viewer, headrace_exporter;
GRANT pg_use_reserved_connections TO headrace_owner, headrace_indexer, headrace_viewer, headrace_exporter;
-- `project` makes the SQL logins of tenants, and ends their sessions.
GRANT headrace_tenants TO headrace_owner WITH ADMIN OPTION;
GRANT EXECUTE ON FUNCTION pg_terminate_backend TO headrace_owner;
GRANT SET ON PARAMETER temp_file_limit, log_min_messages TO headrace_owner;
-- `headrace setup` makes the index on behalf of its owner.
GRANT headrace_indexer TO headrace_owner;
SELECT format('GRANT CREATE ON DATABASE %I TO headrace_owner, headrace_indexer', current_database()) \gexec
CREATE EXTENSION IF NOT EXISTS vector;
-- Readers run no function that does more than read.
SELECT 'GRANT EXECUTE ON ROUTINE ' || it || ' TO headrace_owner, headrace_indexer, headrace_exporter' FROM (SELECT 
string_agg(oid::regprocedure::text, ', ') FROM pg_proc
WHERE proname ~ '^pg_(try_)?advisory_' AND pronamespace = 'pg_catalog'::regnamespace
) locks (it) \gexec
SELECT 'REVOKE ' || it || ' FROM PUBLIC' FROM (
SELECT 'EXECUTE ON ROUTINE ' || string_agg(oid::regprocedure::text, ', ') 
FROM pg_proc WHERE provolatile = 'v' AND proname <> ALL('{amvalidate,array_sample,array_shuffle,clock_timestamp,current_query,currtid2,currval,cursor_to_xml,cursor_to_xmlschema,gen_random_uuid,lastval,nextval,pg_available_wal_summaries,pg_blocking_pids,pg_collation_actual_version,pg_control_checkpoint,pg_control_init,pg_control_recovery,pg_control_system,pg_current_wal_flush_lsn,pg_current_wal_insert_lsn,pg_current_wal_lsn,pg_database_collation_actual_version,pg_database_size,pg_get_loaded_modules,pg_get_multixact_members,pg_get_sequence_data,pg_get_wait_events,pg_get_wal_replay_pause_state,pg_get_wal_resource_managers,pg_get_wal_summarizer_state,pg_indexes_size,pg_is_in_recovery,pg_is_wal_replay_paused,pg_jit_available,pg_last_committed_xact,pg_last_wal_receive_lsn,pg_last_wal_replay_lsn,pg_last_xact_replay_timestamp,pg_lock_status,pg_notification_queue_usage,pg_partition_ancestors,pg_partition_tree,pg_prepared_xact,pg_relation_size,pg_safe_snapshot_blocking_pids,pg_sequence_last_value,pg_sleep,pg_sleep_for,pg_sleep_until,pg_stat_clear_snapshot,pg_table_size,pg_tablespace_size,pg_total_relation_size,pg_wal_summary_contents,pg_xact_commit_timestamp,pg_xact_commit_timestamp_origin,pg_xact_status,plpgsql_validator,query_to_xml,query_to_xml_and_xmlschema,query_to_xmlschema,random,random_normal,set_config,setseed,setval,timeofday,ts_rewrite,ts_stat,txid_status,uuidv4,uuidv7}'::name[])
    AND NOT proname ^@ 'pg_stat_get_'
    AND prorettype <> ALL('{trigger,event_trigger,internal,language_handler}'::regtype[])
    AND 'internal'::regtype <> ALL(proargtypes)
    AND (pronamespace = 'pg_catalog'::regnamespace OR EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e'))

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
) rights (it) \gexec
