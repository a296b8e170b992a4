"""Every configuration that an app ever had: the table `app_model_configs`."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Integer, Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.chat.app import App, features
from domain.log import Recorded, derived_id
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row

app_model_configs = ReadModel(
    "app_model_configs",
    "Configurations of apps, one row each, which never change; apps.app_model_config_id names the newest.",
    key("id", "Configuration."),
    required("app_id", Id, "App, in apps."),
    required("number", Integer, "Counts the configurations of the app from 1."),
    required("provider", Text, "Provider of the model: builtin, or the id of a row in providers; empty with a route."),
    required("model_id", Text, "Name of the model at its provider; empty with a route."),
    optional("route", Text, "Route that chooses the model, in routes; null for none."),
    required("configs", JSONB, "Of the model: max_tokens and context_window in tokens, and parameters as sent to it."),
    required("pre_prompt", Text, "Instructions to the model; {{name}} stands for a variable."),
    required("user_input_form", JSONB, "Variables that the asker fills in: a list of name, required and default."),
    required("dataset_configs", JSONB, "Retrieval: datasets (ids) and settings."),
    required("opening_statement", Text, "Text that opens a conversation; {{name}} stands for a variable."),
    required("suggested_questions", JSONB, "Questions offered with the opening statement: a list of texts."),
    required("more_like_this", JSONB, "enabled: a message of a completion app can be repeated for another answer."),
    required("name_conversations", JSONB, "enabled: the model names a conversation after its first answer."),
    required("suggested_questions_after_answer", JSONB, "enabled: message.suggest works; prompt and model, if set."),
    optional("response_schema", JSONB, "JSON Schema that answers keep to; null for answers in words."),
    required("sensitive_word_avoidance", JSONB, "enabled: filters check questions or answers; configs: the filters."),
    required("speech_to_text", JSONB, "enabled: recordings can be transcribed."),
    required("text_to_speech", JSONB, "enabled: texts can be spoken; voice, language, and autoplay."),
    required("file_upload", JSONB, "Files of questions: enabled; if so, types, most, methods, and detail of images."),
    required("agent_mode", JSONB, "Of an agent, enabled: its strategy, tools and limits, as in app.configure."),
    required("retriever_resource", JSONB, "enabled: answers cite knowledge bases, because the app has some."),
    required("warnings", JSONB, "Needs that the model was known not to meet: a list of code, field and message."),
    required("created_by", Text, "Actor who configured the app."),
    required("created_at", Time, "When the app was configured."),
)
app_model_configs.clears(App.Deleted, column="app_id")


@lru_cache(maxsize=1024)
def configuration_id(app: str, number: int) -> str:
    return derived_id(f"app_model_config/{app}/{number}")


@app_model_configs.makes(App.Configured)
def configured(event: App.Configured, message: Recorded) -> Row:
    model, around = event.model, features(event.features)
    return {
        "id": configuration_id(event.originator_id, event.number),
        "app_id": event.originator_id,
        "number": event.number,
        "provider": model["provider"],
        "model_id": model["name"],
        "route": model.get("route"),
        "configs": {
            "max_tokens": model["max_tokens"],
            "context_window": model["context_window"],
            "parameters": model["parameters"],
        },
        "pre_prompt": event.prompt,
        "user_input_form": event.variables,
        "dataset_configs": {"datasets": event.datasets, "retrieval": event.retrieval},
        "opening_statement": around["opening_statement"],
        "suggested_questions": around["suggested_questions"],
        "more_like_this": {"enabled": around["more_like_this"]},
        "name_conversations": {"enabled": around["name_conversations"]},
        "suggested_questions_after_answer": {
            "enabled": around["suggest_after_answer"] is not None,
            **(around["suggest_after_answer"] or {}),
        },
        "response_schema": around["response_schema"],
        "sensitive_word_avoidance": {"enabled": bool(around["moderation"]), "configs": around["moderation"]},
        "speech_to_text": {"enabled": around["speech_to_text"]},
        "text_to_speech": around["text_to_speech"],
        "file_upload": {"enabled": around["files"] is not None, **(around["files"] or {})},
        "agent_mode": {"enabled": around["agent"] is not None, **(around["agent"] or {})},
        "retriever_resource": {"enabled": bool(event.datasets)},
        "warnings": [],
        "created_by": message.metadata.actor,
    }


def _configuration(event: App.Warned, message: Recorded) -> str:
    return configuration_id(event.originator_id, event.number)


@app_model_configs.changes(App.Warned, pick=_configuration)
def warned(row: Row, event: App.Warned, message: Recorded) -> Row:
    return {"warnings": event.warnings}
