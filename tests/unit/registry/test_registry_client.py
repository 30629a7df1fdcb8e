"""One operation against a registry: requests, tokens, redirects (registry-and-store 3.2, 3.5.5,
5.4, 8.3, 10.8, 10.10)."""

import gzip
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from support.scripted_http import CUT, RESET, STALL, Fail, Reply, Script, Wait, signing_key

from ollamad.errors import OllamadError
from ollamad.registry.addresses import AddressScope
from ollamad.registry.bodies import TooLong
from ollamad.registry.client import Session
from ollamad.registry.errors import (
    AccessDenied,
    BodyCut,
    ConnectFailed,
    Refused,
    RegistryError,
    RegistryNotFound,
    TransportError,
)
from ollamad.registry.keys import KeyUnavailable, SigningKey, load_key
from ollamad.registry.urls import parse_url
from ollamad.store.names import Name

R = "https://r.test"
MANIFEST = f"{R}/v2/ns/m/manifests/latest"
TOKEN = f"{R}/token*"
ACCEPT = ("Accept", "application/vnd.docker.distribution.manifest.v2+json")


def challenge(realm: str = f"{R}/token", scope: str = "repository:ns/m:pull") -> Reply:
    header = f'Bearer realm="{realm}",service="r.test",scope="{scope}"'
    return Reply(401, {"WWW-Authenticate": header}, b"no")


@pytest.fixture
def script() -> Script:
    return Script()


def made(
    script: Script,
    name: str = "r.test/ns/m",
    insecure: bool = False,
    load_key: Callable[[], SigningKey] = signing_key,
) -> Session:
    nonces = iter(range(100))
    return Session(
        script.http(),
        Name.parse(name),
        insecure=insecure,
        load_key=load_key,
        now=lambda: 1760000000.9,
        nonce=lambda: next(nonces).to_bytes(16, "big"),
    )


async def manifest(script: Script, **arguments: Any) -> bytes:
    session = made(script, **arguments)
    return (await session.request("GET", session.url("manifests/latest"), headers=[ACCEPT])).body


async def failure(script: Script, kind: type[OllamadError], **arguments: Any) -> str:
    with pytest.raises(kind) as caught:
        await manifest(script, **arguments)
    assert type(caught.value) is kind
    return caught.value.message


# Names and schemes.


@pytest.mark.parametrize(
    ("name", "insecure", "url"),
    [
        ("m", False, "https://registry.ollama.ai/v2/library/m/manifests/latest"),
        (
            "hf.co/Bart/L-3.2_GGUF:Q4_K_M",
            False,
            "https://hf.co/v2/Bart/L-3.2_GGUF/manifests/latest",
        ),
        ("localhost:5000/ns/m", True, "http://localhost:5000/v2/ns/m/manifests/latest"),
        ("https://r.test/ns/m", True, "http://r.test/v2/ns/m/manifests/latest"),
        ("http://r.test/ns/m", True, "http://r.test/v2/ns/m/manifests/latest"),
    ],
)
def test_urls_of_a_repository(script: Script, name: str, insecure: bool, url: str) -> None:
    session = made(script, name, insecure)
    session.check_scheme()
    assert session.url("manifests/latest") == url


def test_a_name_that_says_http_needs_insecure(script: Script) -> None:
    with pytest.raises(RegistryError, match=r"^insecure protocol http$"):
        made(script, "http://r.test/ns/m").check_scheme()


async def test_a_host_that_cannot_be_one(script: Script) -> None:
    message = await failure(script, TransportError, name="h:99999/ns/m")
    assert message == "Get: invalid port in URL"


# Answers.


