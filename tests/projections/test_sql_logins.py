from __future__ import annotations

from domain.access.sql_login import SqlLogin
from projections.sql_logins import sql_logins
from tests.projections.history import History


def test_given_a_login_when_it_is_revoked_then_its_row_says_so_and_never_holds_the_verifier() -> None:
    history = History()
    login = SqlLogin.begin(SqlLogin.Created, "one", history.now, name="bi", role="t_1", sealed_verifier="sealed")
    history.record(login)
    (row,) = history.rows(sql_logins)
    assert row == {
        "tenant_id": "default",
        "id": "one",
        "name": "bi",
        "role": "t_1",
        "status": "active",
        "created_by": "ada",
        "revoked_by": None,
        "created_at": login.created_on,
        "revoked_at": None,
        "log_position": 1,
    }
    login.revoke(history.now)
    history.record(login)
    (row,) = history.rows(sql_logins)
    assert (row["status"], row["revoked_by"], row["revoked_at"]) == ("revoked", "ada", login.modified_on)
    assert row["created_at"] == login.created_on
