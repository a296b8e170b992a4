"""Variables of conversations: the table `conversation_variables`."""

from __future__ import annotations

from collections.abc import Iterator

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
    "Values that runs of workflows assigned to variables of a conversation, one row each.",
    key("id", "Variable of the conversation."),
    required("app_id", Id, "App, in apps."),
    required("conversation_id", Id, "Conversation, in conversations."),
    required("name", Text, "Name of the variable."),
    required("data", JSONB, "Value: `type` and `data`, or the `blob` of a large one."),
    required("workflow_run_id", Id, "Run that assigned it last, in workflow_runs."),
    person(),
    required("updated_at", Time, "When it was assigned last."),
)
conversation_variables.clears(Conversation.Deleted, column="conversation_id")
conversation_variables.clears(App.Deleted, column="app_id")
conversation_variables.clears(EndUser.Erased, column="person_id")


@conversation_variables.makes(Conversation.VariablesSet, within=(conversations, originator))
def assigned(event: Conversation.VariablesSet, message: Recorded, conversation: Row) -> Iterator[Row]:
    for name, value in event.values.items():
        yield {
            "id": derived_id(f"variable/{event.originator_id}/{name}"),
            "app_id": conversation["app_id"],
            "conversation_id": event.originator_id,
            "name": name,
            "data": value,
            "workflow_run_id": event.run,
            "person_id": message.metadata.person,
        }