async def test_an_open_registry_is_asked_once_and_without_a_key(script: Script) -> None:
    def no_key() -> SigningKey:
        raise AssertionError("nobody asked for a signature")

    script.on("GET", MANIFEST, Reply(body=b"{}"))
    assert await manifest(script, load_key=no_key) == b"{}"
    (seen,) = script.requests
    assert seen.headers["accept"] == ACCEPT[1]
    assert seen.headers["accept-encoding"] == "gzip"
    agent = r"ollama/0\.33\.0 \((amd64|arm64) (linux|darwin|windows)\) Python/3\.\d+\.\d+"
    assert re.fullmatch(agent, seen.headers["user-agent"])
    assert "authorization" not in seen.headers


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (Reply(404, body=b"whatever"), RegistryNotFound, "file does not exist"),
        (Reply(403, body=b'{"errors":[]}'), RegistryError, '403: {"errors":[]}'),
        (Reply(429, {"Retry-After": "9"}, b"slow"), RegistryError, "429: slow"),
        (Reply(500), RegistryError, "500: "),
        (Reply(500, body=b"\xff"), RegistryError, "500: \ufffd"),
    ],
)
async def test_errors_are_told_at_once(
    script: Script, reply: Reply, kind: type[OllamadError], text: str
) -> None:
    script.on("GET", MANIFEST, reply)
    assert await failure(script, kind) == text
    assert len(script.requests) == 1
    assert script.open == 0


@pytest.mark.parametrize("body", [[b"x", CUT], [b"x", RESET], [b"x", STALL], [b"x" * 50_000] * 9])
async def test_not_found_is_said_whatever_becomes_of_its_page(
    script: Script, body: list[Any], autojump_clock: trio.testing.MockClock
) -> None:
    script.on("GET", MANIFEST, Reply(404, {"Content-Encoding": "br"}, body))
    begin = trio.current_time()
    assert await failure(script, RegistryNotFound) == "file does not exist"
    assert trio.current_time() - begin < 2
    assert script.open == 0


async def test_a_redirect_without_a_location_is_an_answer(script: Script) -> None:
    script.on("POST", f"{R}/v2/ns/m/blobs/uploads/", Reply(307))
    session = made(script)
    answer = await session.request("POST", session.url("blobs/uploads/"))
    assert answer.status == 307


async def test_transport_errors_are_told_at_once(script: Script) -> None:
    script.on("GET", MANIFEST, Fail("EOF", connected=True))
    assert await failure(script, TransportError) == f'Get "{MANIFEST}": EOF'
    script.on("GET", MANIFEST, Fail())
    text = f'Get "{MANIFEST}": dial tcp: connect: connection refused'
    assert await failure(script, ConnectFailed) == text
    script.on("GET", MANIFEST, Reply(headers={"Content-Length": "9"}, body=[b"abc", CUT]))
    assert await failure(script, BodyCut) == "unexpected EOF"
    script.on("GET", MANIFEST, Reply(headers={"Content-Length": "9"}, body=[b"abc", RESET]))
    assert await failure(script, TransportError) == "read: connection reset by peer"
    assert len(script.requests) == 4
    assert script.open == 0


async def test_a_compressed_manifest_is_decoded(script: Script) -> None:
    body = gzip.compress(b'{"a":') + gzip.compress(b"1}")
    script.on("GET", MANIFEST, Reply(headers={"Content-Encoding": "gzip"}, body=body))
    assert await manifest(script) == b'{"a":1}'


@pytest.mark.parametrize(
    ("encoding", "body", "kind", "text"),
    [
        ("gzip", gzip.compress(b"x" * 100)[:-9], BodyCut, "unexpected EOF"),
        ("gzip", b"nonsense", RegistryError, "gzip: "),
        ("gzip", gzip.compress(b"") * 17, RegistryError, "gzip: too many parts"),
        ("br", b"x", RegistryError, 'unsupported content encoding "br"'),
    ],
)
async def test_bodies_that_cannot_be_decoded(
    script: Script, encoding: str, body: bytes, kind: type[OllamadError], text: str
) -> None:
    script.on("GET", MANIFEST, Reply(headers={"Content-Encoding": encoding}, body=body))
    assert (await failure(script, kind)).startswith(text)


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_manifest_of_any_size_and_a_gzip_bomb_end_at_the_limit(
    script: Script, compressed: bool
) -> None:
    def endless() -> list[bytes]:
        if compressed:
            return [gzip.compress(bytes(1 << 26))]
        return [bytes(1 << 20)] * 64

    headers = {"Content-Encoding": "gzip"} if compressed else {}
    script.on("GET", MANIFEST, Reply(headers=headers, body=endless()))
    text = await failure(script, TooLong)
    assert text == "the answer is longer than 16777216 bytes"
    assert script.open == 0


