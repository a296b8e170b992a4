from __future__ import annotations

from domain.aggregate import new_id
from domain.chat.speech import Speech
from domain.chat.transcription import Transcription
from tests.domain.scenario import NOW, given

COMPLETED = {"text": "When?", "spoken_language": None, "seconds": None, "model_call": new_id()}
SPOKEN = {"digest": "e" * 64, "media_type": "audio/mpeg", "size": 7, "model_calls": [new_id()]}


def transcription() -> Transcription:
    asked = {"app": new_id(), "digest": "d" * 64, "media_type": "audio/wav", "provider": "lab", "model": "whisper"}
    return Transcription.begin(Transcription.Requested, new_id(), NOW, size=7, language="", **asked)


def speech() -> Speech:
    asked = {"app": new_id(), "text": "At six.", "provider": "lab", "model": "kokoro", "voice": "alba"}
    return Speech.begin(Speech.Requested, new_id(), NOW, conversation=None, message=None, autoplay=False, **asked)


def test_a_transcription_ends_once() -> None:
    it = given(transcription()).when(lambda it: it.complete(NOW, **COMPLETED))
    it.then(Transcription.Completed, **COMPLETED)
    it.when(lambda it: it.complete(NOW, **COMPLETED)).nothing()
    it.when(lambda it: it.fail(NOW, code="timeout", reason="Late.")).nothing()
    assert it.aggregate.ended


def test_a_transcription_that_failed_stays_so() -> None:
    it = given(transcription()).when(lambda it: it.fail(NOW, code="timeout", reason="It was silent."))
    it.then(Transcription.Failed, code="timeout", reason="It was silent.")
    it.when(lambda it: it.complete(NOW, **COMPLETED)).nothing()


def test_a_speech_ends_once() -> None:
    it = given(speech()).when(lambda it: it.complete(NOW, **SPOKEN)).then(Speech.Completed, **SPOKEN)
    it.when(lambda it: it.fail(NOW, code="timeout", reason="Late.")).nothing()
    assert it.aggregate.ended
    given(speech()).when(lambda it: it.fail(NOW, code="timeout", reason="Late.")).then(Speech.Failed)


def test_what_failed_is_retried_once() -> None:
    for made in (transcription, speech):
        it = given(made()).when(lambda it: it.fail(NOW, code="stalled", reason="No worker has it."))
        it.when(lambda it: it.retry(NOW))
        assert (it.aggregate.status, it.aggregate.attempt, it.aggregate.stalls) == ("requested", 2, 1)
        it.when(lambda it: it.retry(NOW)).rejects("not_failed", it.aggregate.TOPIC)
