"""Commands of audio: speech to text, and text to speech."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from domain.aggregate import Rejection
from domain.chat.app import App, Features, features
from domain.chat.conversation import Conversation
from domain.chat.file import mistaken
from domain.chat.speech import LONGEST, Speech
from domain.chat.transcription import Transcription
from domain.models.default_model import DefaultModel
from handlers.commands.fields import AppId, BlobKey, Command, ConversationId, MessageId, Name, Sha256, not_blank
from handlers.commands.packed import store_file, unpacked
from handlers.commands.preparation import Make, Preparation
from handlers.media_types import kind_by_bytes

VOICE = "alloy"
"""Voice where neither the command nor the app names one: the first one of OpenAI, which other servers take, too."""


class Transcribe(Command):
    """Transcribe a recording by the tenant's default model of type `transcription`."""

    app: AppId
    digest: Sha256 = Field(description="SHA-256 in hex of a blob in the object store, with the recording")
    key: BlobKey = Field(
        description="Key of the blob in base64: the blob is a nonce of 12 bytes and the file under AES-256-GCM"
    )
    language: Annotated[str, Field(pattern=r"^([a-z]{2})?$")] = Field(
        "", description="ISO 639-1 code of the language; empty when unknown"
    )
    user: Name = Field("anonymous", description="End user, as the app's operator names them")


class Speak(Command):
    """Speak a text, or the answer of a message, by the tenant's default model of type `speech`."""

    app: AppId
    text: Annotated[str, Field(max_length=LONGEST), AfterValidator(not_blank)] | None = Field(None, description="Text")
    conversation: ConversationId | None = Field(None, description="Conversation of the message")
    message: MessageId | None = Field(None, description="Message whose answer is spoken")
    voice: Annotated[str, Field(max_length=255)] = Field("", description="Voice; empty for that of the app")
    user: Name = Field("anonymous", description="End user, as the app's operator names them")

    @model_validator(mode="after")
    def _one_source(self) -> Speak:
        if (self.text is None) == (self.message is None):
            raise ValueError("Give exactly one of text and message")
        if (self.message is None) != (self.conversation is None):
            raise ValueError("Give conversation with message, and only then")
        return self


async def transcribe(command: Transcribe, given: Preparation) -> Make[Transcription]:
    """Check that the app allows it, and seal the recording for its person."""
    if not _features(given)["speech_to_text"]:
        raise Rejection("not_allowed", "The app transcribes nothing; set features.speech_to_text.", "app")
    default = await _default(given, "transcription")
    data = await unpacked(given, command.digest, command.key, given.ports.file_limits.audio)
    kind, media_type = kind_by_bytes(data)
    if kind != "audio":
        raise Rejection("unsupported_type", mistaken("audio"), "digest")
    digest = await store_file(given, data)
    return lambda id, at: Transcription.begin(
        Transcription.Requested,
        id,
        at,
        app=command.app,
        digest=digest,
        media_type=media_type,
        size=len(data),
        provider=default.provider,
        model=default.model,
        language=command.language,
    )


async def speak(command: Speak, given: Preparation) -> Make[Speech]:
    """Check that the app allows it, and find the text."""
    how = _features(given)["text_to_speech"]
    if not how["enabled"]:
        raise Rejection("not_allowed", "The app speaks nothing; set features.text_to_speech.enabled.", "app")
    default = await _default(given, "speech")
    text = command.text or _answer(command, given)
    return lambda id, at: Speech.begin(
        Speech.Requested,
        id,
        at,
        app=command.app,
        conversation=command.conversation,
        message=command.message,
        text=text,
        provider=default.provider,
        model=default.model,
        voice=command.voice or how["voice"] or VOICE,
        autoplay=how["autoplay"],
    )


def _features(given: Preparation) -> Features:
    configuration = given.the(App, "app").configuration
    return configuration["features"] if configuration else features({})


async def _default(given: Preparation, type: str) -> DefaultModel:
    """Raises: Rejection `not_configured`."""
    default = await given.get(DefaultModel, type)
    if default is None or default.deleted:
        raise Rejection(
            "not_configured", f"The tenant has no default model of type {type}; send model.set_default first."
        )
    return default


def _answer(command: Speak, given: Preparation) -> str:
    """The answer of the message. Raises: Rejection."""
    conversation = given.the(Conversation, "conversation")
    known = conversation.message(str(command.message))
    if conversation.app != command.app:
        raise Rejection("wrong_app", f"Conversation {conversation.id} belongs to app {conversation.app}.", "app")
    if conversation.user != command.user:
        raise Rejection("wrong_user", f"Conversation {conversation.id} belongs to another user.", "user")
    if not known["answer"].strip():
        raise Rejection("not_answered", f"Message {command.message} has no answer to speak.", "message")
    if len(known["answer"]) > LONGEST:
        message = f"The answer has more than {LONGEST:,} characters, the maximum."
        raise Rejection("too_large", message, "message")
    return known["answer"]