async def test_a_text_of_an_error_is_cut(script: Script) -> None:
    script.on("GET", MANIFEST, Reply(500, {}, [b"x" * 50_000] * 3))
    assert await failure(script, RegistryError) == "500: " + "x" * 65536


async def test_an_answer_that_stalls_is_given_up(
    script: Script, autojump_clock: trio.testing.MockClock
) -> None:
    begin = trio.current_time()
    script.on("GET", MANIFEST, Reply(body=[b"{", STALL]))
    assert await failure(script, TransportError) == "no data arrived for too long"
    assert trio.current_time() - begin == pytest.approx(60)
    script.on("GET", MANIFEST, Reply(after=10_000))
    text = f'Get "{MANIFEST}": timeout awaiting response headers'
    assert await failure(script, TransportError) == text
    script.on("GET", MANIFEST, Reply(after=500, body=[b"{", Wait(50), b"}", Wait(50)]))
    assert await manifest(script) == b"{}"
    script.on("GET", MANIFEST, challenge())
    script.on("GET", TOKEN, Reply(after=10_000))
    assert "timeout awaiting" in await failure(script, TransportError)


async def test_an_answer_that_trickles_is_given_up(
    script: Script, autojump_clock: trio.testing.MockClock
) -> None:
    """A byte a minute never stalls; neither a manifest, a token nor an error is worth hours."""
    trickle: list[Any] = [b"x", Wait(59)] * 1000
    text = "the answer took too long"
    for reply in (Reply(body=trickle), Reply(500, {}, trickle)):
        script.on("GET", MANIFEST, reply)
        begin = trio.current_time()
        assert await failure(script, TransportError) == text
        assert trio.current_time() - begin == pytest.approx(600)
    script.on("GET", MANIFEST, challenge())
    for reply in (Reply(body=trickle), Reply(403, {}, trickle)):
        script.on("GET", TOKEN, reply)
        assert await failure(script, TransportError) == text
    assert script.open == 0


async def test_an_answer_that_nobody_reads_is_closed(
    script: Script, autojump_clock: trio.testing.MockClock
) -> None:
    steps: list[list[Any]] = [[b"x" * 50_000] * 3, [b"x", STALL], [b"x", RESET], [b"x", CUT]]
    for body in steps:
        begin = trio.current_time()
        script.on("GET", MANIFEST, Reply(302, {"Location": "/x"}, body))
        script.on("GET", f"{R}/x", Reply(body=b"{}"))
        assert await manifest(script) == b"{}"
        assert script.open == 0
        assert trio.current_time() - begin < 2


# Redirects.


async def test_a_manifest_may_be_elsewhere(script: Script) -> None:
    other = "https://huggingface.test/v2/ns/m/manifests/latest?x=%2f"
    script.on("GET", MANIFEST, Reply(302, {"Location": other}))
    script.on("GET", other, Reply(body=b"{}"))
    session = made(script)
    answer = await session.request("GET", session.url("manifests/latest"), headers=[ACCEPT])
    assert (answer.body, answer.url) == (b"{}", other)
    assert script.requests[1].headers["accept"] == ACCEPT[1]


async def test_a_manifest_that_redirects_to_itself_costs_ten_requests(script: Script) -> None:
    script.on("GET", MANIFEST, Reply(302, {"Location": "/v2/ns/m/manifests/latest"}))
    text = f'Get "{MANIFEST}": stopped after 10 redirects'
    assert await failure(script, TransportError) == text
    assert len(script.requests) == 10


