from __future__ import annotations

from domain.access.end_user import EndUser
from projections.speeches import speeches
from projections.transcriptions import transcriptions
from tests.projections.history import History


def test_given_a_recording_when_it_is_transcribed_then_its_row_has_the_text() -> None:
    history = History()
    known = history.recording()
    history.transcribe(known)
    [row] = history.rows(transcriptions)
    assert row == {
        "tenant_id": "default",
        "id": known.id,
        "app_id": "the-app",
        "hash": "d" * 64,
        "mime_type": "audio/mpeg",
        "size": 900,
        "provider": "lab",
        "model": "whisper",
        "status": "completed",
        "text": "When?",
        "language": "english",
        "seconds": 2.5,
        "model_call_id": "the-call",
        "error_code": None,
        "error": None,
        "correlation_id": "the-correlation",
        "person_id": None,
        "created_by": "ada",
        "created_at": known.created_on,
        "updated_at": known.modified_on,
        "log_position": 2,
    }


def test_given_a_recording_when_its_server_fails_then_its_row_has_the_error() -> None:
    history = History()
    known = history.recording()
    known.fail(history.now, code="timeout", reason="It was silent.")
    history.record(known)
    [row] = history.rows(transcriptions)
    assert (row["status"], row["text"], row["error_code"], row["error"]) == ("failed", "", "timeout", "It was silent.")


def test_given_a_text_when_it_is_spoken_then_its_row_names_the_audio() -> None:
    history = History()
    known = history.speech()
    history.speak(known)
    [row] = history.rows(speeches)
    assert row == speeches.blank | {
        "tenant_id": "default",
        "id": known.id,
        "app_id": "the-app",
        "conversation_id": "the-talk",
        "message_id": "the-message",
        "text": "At six.",
        "provider": "lab",
        "model": "kokoro",
        "voice": "alba",
        "autoplay": False,
        "status": "completed",
        "hash": "e" * 64,
        "mime_type": "audio/mpeg",
        "size": 4000,
        "model_call_ids": ["one", "two"],
        "correlation_id": "the-correlation",
        "created_by": "ada",
        "created_at": known.created_on,
        "updated_at": known.modified_on,
        "log_position": 2,
    }


def test_given_a_person_when_erased_then_no_word_of_audio_is_left() -> None:
    history = History()
    history.person = "the-person"
    history.transcribe(history.recording())
    history.speak(history.speech())
    history.record(EndUser.begin(EndUser.Erased, "the-person", history.now, known=True))
    for model in (transcriptions, speeches):
        [row] = history.rows(model)
        assert (row["text"], row["error"], row["status"]) == ("", None, "completed")
