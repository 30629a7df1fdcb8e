"""Challenges and realms, registry-and-store.md 5.4 and 10.10."""

import pytest

from ollamad.registry.challenge import (
    Challenge,
    chosen,
    parse_challenge,
    realm_url,
    token_origins,
)
from ollamad.registry.errors import Refused, RegistryError
from ollamad.registry.urls import parse_url


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.example.com/token",service="registry",scope="repo:foo:pull"',
            ("https://auth.example.com/token", "registry", "repo:foo:pull"),
        ),
        (
            'Bearer realm="https://r.ollama.ai/v2/token",service="ollama",scope="-"',
            ("https://r.ollama.ai/v2/token", "ollama", "-"),
        ),
        ('Bearer realm="https://auth.example.com"', ("https://auth.example.com", "", "")),
        ("", ("", "", "")),
        ('Basic realm="basic-realm"', ("basic-realm", "", "")),
        ('Bearer realm="x", service="y", scope="z"', ("x", "y", "z")),
        (
            'Bearer scope="a b",realm="x",service="y",error="invalid_token"',
            ("x", "y", "a b"),
        ),
        ('Bearer realm="a"b",service="s"', ('a"b', "s", "")),
        ('Bearer realm="x" , service="y"', ('x" , service="y', "y", "")),
        ('Bearer realm="x";service="y"', ('x";service="y', "y", "")),
        ('Bearer Realm="x"', ("", "", "")),
        ('realm="', ("", "", "")),
        ("realm=", ("", "", "")),
        ('Bearer realm="https://h/token', ("https://h/token", "", "")),
        ("Bearer realm=http://h/token,service=s", ("http://h/token", "s", "")),
        ('bearer realm="x"', ("x", "", "")),
    ],
)
def test_headers(header: str, expected: tuple[str, str, str]) -> None:
    assert parse_challenge(header) == Challenge(*expected)


def test_of_several_headers_the_one_that_asks_for_a_token() -> None:
    assert chosen(['Basic realm="b"', 'Bearer realm="x"']) == 'Bearer realm="x"'
    assert chosen(['Basic realm="b"']) == 'Basic realm="b"'
    assert chosen([]) == ""


@pytest.mark.parametrize(
    ("realm", "asked", "expected"),
    [
        ("https://example.com/token", "https://example.com", "https://example.com/token"),
        ("https://localhost:5000/token", "https://localhost:5000", "https://localhost:5000/token"),
        ("https://h:1/token", "http://h:1", "https://h:1/token"),
        ("https://example.com", "https://example.com", "https://example.com/"),
        ("https://huggingface.co/v2/token", "https://hf.co", "https://huggingface.co/v2/token"),
        (
            "https://huggingface.co/v2/token",
            "https://huggingface.co",
            "https://huggingface.co/v2/token",
        ),
    ],
)
def test_realms_that_may_be_asked(realm: str, asked: str, expected: str) -> None:
    assert str(realm_url(realm, parse_url(asked), insecure=False)) == expected


@pytest.mark.parametrize(
    ("realm", "asked", "host"),
    [
        ("https://example.com/token", "https://other.com", "example.com"),
        ("https://example.com/token", "https://localhost:8000", "example.com"),
        ("https://localhost:5000/token", "https://localhost:6000", "localhost:5000"),
        ("https://h:443/token", "https://h", "h:443"),
        ("https://h/token", "https://h:443", "h"),
        ("/v2/token", "http://h:1", ""),
        ("", "https://h", ""),
        ("basic-realm", "http://127.0.0.1:5000", ""),
        ("https://evil.com@h:2/token", "https://evil.com", "h:2"),
        ("https://h@evil.com/token", "https://h", "evil.com"),
        ("https://evil.com\\@h/token", "https://h", "h"),
        ("https://h.evil.com/token", "https://h", "h.evil.com"),
        ("https://H/token", "https://h", "H"),
        # The alias has one direction, one spelling, and TLS.
        ("https://hf.co/v2/token", "https://huggingface.co", "hf.co"),
        ("http://huggingface.co/v2/token", "https://hf.co", "huggingface.co"),
        ("https://huggingface.co:444/v2/token", "https://hf.co", "huggingface.co:444"),
        ("https://huggingface.co/v2/token", "https://hf.co:444", "huggingface.co"),
    ],
)
def test_a_forged_realm_gets_no_token_and_no_signature(realm: str, asked: str, host: str) -> None:
    with pytest.raises(RegistryError) as caught:
        realm_url(realm, parse_url(asked), insecure=False)
    authority = parse_url(asked).authority
    if host == authority:
        # The right host, but in a way that others may read as another one.
        assert "realm" in caught.value.message
    else:
        expected = f'realm host "{host}" does not match original host "{authority}"'
        assert caught.value.message == expected


def test_a_realm_that_is_no_url() -> None:
    with pytest.raises(RegistryError) as caught:
        realm_url("://invalid", parse_url("https://h"), insecure=False)
    assert caught.value.message == 'parse "://invalid": missing protocol scheme'
    for realm in ("ftp://h/token", "https://h/a\nb", "https://h:/token\x7f", "//h/token"):
        with pytest.raises(RegistryError):
            realm_url(realm, parse_url("https://h"), insecure=False)


def test_a_token_is_not_fetched_in_plain_text_for_a_registry_with_tls() -> None:
    with pytest.raises(Refused, match="plain http"):
        realm_url("http://h/token", parse_url("https://h"), insecure=False)
    realm_url("http://h/token", parse_url("http://h"), insecure=True)


def test_who_may_see_a_token() -> None:
    assert token_origins(parse_url("https://r.test:5000")) == {("https", "r.test", 5000)}
    assert token_origins(parse_url("https://hf.co")) == {
        ("https", "hf.co", 443),
        ("https", "huggingface.co", 443),
    }
    assert token_origins(parse_url("http://hf.co")) == {("http", "hf.co", 80)}