@pytest.mark.parametrize(
    "place",
    [
        "https://evil.test/x",
        "https://evil.r.test/x",
        "https://r.test:444/x",
        "https://r.test.evil/x",
        "https://x.r.test/x",
    ],
)
async def test_a_redirect_does_not_send_the_token_to_another_host_or_port(
    script: Script, place: str
) -> None:
    script.on("GET", MANIFEST, challenge(), Reply(307, {"Location": place}))
    script.on("GET", TOKEN, Reply(body=b'{"token":"T"}'))
    script.on("GET", place, Reply(body=b"{}"))
    assert await manifest(script) == b"{}"
    assert script.requests[2].headers["authorization"] == "Bearer T"
    assert "authorization" not in script.requests[3].headers


async def test_a_redirect_back_to_the_registry_has_the_token_again(script: Script) -> None:
    script.on("GET", MANIFEST, challenge(), Reply(307, {"Location": "https://other.test/x"}))
    script.on("GET", TOKEN, Reply(body=b'{"token":"T"}'))
    script.on("GET", "https://other.test/x", Reply(307, {"Location": f"{R}/y"}))
    script.on("GET", f"{R}/y", Reply(body=b"{}"))
    await manifest(script)
    assert [s.headers.get("authorization") for s in script.requests[2:]] == [
        "Bearer T",
        None,
        "Bearer T",
    ]


async def test_a_redirect_does_not_send_the_token_in_plain_text(script: Script) -> None:
    script.on("GET", MANIFEST, challenge(), Reply(307, {"Location": "http://r.test/x"}))
    script.on("GET", TOKEN, Reply(body=b'{"token":"T"}'))
    text = await failure(script, Refused)
    assert text.startswith('refused: registry "r.test" leads from https to plain http at "r.test"')
    assert len(script.requests) == 3


async def test_insecure_allows_the_way_from_https_to_http(script: Script) -> None:
    script.on("GET", "http://r.test/v2/ns/m/manifests/latest", Reply(302, {"Location": MANIFEST}))
    script.on("GET", MANIFEST, Reply(302, {"Location": "http://other.test/x"}))
    script.on("GET", "http://other.test/x", Reply(body=b"{}"))
    assert await manifest(script, insecure=True) == b"{}"


async def test_the_token_of_hf_co_goes_to_its_main_host_only(script: Script) -> None:
    asked = "https://hf.co/v2/ns/m/manifests/latest"
    main = "https://huggingface.co/v2/ns/m/manifests/latest"
    script.on("GET", asked, Reply(307, {"Location": main}))
    cdn = Reply(307, {"Location": "https://cdn.huggingface.co/x"})
    script.on("GET", main, challenge("https://huggingface.co/v2/token"), cdn)
    script.on("GET", "https://huggingface.co/v2/token*", Reply(body=b'{"token":"T"}'))
    script.on("GET", "https://cdn.huggingface.co/x", Reply(body=b"{}"))
    assert await manifest(script, name="hf.co/ns/m") == b"{}"
    assert [s.headers.get("authorization", "")[:8] for s in script.requests] == [
        "",
        "",
        "AAAAC3Nz",
        "Bearer T",
        "Bearer T",
        "",
    ]


@pytest.mark.parametrize("status", [307, 308])
async def test_a_put_is_repeated_with_its_body(script: Script, status: int) -> None:
    script.on("PUT", MANIFEST, Reply(status, {"Location": "/other"}))
    script.on("PUT", f"{R}/other", Reply(201))
    session = made(script)
    answer = await session.request("PUT", MANIFEST, content=b"manifest")
    assert answer.status == 201
    assert [s.body for s in script.requests] == [b"manifest", b"manifest"]


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_put_that_would_become_a_get_is_an_error(script: Script, status: int) -> None:
    script.on("PUT", MANIFEST, Reply(status, {"Location": "/other"}))
    with pytest.raises(RegistryError, match=f"^{status}: unexpected redirect of a PUT request$"):
        await made(script).request("PUT", MANIFEST, content=b"manifest")


