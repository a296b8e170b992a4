-- Logins of Headrace's roles: docs/security.md. Made by `headrace postgres roles`. Run it with psql as a superuser, in
-- the database of Headrace; again to change passwords. They are read from files in the folder SECRETS.
\set ON_ERROR_STOP on
\set headrace_owner_password `cat "${SECRETS:-/run/secrets}/POSTGRES_OWNER_PASSWORD"`
\set headrace_indexer_password `cat "${SECRETS:-/run/secrets}/POSTGRES_INDEX_PASSWORD"`
\set headrace_viewer_password `cat "${SECRETS:-/run/secrets}/POSTGRES_VIEW_PASSWORD"`
SELECT format('CREATE ROLE %I', role) FROM unnest('{headrace_reader,headrace_owner,headrace_indexer,headrace_viewer}'::text[]) role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
ALTER ROLE headrace_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'headrace_owner_password';
ALTER ROLE headrace_indexer LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'headrace_indexer_password';
ALTER ROLE headrace_viewer LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'headrace_viewer_password';
GRANT headrace_reader TO headrace_indexer, headrace_viewer;
-- `headrace setup` makes the index on behalf of its owner.
GRANT headrace_indexer TO headrace_owner;
SELECT format('GRANT CREATE ON DATABASE %I TO headrace_owner, headrace_indexer', current_database()) \gexec
CREATE EXTENSION IF NOT EXISTS vector;
