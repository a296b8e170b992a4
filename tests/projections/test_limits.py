from __future__ import annotations

from domain.access.limits import Counted, Limits
from projections.limits import limits
from tests.projections.history import History


def test_a_limit_is_set_changed_removed_and_set_again() -> None:
    history = History()
    own = Limits.begin(Limits.Begun, "tenant", history.now)
    own.limit(history.now, Counted("tokens", "day"), "", most=1000)
    began = history.record(own)
    own.limit(history.now, Counted("messages", "minute", "key"), "k/1", most=5)
    own.limit(history.now, Counted("tokens", "day"), "", most=2000)
    at = history.record(own)
    tokens, messages = sorted(history.rows(limits), key=lambda row: str(row["quantity"]), reverse=True)
    assert tokens == {
        "tenant_id": "default",
        "id": "tenant/tokens/day/tenant",
        "set_by": "tenant",
        "quantity": "tokens",
        "period": "day",
        "scope": "tenant",
        "subject": "",
        "most": 2000,
        "created_at": began,
        "updated_at": at,
        "log_position": 2,
    }
    assert (messages["id"], messages["subject"], messages["most"]) == ("tenant/messages/minute/key/k/1", "k/1", 5)
    own.remove(history.now, Counted("tokens", "day"), "")
    history.record(own)
    assert [row["quantity"] for row in history.rows(limits)] == ["messages"]
    own.limit(history.now, Counted("tokens", "day"), "", most=9)
    at = history.record(own)
    [row] = [row for row in history.rows(limits) if row["quantity"] == "tokens"]
    assert (row["most"], row["created_at"]) == (9, at)


def test_the_sides_have_rows_of_their_own() -> None:
    history = History()
    for side, most in (("tenant", 1), ("operator", 2)):
        own = Limits.begin(Limits.Begun, side, history.now)
        own.limit(history.now, Counted("tokens", "day"), "", most=most)
        history.record(own)
    assert {row["set_by"]: row["most"] for row in history.rows(limits)} == {"tenant": 1, "operator": 2}