# Internal addresses.


@pytest.mark.parametrize(
    ("place", "address"),
    [
        ("https://internal.test/", "10.0.0.5"),
        ("https://metadata.test/", "169.254.169.254"),
        ("https://localhost:11434/api/delete", "127.0.0.1"),
        ("https://six.test/", "::1"),
        ("https://mapped.test/", "::ffff:127.0.0.1"),
    ],
)
async def test_a_redirect_of_a_public_registry_does_not_steer_to_an_internal_address(
    script: Script, place: str, address: str
) -> None:
    host = parse_url(place).host
    script.addresses[host] = address
    script.on("GET", MANIFEST, Reply(302, {"Location": place}))
    text = await failure(script, Refused)
    assert text == (
        f'refused: registry "r.test" leads to the internal address {address} of "{host}" '
        "(only with --insecure)"
    )
    assert len(script.requests) == 1


async def test_a_realm_of_a_public_registry_does_not_steer_to_an_internal_address(
    script: Script,
) -> None:
    """The realm's host is the registry's, whose name now has another address."""
    script.on("GET", MANIFEST, challenge(f"{R}/admin?delete=1"))

    def rebound() -> SigningKey:
        script.addresses["r.test"] = "127.0.0.1"
        return signing_key()

    assert "internal address 127.0.0.1" in await failure(script, Refused, load_key=rebound)
    assert len(script.requests) == 1


async def test_an_internal_registry_may_lead_to_its_like_but_not_further_in(
    script: Script,
) -> None:
    script.addresses |= {"r.test": "10.0.0.1", "store.test": "192.168.0.9", "me.test": "127.0.0.1"}
    script.on("GET", MANIFEST, Reply(302, {"Location": "https://store.test/x"}))
    script.on("GET", "https://store.test/x", Reply(302, {"Location": "https://cdn.test/y"}))
    script.on("GET", "https://cdn.test/y", Reply(body=b"{}"))
    assert await manifest(script) == b"{}"
    script.on("GET", "https://cdn.test/y", Reply(302, {"Location": "https://me.test/"}))
    assert '127.0.0.1 of "me.test"' in await failure(script, Refused)


async def test_insecure_allows_internal_addresses(script: Script) -> None:
    script.addresses["me.test"] = "127.0.0.1"
    url = "http://r.test/v2/ns/m/manifests/latest"
    script.on("GET", url, Reply(302, {"Location": "http://me.test/"}))
    script.on("GET", "http://me.test/", Reply(body=b"{}"))
    assert await manifest(script, insecure=True) == b"{}"


async def test_behind_a_proxy_names_say_how_internal_they_are(script: Script) -> None:
    script.environ["HTTPS_PROXY"] = "http://proxy.test:3128"
    script.on("GET", MANIFEST, Reply(302, {"Location": "https://10.0.0.1/"}))
    assert '10.0.0.1 of "10.0.0.1"' in await failure(script, Refused)
    assert script.requests[0].proxy is not None


# Tokens.


async def test_a_token_is_fetched_as_the_challenge_asks_and_lasts_for_the_operation(
    script: Script,
) -> None:
    script.on("GET", MANIFEST, challenge(), Reply(body=b"{}"))
    script.on("GET", TOKEN, Reply(body=b'{"token":"T","expires_in":1}'))
    session = made(script)
    for _ in range(2):
        await session.request("GET", MANIFEST)
    asked = script.requests[1]
    assert asked.url == (
        f"{R}/token?nonce=AAAAAAAAAAAAAAAAAAAAAA&scope=repository%3Ans%2Fm%3Apull&service=r.test"
        "&ts=1760000000"
    )
    message = (
        f"GET,{asked.url},ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NT"
        "k5MWI3ODUyYjg1NQ=="
    )
    assert asked.headers["authorization"] == signing_key().authorization(message.encode())
    assert [s.headers.get("authorization") for s in script.asked(part="manifests")] == [
        None,
        "Bearer T",
        "Bearer T",
    ]


