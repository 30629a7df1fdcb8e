"""Signed strings byte for byte, registry-and-store.md 5.2 to 5.7, 9.1 and 10.10."""

from urllib.parse import parse_qs, urlsplit

import pytest
from support.scripted_http import signing_key

from ollamad.registry.signing import (
    account_key,
    api_message,
    cloud_message,
    connect_url,
    signed_query,
    token_message,
    token_url,
)

PUB = "AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
LINE = f"ssh-ed25519 {PUB}"
NONCE = bytes(range(16))
TS = 1760000000
EMPTY = "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="
REALM = "https://registry.example.com/v2/token"
TOKEN_URL = (
    f"{REALM}?nonce=AAECAwQFBgcICQoLDA0ODw&scope=repository%3Aacme%2Ftiny%3Apull"
    "&service=registry.example.com&ts=1760000000"
)
K = (
    "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUFPaEI3L3p6aEMrSFhEZEdPZEx3SmxuNU5Zd202VU5Y"
    "eDNjaG1RU1ZURzQ"
)


def test_the_public_line() -> None:
    assert signing_key().public_line == LINE


def test_the_token_of_the_worked_example() -> None:
    url = token_url(REALM, "registry.example.com", "repository:acme/tiny:pull", ts=TS, nonce=NONCE)
    assert url == TOKEN_URL
    assert token_message(url) == f"GET,{TOKEN_URL},{EMPTY}".encode()
    assert signing_key().authorization(token_message(url)) == (
        f"{PUB}:TKtn25MOw7nMhSCuego54gG/55mmT/zexivB01y3RVqTLL7KtozLzNd8khKeDEZuQyC1ebAPpauTSUyB40AX"
        "Ag=="
    )
    assert len(signing_key().authorization(b"")) == 157


def test_two_scopes() -> None:
    scopes = "repository:acme/tiny:pull,push repository:library/base:pull"
    assert token_url(REALM, "registry.example.com", scopes, ts=TS, nonce=NONCE) == (
        f"{REALM}?nonce=AAECAwQFBgcICQoLDA0ODw&scope=repository%3Aacme%2Ftiny%3Apull%2Cpush"
        "&scope=repository%3Alibrary%2Fbase%3Apull&service=registry.example.com&ts=1760000000"
    )


@pytest.mark.parametrize(
    ("realm", "service", "scope", "query"),
    [
        (
            "https://h/v2/token?a=b%20c&z=1",
            "s",
            "x,y/z",
            "a=b+c&nonce=AAECAwQFBgcICQoLDA0ODw&scope=x%2Cy%2Fz&service=s&ts=1760000000&z=1",
        ),
        (
            "https://h/v2/token",
            "~s-._*é",
            "",
            "nonce=AAECAwQFBgcICQoLDA0ODw&scope=&service=~s-._%2A%C3%A9&ts=1760000000",
        ),
        (
            "https://h/v2/token?service=theirs&ts=1&%ff=%FE#part",
            "s",
            "a",
            "nonce=AAECAwQFBgcICQoLDA0ODw&scope=a&service=theirs&service=s&ts=1&ts=1760000000"
            "&%FF=%FE",
        ),
    ],
)
def test_queries_of_token_urls(realm: str, service: str, scope: str, query: str) -> None:
    url = token_url(realm, service, scope, ts=TS, nonce=NONCE)
    assert url == f"https://h/v2/token?{query}"


def test_several_scopes_stay_several() -> None:
    realm = "https://auth.example.com/token"
    url = token_url(realm, "registry", "repo:foo:pull repo:bar:push", ts=TS, nonce=NONCE)
    parts = urlsplit(url)
    assert (parts.hostname, parts.path) == ("auth.example.com", "/token")
    query = parse_qs(parts.query)
    assert query["service"] == ["registry"]
    assert query["scope"] == ["repo:foo:pull", "repo:bar:push"]
    assert query["ts"] == ["1760000000"]
    other = token_url(realm, "registry", "repo:foo:pull", ts=TS, nonce=bytes(16))
    assert parse_qs(urlsplit(other).query)["nonce"] != query["nonce"]


