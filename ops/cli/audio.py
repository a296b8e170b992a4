"""Commands of audio: transcribe a recording, and speak a text into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adapters.jetstream.client import Frame
from handlers.ports.log import Unavailable
from ops import terminal
from ops.cli.frame import Failed, Home, Json, Tenant, Wait, app, connected, run
from ops.cli.upload import read
from ops.settings import Settings
from ops.terminal import emit, say

App = Annotated[str, typer.Argument(help="App id.", metavar="APP")]
User = Annotated[str, typer.Option(help="End user id.")]
Patience = Annotated[float, typer.Option(min=1, help="Maximum silence, in seconds, before giving up.")]


@app.command(
    epilog="Examples: [bold]headrace transcribe APP question.mp3[/] · "
    "[bold]headrace transcribe APP question.wav --language de --json[/]"
)
def transcribe(
    app_id: App,
    file: Annotated[Path, typer.Argument(help="Recording: MP3, WAV, Ogg, FLAC, MP4, WebM or AMR.")],
    language: Annotated[str, typer.Option(help="ISO 639-1 code of the language; default: unknown.")] = "",
    user: User = "cli",
    patience: Patience = 300.0,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Transcribe a recording by the tenant's default model of type `transcription`, and print its text."""
    settings = Settings.load(home=home, tenant=tenant)
    try:
        data = read(file)
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise Failed(f"{file} cannot be read: {error}.") from error

    async def work() -> Frame:
        async with connected(settings) as client:
            digest, key = await client.upload_packed(data)
            fields = {"app": app_id, "digest": digest, "key": key, "language": language, "user": user}
            return await client.audio("audio.transcribe", fields, wait=wait, patience=patience)

    frame = run(work())
    if as_json:
        emit(frame)
    elif frame["type"] == "transcribed":
        say(frame["text"])
    _must_have_ended_well(frame, as_json)


@app.command(
    epilog='Examples: [bold]headrace speak APP "The lock opens at six." --out lock.mp3[/] · '
    "[bold]headrace speak APP --conversation ID --message ID --user ada --out answer.mp3[/]"
)
def speak(
    app_id: App,
    text: Annotated[str | None, typer.Argument(help="Text; without it, the answer of --message.")] = None,
    out: Annotated[Path, typer.Option(help="File for the audio, in MP3; it is replaced.")] = Path("speech.mp3"),
    conversation: Annotated[str | None, typer.Option(help="Conversation of the message.")] = None,
    message: Annotated[str | None, typer.Option(help="Message whose answer is spoken.")] = None,
    voice: Annotated[str, typer.Option(help="Voice; default: that of the app.")] = "",
    user: User = "cli",
    patience: Patience = 300.0,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Speak a text, or the answer of a message, by the tenant's default model of type `speech`, into a file.

    The audio is sealed with the key of its user: with a NATS of your own, this needs the secret key.
    """
    settings = Settings.load(home=home, tenant=tenant)
    fields = {"app": app_id, "text": text, "conversation": conversation, "message": message, "voice": voice}

    async def work() -> tuple[Frame, bytes]:
        async with connected(settings) as client:
            frame = await client.audio("audio.speak", {**fields, "user": user}, wait=wait, patience=patience)
        return frame, await _audio(settings, user, frame) if frame["type"] == "spoken" else b""

    frame, audio = run(work())
    if frame["type"] == "spoken":
        try:
            out.write_bytes(audio)
        except OSError as error:
            raise Failed(f"{out} cannot be written: {error.strerror}.") from error
    if as_json:
        emit({**frame, "file": str(out)} if audio else frame)
    elif audio:
        say(f"{out}: {len(audio):,} bytes, {frame['media_type']}.")
    _must_have_ended_well(frame, as_json)


async def _audio(settings: Settings, user: str, frame: Frame) -> bytes:
    """The audio of a speech. Raises: Failed."""
    from ops.wiring import WITHIN_S, Wiring

    try:
        async with Wiring(settings.located("nats", role="answer"), "speak", within_s=WITHIN_S) as wiring:
            person, _ = await wiring.keys.last_person(settings.tenant, user)
            return await wiring.files.get(settings.tenant, person, "file", frame["digest"])
    except (Unavailable, KeyError, ValueError) as error:
        raise Failed(f"The audio cannot be read: {error}.") from error


def _must_have_ended_well(frame: dict[str, Any], as_json: bool) -> None:
    if frame["type"] == "failed":
        if not as_json:
            terminal.complain(f"{frame['code']}: {frame['reason']}")
        raise typer.Exit(1)