async def test_access_token_is_another_name_for_a_token(script: Script) -> None:
    script.on("GET", MANIFEST, challenge(), Reply(body=b"{}"))
    script.on("GET", TOKEN, Reply(body=b'{"token":"","access_token":"A"}'))
    assert await manifest(script) == b"{}"
    assert script.requests[2].headers["authorization"] == "Bearer A"


async def test_a_second_401_is_the_end_after_another_token(script: Script) -> None:
    script.on("GET", MANIFEST, challenge())
    script.on("GET", TOKEN, Reply(body=b'{"token":"T"}'))
    assert await failure(script, AccessDenied) == "unauthorized: access denied"
    assert [s.path.split("?")[0] for s in script.requests] == [
        "/v2/ns/m/manifests/latest",
        "/token",
    ] * 2
    nonces = [s.url.split("nonce=")[1].split("&")[0] for s in script.asked(part="/token")]
    assert len(set(nonces)) == 2
    assert script.open == 0


async def test_an_empty_token_adds_nothing_to_the_repeated_request(script: Script) -> None:
    script.on("GET", MANIFEST, challenge())
    script.on("GET", TOKEN, Reply(body=b"{}"))
    assert await failure(script, AccessDenied) == "unauthorized: access denied"
    assert len(script.requests) == 4
    assert "authorization" not in script.requests[2].headers


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(403, body=b"no"), "403: no"),
        (Reply(403), "403"),
        (Reply(404), "404"),
        (Reply(body=b"nope"), "the token's answer is not JSON: "),
        (Reply(body=b'{"token":"a\\r\\nX: y"}'), "the registry's token cannot be used"),
        (Reply(body=b'{"token":"\xc3\xa9"}'), "the registry's token cannot be used"),
        (Reply(body=b'{"token":["T"]}'), "the registry's token cannot be used"),
        (Reply(body=b"[" * 10_000), "the token's answer is not JSON: "),
        (Reply(500, body=b"x" * 70_000), "500: " + "x" * 65536),
    ],
)
async def test_token_servers_that_give_none(script: Script, reply: Reply, text: str) -> None:
    script.on("GET", MANIFEST, challenge())
    script.on("GET", TOKEN, reply)
    assert (await failure(script, RegistryError)).startswith(text)
    assert len(script.requests) == 2
    assert script.open == 0


async def test_a_token_of_any_size_ends_at_the_limit(script: Script) -> None:
    script.on("GET", MANIFEST, challenge())
    script.on("GET", TOKEN, Reply(body=[b'{"token":"', *[b"x" * 50_000] * 3]))
    assert await failure(script, TooLong) == "the answer is longer than 65536 bytes"


async def test_a_missing_key_is_told_when_a_token_is_needed(script: Script, tmp_path: Path) -> None:
    script.on("GET", MANIFEST, challenge())
    path = tmp_path / "id_ed25519"
    text = await failure(script, KeyUnavailable, load_key=lambda: load_key(path))
    assert text == f"open {path}: no such file or directory"
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ('Bearer realm="https://evil.test/token",service="s"', "evil.test"),
        ('Bearer realm="https://r.test@evil.test/token"', "evil.test"),
        ('Bearer realm="https://r.test:444/token"', "r.test:444"),
        ('Basic realm="basic-realm"', ""),
        ("", ""),
    ],
)
async def test_a_forged_realm_gets_no_signature_and_no_token(
    script: Script, header: str, host: str
) -> None:
    headers = {"WWW-Authenticate": header} if header else {}
    script.on("GET", MANIFEST, Reply(401, headers))
    text = f'realm host "{host}" does not match original host "r.test"'
    assert await failure(script, RegistryError) == text
    assert len(script.requests) == 1


