"""OLLAMA_HOST, runners-and-scheduling.md 5.2 and 8.1."""

import pytest

from ollamad import host
from ollamad.host import connect_url, parse_host

CASES = [
    ("", "http://127.0.0.1:11434"),
    ("1.2.3.4", "http://1.2.3.4:11434"),
    ("1.2.3.4:1234", "http://1.2.3.4:1234"),
    (":1234", "http://:1234"),
    (":0", "http://:0"),
    (":66000", "http://:11434"),
    (":-1", "http://:11434"),
    (":+80", "http://:+80"),
    (":0080", "http://:0080"),
    (":8_0", "http://:11434"),
    (":٨٠", "http://:11434"),
    ("example.com", "http://example.com:11434"),
    ("example.com:1234", "http://example.com:1234"),
    ("[::1]", "http://[::1]:11434"),
    ("::1", "http://[::1]:11434"),
    ("0:0:0:0:0:0:0:1", "http://[::1]:11434"),
    ("[::]", "http://[::]:11434"),
    ("[::1]:1337", "http://[::1]:1337"),
    (" 1.2.3.4 ", "http://1.2.3.4:11434"),
    ('"1.2.3.4"', "http://1.2.3.4:11434"),
    ("'1.2.3.4'", "http://1.2.3.4:11434"),
    (' " 1.2.3.4 " ', "http://1.2.3.4:11434"),
    ("http://1.2.3.4", "http://1.2.3.4:80"),
    ("https://1.2.3.4", "https://1.2.3.4:443"),
    ("https://example.com/ollama", "https://example.com:443/ollama"),
    ("ollama.com", "https://ollama.com:443"),
    ("http://ollama.com", "http://ollama.com:80"),
    ("ollama.com:443", "http://ollama.com:443"),
    ("localhost", "http://localhost:11434"),
    ("example.com/", "http://example.com:11434"),
    ("1.2.3.4:", "http://1.2.3.4:11434"),
    ("https://1.2.3.4:abc", "https://1.2.3.4:443"),
    ("http://1.2.3.4:99999", "http://1.2.3.4:80"),
    ("ftp://1.2.3.4", "ftp://1.2.3.4:11434"),
    ("HTTP://h", "HTTP://h:11434"),
    ("http://", "http://127.0.0.1:80"),
    ('""', "http://127.0.0.1:11434"),
    ("[::1", "http://[::1]:11434"),
    ("h:1:2", "http://[h:1:2]:11434"),
    ("::ffff:1.2.3.4", "http://1.2.3.4:11434"),
    ("http://[::1]/a/b/", "http://[::1]:80/a/b/"),
    ("unix:///x.sock", "unix://127.0.0.1:11434/x.sock"),
]


@pytest.mark.parametrize(("text", "url"), CASES)
def test_every_text_has_a_meaning(text: str, url: str) -> None:
    assert parse_host(text).url == url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (":1234", "http://:1234"),
        (":0", "http://:0"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("[::]:1234", "http://[::1]:1234"),
        ("https://0.0.0.0:4321", "https://127.0.0.1:4321"),
        ("192.168.1.5", "http://192.168.1.5:11434"),
    ],
)
def test_clients_connect_to_loopback_instead_of_unspecified(text: str, url: str) -> None:
    assert connect_url(parse_host(text)) == url


@pytest.mark.parametrize("text", ["1.2.3.4:", "https://1.2.3.4:abc", "http://1.2.3.4:99999"])
def test_a_bad_port_warns_once_with_the_port(text: str) -> None:
    ports: list[str] = []
    parse_host(text, ports.append)
    assert ports == [text.rpartition(":")[2]]


def test_a_good_port_does_not_warn() -> None:
    ports: list[str] = []
    for text in ("", "1.2.3.4", ":0", "[::1]:65535"):
        parse_host(text, ports.append)
    assert ports == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("h:1", ("h", "1")),
        ("[::1]:1", ("::1", "1")),
        (":", ("", "")),
        ("h", None),
        ("::1", None),
        ("[::1]", None),
        ("[::1]x:1", None),
        ("[[::1]]:1", None),
        ("a]b:1", None),
    ],
)
def test_split_host_port(text: str, expected: tuple[str, str] | None) -> None:
    assert host.split_host_port(text) == expected


def test_the_port_is_a_number_too() -> None:
    assert parse_host(":0080").port == 80
    assert parse_host(":0080").address == ":0080"


def test_from_environ() -> None:
    assert host.from_environ({}).url == "http://127.0.0.1:11434"
    assert host.from_environ({"OLLAMA_HOST": "h:5"}).url == "http://h:5"
