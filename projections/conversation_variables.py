"""Variables of conversations that runs assigned: the table `conversation_variables`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Recorded, derived_id
from projections.conversations import conversations
from projections.engine.columns import Id, Time, key, person, required
from projections.engine.read_model import ReadModel, Row, originator

conversation_variables = ReadModel(
    "conversation_variables",
    "Variables of conversations, as runs of workflows assigned them last; others have the value of the graph. They go "
    "with their conversation or app.",
    key("id", "Variable of the conversation."),
    required("app_id", Id, "App, in apps."),
    required("conversation_id", Id, "Conversation, in conversations."),
    required("name", Text, "Name of the variable."),
    required("data", JSONB, "`type` and `data`, or the `blob` of a large value; empty when the person was erased."),
    required("workflow_run_id", Id, "Run that assigned it last, in workflow_runs."),
    required("step", Text, "Step of the run that assigned it last."),
    person(),
    required("created_at", Time, "When it was assigned first."),
    required("updated_at", Time, "When it was assigned last."),
)
conversation_variables.clears(Conversation.Deleted, column="conversation_id")
conversation_variables.clears(App.Deleted, column="app_id")
conversation_variables.sets(EndUser.Erased, {"data": {}}, column="person_id")


def variables_of(event: Conversation.VariablesSet, message: Recorded) -> Iterator[str]:
    return (derived_id(f"{event.originator_id}/variable/{name}") for name in event.values)


@conversation_variables.makes(Conversation.VariablesSet, within=(conversations, originator), among=variables_of)
def assigned(
    event: Conversation.VariablesSet, message: Recorded, conversation: Row, known: Mapping[str, Row]
) -> Iterator[Row]:
    for id, (name, value) in zip(variables_of(event, message), event.values.items(), strict=True):
        yield {
            "id": id,
            "app_id": conversation["app_id"],
            "conversation_id": event.originator_id,
            "name": name,
            "data": value,
            "workflow_run_id": event.run,
            "step": event.step,
            "person_id": message.metadata.person,
            "created_at": known[id]["created_at"] if id in known else event.timestamp,
        }