async def test_a_redirected_token_request_does_not_take_its_signature_to_another_host(
    script: Script,
) -> None:
    script.on("GET", MANIFEST, challenge(), Reply(body=b"{}"))
    script.on("GET", TOKEN, Reply(307, {"Location": "https://evil.test/t"}))
    script.on("GET", "https://evil.test/t", Reply(body=b'{"token":"T"}'))
    await manifest(script)
    assert "authorization" in script.requests[1].headers
    assert "authorization" not in script.requests[2].headers


async def test_who_refuses_after_a_redirect_cannot_name_a_realm_of_its_own(
    script: Script,
) -> None:
    script.on("GET", MANIFEST, Reply(302, {"Location": "https://evil.test/x"}))
    script.on("GET", "https://evil.test/x", challenge("https://evil.test/token"))
    text = 'realm host "evil.test" does not match original host "r.test"'
    assert await failure(script, RegistryError) == text


async def test_who_refuses_after_a_redirect_may_name_the_registrys_own_realm(
    script: Script,
) -> None:
    """10.10: the original host counts. It gets neither the signature nor the token by that."""
    script.on("GET", MANIFEST, Reply(302, {"Location": "https://evil.test/x"}))
    script.on("GET", "https://evil.test/x", challenge(scope="repository:any/thing:push"))
    script.on("GET", TOKEN, Reply(body=b'{"token":"T"}'))
    assert await failure(script, AccessDenied) == "unauthorized: access denied"
    assert [s.headers.get("authorization") for s in script.asked(part="evil")] == [None, None]
    assert [s.headers.get("authorization") for s in script.asked(part="manifests")] == [
        None,
        "Bearer T",
    ]


async def test_another_host_is_never_given_a_token_for_its_401(script: Script) -> None:
    """An upload's session may be anywhere; its 401 is not the registry's."""
    script.on("PUT", "https://store.test/u", challenge("https://store.test/token"))
    session = made(script)
    with pytest.raises(RegistryError, match=r"^401: no$"):
        await session.request("PUT", "https://store.test/u")
    with pytest.raises(AccessDenied):
        await session.refresh_token('Bearer realm="https://store.test/t"', "https://store.test/u")
    assert len(script.requests) == 1


async def test_many_refused_at_once_fetch_one_token(
    script: Script, autojump_clock: trio.testing.MockClock
) -> None:
    script.on("HEAD", f"{R}/v2/ns/m/blobs/*", lambda s: authorized(s.headers))
    script.on("GET", TOKEN, Reply(body=b'{"token":"T"}', after=1))
    session = made(script)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(session.request, "HEAD", session.url(f"blobs/{number}"))
    assert len(script.asked(part="/token")) == 1


def authorized(headers: Any) -> Reply:
    return Reply() if headers.get("authorization") == "Bearer T" else challenge()


# Where the bytes of a blob are.

BLOB = f"{R}/v2/ns/m/blobs/sha256:d"


async def direct(script: Script, **arguments: Any) -> str:
    session = made(script, **arguments)
    return await session.direct_url(session.url("blobs/sha256:d"))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_the_first_redirect_to_another_host_is_the_direct_url(
    script: Script, status: int
) -> None:
    script.on("GET", BLOB, Reply(status, {"Location": "/elsewhere"}))
    script.on("GET", f"{R}/elsewhere", Reply(status, {"Location": "https://r.test:444/x"}))
    place = "https://cdn.test/x?sig=a%2Fb&b=1&a=2"
    script.on("GET", "https://r.test:444/x", Reply(status, {"Location": place}))
    assert await direct(script) == place
    assert script.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, BLOB),
        ({"Location": "/cdn/x?sig=a%2Fb&z=1&a=2"}, f"{R}/cdn/x?sig=a%2Fb&z=1&a=2"),
        ({"Location": "https://cdn.test/x"}, "https://cdn.test/x"),
    ],
)
async def test_a_registry_that_serves_blobs_itself(
    script: Script, headers: dict[str, str], expected: str
) -> None:
    script.on("GET", BLOB, Reply(200, headers, [b"x" * 1000] * 1000))
    assert await direct(script) == expected
    assert script.open == 0


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (Reply(307), RegistryError, "http: no Location header in response"),
        (Reply(204), RegistryError, "unexpected status code 204"),
        (Reply(206), RegistryError, "unexpected status code 206"),
        (Reply(404), RegistryNotFound, "file does not exist"),
        (Reply(500, body=b"x"), RegistryError, "500: x"),
    ],
)
async def test_answers_that_tell_no_place(
    script: Script, reply: Reply, kind: type[OllamadError], text: str
) -> None:
    script.on("GET", BLOB, reply)
    with pytest.raises(kind, match=f"^{text}$"):
        await direct(script)
    assert len(script.requests) == 1