@pytest.mark.parametrize(
    ("method", "path", "ts", "signature"),
    [
        (
            "POST",
            "/api/me",
            TS,
            "7e2fmkXxukXDm5MOm0uMjHGcNQE1iRZK30oqVYcr54ATqlD5E4WAr5lb72U3IduFQooviRGCDxOa4oAWyVF3CA==",
        ),
        (
            "POST",
            "/api/chat",
            TS,
            "eHWxnYj3IZlgN6KIAF/QbeuVRW6lG0Ayi9ZY3qljNJ6WIgwVsHLxlqZGM1bPdP19ISJTCI4LL7nB3ze3Jn3YDA==",
        ),
        (
            "DELETE",
            f"/api/user/keys/{K}",
            TS,
            "zbjq1B7jDkMAXUoY/ak+f75OfRgiQef9le2QSWcpeOkRKLn3sNMNcyJC5/jX1RXGbNQ+73TJnW0ksGZeg9/DAA==",
        ),
        (
            "HEAD",
            "/",
            1795247983,
            "DxirjobZpQ2FcxbUMAYlSoqoO3srXAT+vy571ZCdHjFg4l3a8UuMIC2Jxkddhy/oeFc536O6rrKCqB08pQ4tAg==",
        ),
        (
            "GET",
            "/api/tags",
            1795247983,
            "iaFt9pdrvalnKsToGJZqmhFwaF/JDiF/hS8K/I9eN5mngThGMqravWBO6GlnqA6pBDMTYGJ+PJ+D0STDJ9FhBA==",
        ),
    ],
)
def test_calls_of_the_api(method: str, path: str, ts: int, signature: str) -> None:
    message = api_message(method, path, ts)
    assert message == f"{method},{path}?ts={ts}".encode()
    assert signing_key().authorization(message) == f"{PUB}:{signature}"


@pytest.mark.parametrize(
    ("path", "query", "ts", "signed", "signature"),
    [
        (
            "/v1/messages",
            "beta=true&foo=bar",
            123,
            "beta=true&foo=bar&ts=123",
            "UCAZXM1GBEbz86knHpA2h5o4We21vhzJTmqJAAaA6JK6fEZAQYDgNSJ1gIohGIE9ACy2ZCyMCK87L5SLUBMKBg==",
        ),
        (
            "/api/chat",
            "ts=999&b=2&a=1",
            1795247982,
            "a=1&b=2&ts=1795247982",
            "kQA7vu+3vhozYIwJbRBWTYLfiBoFcuOfeQOt9r+TnQ3fVu2mSXdRo7p6kKFo4l8qKPbFVPXIZX7e7dX5jCF4CQ==",
        ),
    ],
)
def test_requests_of_the_cloud(path: str, query: str, ts: int, signed: str, signature: str) -> None:
    assert signed_query(query, ts) == signed
    message = cloud_message("POST", path, signed)
    assert message == f"POST,{path}?{signed}".encode()
    assert signing_key().authorization(message) == f"{PUB}:{signature}"


def test_a_clients_own_time_is_overwritten() -> None:
    assert signed_query("beta=true&ts=999", 123) == "beta=true&ts=123"
    assert signed_query("", 123) == "ts=123"
    assert signed_query("x&b=2&b=1&zeta=~*", 1) == "b=2&b=1&ts=1&x=&zeta=~%2A"


def test_the_sign_in_url() -> None:
    assert connect_url("my box", LINE) == f"https://ollama.com/connect?name=my%20box&key={K}"
    assert connect_url("a-._~$&+=:@/ü", LINE).split("&key=")[0] == (
        "https://ollama.com/connect?name=a-._~$&+=:@%2F%C3%BC"
    )
    assert account_key(LINE) == K
