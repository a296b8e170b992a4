"""The view `budgets`: the soft quotas of money in a month, as they were called before there were others."""

from __future__ import annotations

from adapters.postgres.views import ID, TEXT, TIME, Column, View, comments, row_type

COLUMNS = {
    "tenant_id": Column(ID, "Tenant that the row belongs to."),
    "id": Column(ID, "Budget, as named."),
    "scope": Column(TEXT, "Scope: tenant, app, model or user."),
    "subject": Column(TEXT, "Id of the app, name of the model or the user; empty when it is for the tenant."),
    "amount_usd": Column("double precision", "US dollars a month."),
    "created_at": Column(TIME, "When it was set."),
    "updated_at": Column(TIME, "Time of the last change."),
    "log_position": Column("bigint", "Sequence of the message of the log that last changed the row."),
}

_MADE = f"""{row_type("budget", COLUMNS)}DO $$ DECLARE readers text[]; reader text; BEGIN
    IF (SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass('headrace.budgets')) THEN
        SELECT array_agg(DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
            INTO readers FROM pg_class, aclexplode(relacl)
            WHERE oid = to_regclass('headrace.budgets') AND privilege_type = 'SELECT' AND grantee <> relowner;
        BEGIN
            DROP TABLE headrace.budgets;
        EXCEPTION WHEN dependent_objects_still_exist THEN  -- views of others, which keep the rows of then
            ALTER TABLE headrace.budgets RENAME TO budgets_of_an_earlier_version;
        END;
    END IF;
    CREATE OR REPLACE FUNCTION headrace.monthly_budgets() RETURNS SETOF headrace.budget
    LANGUAGE sql STABLE PARALLEL SAFE AS $f$
        SELECT q.tenant_id, q.name, q.scope, CASE q.scope WHEN 'user' THEN coalesce(
                (SELECT min(u.session_id) FROM headrace.end_users u
                    WHERE u.tenant_id = q.tenant_id AND u.person_id = q.subject), q.subject) ELSE q.subject END,
            q.most, q.created_at, q.updated_at, q.log_position
        FROM headrace.quotas q
        WHERE q.set_by = 'tenant' AND q.unit = 'money' AND q.period = 'month' AND q.time_zone = 'UTC' AND NOT q.hard
    $f$;
    CREATE OR REPLACE VIEW headrace.budgets WITH (security_invoker = true) AS
        SELECT * FROM headrace.monthly_budgets();
    FOREACH reader IN ARRAY coalesce(readers, '{{}}') LOOP
        EXECUTE format('GRANT SELECT ON headrace.budgets TO %s', reader);
    END LOOP;
END $$;
"""

BUDGETS = View(
    "budgets", "Budgets: the soft quotas of money in a month, in UTC.", comments(COLUMNS), _MADE, table="quotas"
)