async def test_a_blob_that_redirects_to_itself_costs_eleven_requests(script: Script) -> None:
    script.on("GET", BLOB, Reply(307, {"Location": BLOB}))
    with pytest.raises(OllamadError, match=r"^maximum redirects exceeded \(10\) for directURL$"):
        await direct(script)
    assert len(script.requests) == 11


async def test_a_direct_url_in_plain_text_is_refused(script: Script) -> None:
    for reply in (
        Reply(307, {"Location": "http://cdn.test/x"}),
        Reply(200, {"Location": "http://cdn.test/x"}),
    ):
        script.on("GET", BLOB, reply)
        with pytest.raises(Refused, match="plain http"):
            await direct(script)
    assert script.open == 0


async def test_a_direct_url_is_asked_for_with_a_token(script: Script) -> None:
    script.on("GET", BLOB, challenge(), Reply(307, {"Location": "https://cdn.test/x"}))
    script.on("GET", TOKEN, Reply(body=b'{"token":"T"}'))
    assert await direct(script) == "https://cdn.test/x"


# One attempt.


async def test_an_attempt_follows_with_its_range_but_without_the_token(script: Script) -> None:
    script.on("GET", "https://a.test/x", Reply(302, {"Location": "https://b.test/y"}))
    script.on("GET", "https://b.test/y", Reply(206, {}, [b"ab", b"c"]))
    session = made(script)
    session.token = "T"
    async with session.open(
        "GET", "https://a.test/x", headers=[("Range", "bytes=0-2")], follow=True
    ) as response:
        assert [piece async for piece in response.aiter_raw()] == [b"ab", b"c"]
    for seen in script.requests:
        assert seen.headers["range"] == "bytes=0-2"
        assert seen.headers["accept-encoding"] == "identity"
        assert "authorization" not in seen.headers


async def test_an_attempt_at_the_registry_itself_has_the_token(script: Script) -> None:
    script.on("PATCH", f"{R}/u", Reply(307, {"Location": "https://store.test/p"}))
    session = made(script)
    session.token = "T"

    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"c"

    async with session.open("PATCH", f"{R}/u", content=pieces(), follow=False) as response:
        assert (response.status_code, response.headers["location"]) == (
            307,
            "https://store.test/p",
        )
    (seen,) = script.requests
    assert (seen.body, seen.headers["authorization"]) == (b"abc", "Bearer T")


async def test_an_attempt_may_be_left_at_any_time(
    script: Script, autojump_clock: trio.testing.MockClock
) -> None:
    script.on("GET", BLOB, Reply(body=[b"ab", STALL]))
    session = made(script)
    with trio.move_on_after(5) as scope:
        async with session.open("GET", BLOB, follow=True) as response:
            async for _ in response.aiter_raw():
                pass
    assert scope.cancelled_caught
    assert script.open == 0


async def test_the_scope_is_that_of_the_registry_and_not_of_where_it_leads(
    script: Script,
) -> None:
    script.addresses["r.test"] = "192.168.0.1"
    script.on("GET", MANIFEST, Reply(302, {"Location": "https://cdn.test/"}))
    script.on("GET", "https://cdn.test/", Reply(body=b"{}"))
    session = made(script)
    await session.request("GET", MANIFEST)
    assert session.scope is AddressScope.PRIVATE
