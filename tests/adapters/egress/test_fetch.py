"""Files from addresses that end users choose."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from adapters.egress.addresses import allowances
from adapters.egress.client import Egress
from adapters.egress.fetch import REDIRECTS, GuardedFetch
from handlers.ports.files import Fetched, NotFetched
from tests.adapters.egress.test_client import Answer, allowing, says, serving

MOST = 2**20


def moved(to: str) -> Answer:
    return says(b"elsewhere", 302, Location=to)


async def failure(fetch: GuardedFetch, url: str, most: int = MOST) -> tuple[str, str]:
    with pytest.raises(NotFetched) as raised:
        await fetch("acme", url, most)
    return raised.value.code, raised.value.reason


async def test_a_file_is_fetched_with_its_media_type_after_redirects() -> None:
    def answer(head: str) -> bytes:
        if head.startswith("GET /plan "):
            return moved("/files/plan.pdf?x=1#page=3")(head)
        return says(b"%PDF-1.7", Content_Type="Application/PDF; charset=x")(head)

    async with serving(answer) as server:
        base = f"http://127.0.0.1:{server.port}"
        found = await GuardedFetch(allowing(server.port))("acme", f"{base}/plan", MOST)
    assert found == Fetched(b"%PDF-1.7", "application/pdf", f"{base}/files/plan.pdf?x=1#page=3")
    assert [head.splitlines()[0] for head in server.heads] == ["GET /plan HTTP/1.1", "GET /files/plan.pdf?x=1 HTTP/1.1"]
    assert "authorization" not in server.heads[0].lower()


async def test_a_redirect_to_an_address_that_is_not_public_is_not_followed() -> None:
    async with serving(says(b"secret")) as inner:
        async with serving(moved(f"http://localhost:{inner.port}/")) as server:
            fetch = GuardedFetch(allowing(server.port))
            code, reason = await failure(fetch, f"http://127.0.0.1:{server.port}/")
        assert (code, inner.heads) == ("unreachable", [])
    assert reason == "The address may not be called: it is not public."


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://host/a", "gopher://host"])
async def test_a_redirect_to_another_protocol_is_not_followed(to: str) -> None:
    async with serving(moved(to)) as server:
        code, reason = await failure(GuardedFetch(allowing(server.port)), f"http://127.0.0.1:{server.port}/")
    assert code == "unreachable"
    assert to.partition(":")[0] in reason


async def test_redirects_end() -> None:
    async with serving(moved("/again")) as server:
        code, reason = await failure(GuardedFetch(allowing(server.port)), f"http://127.0.0.1:{server.port}/")
    assert (code, len(server.heads)) == ("unreachable", REDIRECTS + 1)
    assert str(REDIRECTS) in reason


async def test_a_file_that_is_too_large_is_not_read_to_its_end() -> None:
    async with serving(says(bytes(MOST + 1))) as server:
        fetch, url = GuardedFetch(allowing(server.port)), f"http://127.0.0.1:{server.port}/"
        assert await failure(fetch, url) == ("too_large", "It has more than 1 MiB.")
        assert len((await fetch("acme", url, MOST + 1)).data) == MOST + 1


async def test_a_silent_server_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"never")
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        code, _ = await failure(GuardedFetch(allowing(port), total_s=0.2), f"http://127.0.0.1:{port}/")
    assert code == "timeout"


@pytest.mark.parametrize("status", [204, 404, 500])
async def test_another_status_is_an_error_without_the_words_of_the_server(status: int) -> None:
    async with serving(says(b"" if status == 204 else b"inner words", status)) as server:
        code, reason = await failure(GuardedFetch(allowing(server.port)), f"http://127.0.0.1:{server.port}/")
    assert (code, reason) == ("unreachable", f"The address answered with status {status}.")


async def test_an_address_without_a_server_and_one_of_this_machine_are_errors() -> None:
    fetch = GuardedFetch(Egress(allowances("127.0.0.1:9")))
    assert (await failure(fetch, "http://127.0.0.1:9/"))[0] == "unreachable"
    assert (await failure(fetch, "http://127.0.0.1:10/"))[0] == "unreachable"
