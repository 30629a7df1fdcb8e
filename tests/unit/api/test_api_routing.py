"""The router by http-api.md 1.6 to 1.9 and C11."""

import pytest

from ollamad.api.routing import Match, Redirect, Route, Router, Unrouted, clean

ROUTER = Router(
    Route(method, path, lambda _context: None)  # type: ignore[arg-type, return-value]
    for method, path in (
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/api/tags"),
        ("HEAD", "/api/tags"),
        ("POST", "/api/chat"),
        ("HEAD", "/api/blobs/:digest"),
        ("POST", "/api/blobs/:digest"),
    )
)


def test_matches() -> None:
    found = ROUTER.resolve("POST", "/api/blobs/sha256:ab")
    assert isinstance(found, Match)
    assert found.route.path == "/api/blobs/:digest"
    assert found.parameters == {"digest": "sha256:ab"}


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/api/tags/", Redirect(301, "/api/tags")),
        ("HEAD", "/api/tags/", Redirect(307, "/api/tags")),
        ("POST", "/api/chat/", Redirect(307, "/api/chat")),
        ("POST", "/api/blobs/x/", Redirect(307, "/api/blobs/x")),
        ("GET", "/api/chat/", Unrouted(())),
        ("GET", "/api/tags//", Redirect(307, "/api/tags/")),
        ("GET", "//", Redirect(307, "/")),
        ("GET", "/..", Redirect(307, "/")),
        ("GET", "/api/../..", Redirect(307, "/")),
        ("GET", "/x/../api/./tags", Redirect(307, "/api/tags")),
        ("GET", "/...", Unrouted(())),
        ("GET", "/api/blobs/", Unrouted(())),
        ("GET", "/api/blobs/a/b", Unrouted(())),
        ("PUT", "/api/tags", Unrouted(("HEAD", "GET"))),
        ("GET", "/api/blobs/x", Unrouted(("HEAD", "POST"))),
    ],
)
def test_the_rest(method: str, path: str, found: object) -> None:
    assert ROUTER.resolve(method, path) == found


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [("/a//b", "/a/b"), ("/a/b//", "/a/b/"), ("//a", "/a"), ("/a/./", "/a/"), ("/../../x/", "/x/")],
)
def test_clean(path: str, cleaned: str) -> None:
    assert clean(path) == cleaned
    assert clean(cleaned) == cleaned
