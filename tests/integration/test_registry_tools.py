"""The tools that transfer tests stand on do what they say, seen by a client that is not ours."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest
from benchmarks import pull
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.fault_proxy import HONEST, KINDS, Fault, FaultProxy, Plan
from support.gateway import Gateway, Stranger, in_thread
from support.registry import MODEL, DockerRegistry, digest_of, serving
from support.token_server import (
    EMPTY_BODY,
    SERVICE,
    Refusal,
    TokenServer,
    check_request,
    check_signature,
)

DATA = os.urandom(300_000)
DIGEST = digest_of(DATA)
BLOB = f"/v2/acme/tiny/blobs/{DIGEST}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with serving(tmp_path_factory.mktemp("registry")) as registry:
        registry.put_model("acme/tiny", [(MODEL, DATA)])
        yield registry


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=20) as client:
        yield client


class Fixed(FaultProxy):
    """One fault for the first request, none for others."""

    def __init__(self, upstream: int, kind: str, at: float = 0.5) -> None:
        plan = Plan(0, 1.0, 1, stall_limit=5, drip_bytes=5, drip_pause=0.001)
        super().__init__(upstream, plan)
        self.fault = Fault(kind, at, 502)

    def _fault(self, exchange: object) -> Fault | None:
        if self.done:
            return None
        self.done[self.fault.kind] += 1
        return self.fault


# --- the registry ---------------------------------------------------------------------------------


def test_a_registry_keeps_what_it_has_and_where_it_is(tmp_path: Path) -> None:
    with serving(tmp_path) as registry:
        manifest = registry.put_model("acme/tiny", [(MODEL, b"x" * 250)])
        file = tmp_path / "file"
        file.write_bytes(b"placed")
        registry.place_blob("acme/tiny", file, digest_of(b"placed"))
        host = registry.host
        registry.stop()
        with pytest.raises(httpx.ConnectError):
            registry.get_manifest("acme/tiny")
        registry.start()
        assert registry.host == host
        assert registry.get_manifest("acme/tiny") == manifest
        assert registry.get_manifest("acme/tiny", "other") is None
        answer = httpx.get(f"{registry.url}/v2/acme/tiny/blobs/{digest_of(b'placed')}")
        assert answer.content == b"placed"
        assert registry.blob_file(digest_of(b"x" * 250)).read_bytes() == b"x" * 250


# --- the gateway ----------------------------------------------------------------------------------


def test_what_passes_is_unchanged(registry: DockerRegistry, http: httpx.Client) -> None:
    with in_thread(Gateway(registry.port)) as gateway:
        assert http.get(gateway.url + BLOB).content == DATA
        part = http.get(gateway.url + BLOB, headers={"Range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, DATA[100:200])
        assert part.headers["Content-Range"] == f"bytes 100-199/{len(DATA)}"
        head = http.head(gateway.url + BLOB)
        assert head.headers["Content-Length"] == str(len(DATA))
        # An upload, sent with Expect and in chunks, whose Location leads back through the gateway.
        opened = http.post(f"{gateway.url}/v2/acme/up/blobs/uploads/")
        location = opened.headers["Location"]
        assert location.startswith(f"{gateway.url}/v2/acme/up/blobs/uploads/")
        patched = http.patch(
            location, content=iter([DATA[:1000], DATA[1000:]]), headers={"Expect": "100-continue"}
        )
        assert patched.status_code == 202
        done = http.put(patched.headers["Location"] + f"&digest={quote(DIGEST)}")
        assert done.status_code == 201
        assert registry.blob_file(DIGEST).read_bytes() == DATA
    sent = {
        (s.method, s.headers.get("range")): (s.status, s.received, s.sent) for s in gateway.seen
    }
    assert sent["GET", None] == (200, 0, len(DATA))
    assert sent["GET", "bytes=100-199"] == (206, 0, 100)
    assert sent["HEAD", None] == (200, 0, 0)
    assert sent["PATCH", None] == (202, len(DATA), 0)


def test_a_rate_is_kept(registry: DockerRegistry, http: httpx.Client) -> None:
    with in_thread(Gateway(registry.port, rate=1_000_000)) as gateway:
        begin = time.monotonic()
        http.get(gateway.url + BLOB)
        assert time.monotonic() - begin >= 0.2


def test_a_stranger_remembers(http: httpx.Client) -> None:
    with in_thread(Stranger(status=418)) as stranger:
        assert http.get(stranger.url + "/x?y", headers={"Authorization": "a"}).status_code == 418
    assert [(s.path, s.query, s.authorization) for s in stranger.seen] == [("/x", "y", "a")]


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("cut", httpx.RemoteProtocolError),
        ("reset", httpx.ReadError),
        ("stall", httpx.ReadTimeout),
        ("silent", httpx.ReadTimeout),
        ("close", httpx.RemoteProtocolError),
    ],
)
def test_faults_of_the_connection(
    registry: DockerRegistry, http: httpx.Client, kind: str, error: type[Exception]
) -> None:
    with in_thread(Fixed(registry.port, kind)) as proxy:
        got = bytearray()

        def read() -> None:
            with http.stream("GET", proxy.url + BLOB, timeout=0.5) as answer:
                for chunk in answer.iter_raw(1000):
                    got.extend(chunk)

        with pytest.raises(error):
            read()
        assert http.get(proxy.url + BLOB).content == DATA
    if kind in ("cut", "stall"):
        assert proxy.seen[0].sent == len(DATA) // 2
        assert bytes(got) == DATA[: len(got)]
        assert len(got) > len(DATA) // 2 - 1000


def test_faults_of_the_answer(registry: DockerRegistry, http: httpx.Client) -> None:
    def first(kind: str, at: float = 0.5) -> tuple[httpx.Response, FaultProxy]:
        with in_thread(Fixed(registry.port, kind, at)) as proxy:
            headers = {"Range": f"bytes=0-{len(DATA) - 1}"}
            return http.get(proxy.url + BLOB, headers=headers), proxy

    assert first("error")[0].status_code == 502
    busy, _ = first("busy")
    assert (busy.status_code, busy.headers["Retry-After"]) == (429, "1")
    for at, where in ((0.0, 0), (0.5, len(DATA) // 2), (1.0, len(DATA) - 1)):
        wrong, _ = first("wrong", at)
        assert [i for i in range(len(DATA)) if wrong.content[i] != DATA[i]] == [where]
    short, proxy = first("short")
    assert (short.status_code, short.content) == (206, DATA[: len(DATA) // 2])
    assert proxy.transferred == len(DATA) // 2
    drip, proxy = first("drip")
    assert drip.content == DATA
    assert proxy.transferred == len(DATA)
    crawl, proxy = first("crawl", 0.9999)
    assert crawl.content == DATA


def test_redirects(registry: DockerRegistry, http: httpx.Client) -> None:
    with in_thread(Fixed(registry.port, "redirect")) as proxy:
        with in_thread(FaultProxy(registry.port, None)) as second:
            proxy.second = second
            answer = http.get(
                proxy.url + BLOB, headers={"Range": "bytes=5-9"}, follow_redirects=True
            )
        assert answer.content == DATA[5:10]
        assert str(answer.url) == second.url + BLOB
        assert proxy.transferred == 5
        assert str(second.seen[0]) in proxy.history
    with in_thread(Fixed(registry.port, "loop")) as proxy:
        answer = http.get(proxy.url + BLOB)
        assert answer.headers["Location"] == BLOB


def test_faults_of_uploads(registry: DockerRegistry, http: httpx.Client) -> None:
    def session() -> str:
        return str(http.post(f"{proxy.url}/v2/acme/up/blobs/uploads/").headers["Location"])

    plan = Plan(1, 1.0, 1, kinds=["half"], methods=["PATCH"], part="/blobs/uploads/")
    with in_thread(FaultProxy(registry.port, plan)) as proxy:
        proxy.plan = None
        location = session()
        proxy.plan = plan
        with pytest.raises(httpx.TransportError):
            http.patch(location, content=DATA)
        proxy.plan = replace(plan, kinds=["lost"], most=2)
        location = session()
        with pytest.raises(httpx.RemoteProtocolError):
            http.patch(location, content=DATA)
        # Each was passed on, in part or whole: the registry does not take the same again (7.3).
        assert http.patch(location, content=DATA).status_code == 404
    assert proxy.done == {"half": 1, "lost": 1}


def test_a_plan_is_its_seed() -> None:
    requests = [("GET", BLOB, f"bytes={i}-", n) for i in range(200) for n in (1, 2)]
    one = [Plan(1).draw(*r) for r in requests]
    assert one == [Plan(1).draw(*r) for r in requests]
    assert one != [Plan(2).draw(*r) for r in requests]
    assert {f.kind for f in one if f} == set(KINDS)
    assert 120 < sum(f is None for f in one) < 280
    assert set(HONEST) < set(KINDS)
    assert Plan(1, 1.0).draw("PATCH", BLOB, "", 1) is None
    assert Plan(1, 1.0).draw("GET", "/v2/acme/tiny/manifests/latest", "", 1) is None


def test_a_plan_ends(registry: DockerRegistry, http: httpx.Client) -> None:
    plan = Plan(3, 1.0, most=2, kinds=["error"])
    with in_thread(FaultProxy(registry.port, plan)) as proxy:
        codes = [http.get(proxy.url + BLOB).status_code for _ in range(4)]
    assert codes[2:] == [200, 200]
    assert all(code >= 500 for code in codes[:2])
    assert proxy.done == {"error": 2}


# --- tokens ---------------------------------------------------------------------------------------

# registry-and-store 9.1
EXAMPLE_URL = (
    "https://registry.example.com/v2/token?nonce=AAECAwQFBgcICQoLDA0ODw"
    "&scope=repository%3Aacme%2Ftiny%3Apull&service=registry.example.com&ts=1760000000"
)
EXAMPLE_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
EXAMPLE_SIGNATURE = (
    "TKtn25MOw7nMhSCuego54gG/55mmT/zexivB01y3RVqTLL7KtozLzNd8khKeDEZuQyC1ebAPpauTSUyB40AXAg=="
)


def test_the_worked_example_is_accepted() -> None:
    authorization = f"{EXAMPLE_KEY}:{EXAMPLE_SIGNATURE}"
    assert check_signature("GET", EXAMPLE_URL, authorization) == EXAMPLE_KEY
    assert base64.b64decode(EMPTY_BODY).decode() == hashlib.sha256(b"").hexdigest()
    for method, url in (("POST", EXAMPLE_URL), ("GET", EXAMPLE_URL.replace("tiny", "tinY"))):
        with pytest.raises(Refusal, match="the signature is wrong"):
            check_signature(method, url, authorization)


class Signer:
    """The least client that can get a token."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.key = Ed25519PrivateKey.generate()
        line = self.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        self.line = line.decode()

    def authorization(self, url: str) -> str:
        signature = self.key.sign(f"GET,{url},{EMPTY_BODY}".encode())
        return f"{self.line.split()[1]}:{base64.b64encode(signature).decode()}"

    def url(self, base: str, scope: str, **changes: str) -> str:
        fields = {
            "nonce": base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("="),
            "scope": scope,
            "service": SERVICE,
            "ts": str(int(time.time())),
            **changes,
        }
        pairs = (f"{k}={quote(v, safe='')}" for k, v in fields.items())
        return f"{base}/v2/token?{'&'.join(pairs)}"

    def ask(self, url: str) -> httpx.Response:
        return self.http.get(url, headers={"Authorization": self.authorization(url)})


def test_tokens(registry: DockerRegistry, http: httpx.Client) -> None:
    signer = Signer(http)
    allowed = {signer.line: [("acme/tiny", "pull"), ("acme/tiny", "push"), ("a/b", "pull")]}
    with in_thread(TokenServer(registry.port, allowed)) as server:

        def token(scope: str) -> dict[str, str]:
            answer = signer.ask(signer.url(server.url, scope))
            assert answer.status_code == 200, answer.text
            return {"Authorization": f"Bearer {answer.json()['token']}"}

        refused = http.get(server.url + BLOB)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == (
            f'Bearer realm="{server.url}/v2/token",service="tests",'
            'scope="repository:acme/tiny:pull"'
        )
        pull = token("repository:acme/tiny:pull")
        assert http.get(server.url + BLOB, headers=pull).content == DATA
        # A token to pull is none to push; another repository wants another one.
        uploads = f"{server.url}/v2/acme/tiny/blobs/uploads/"
        refused = http.post(uploads, headers=pull)
        assert refused.status_code == 401
        assert 'scope="repository:acme/tiny:pull,push"' in refused.headers["WWW-Authenticate"]
        assert http.get(f"{server.url}/v2/a/b/manifests/latest", headers=pull).status_code == 401
        both = token("repository:acme/tiny:pull,push")
        assert http.post(uploads, headers=both).status_code == 202
        # What the key may not do is not in its token, whatever was asked for.
        more = token("repository:a/b:pull,push")
        assert http.post(f"{server.url}/v2/a/b/blobs/uploads/", headers=more).status_code == 401
        assert http.get(server.url + BLOB, headers={"Authorization": "Bearer no"}).is_error
        assert server.refusals == []


def test_refused_tokens(registry: DockerRegistry, http: httpx.Client) -> None:
    signer, other = Signer(http), Signer(http)
    scope = "repository:acme/tiny:pull"
    with in_thread(TokenServer(registry.port, {signer.line: [("*", "pull")]})) as server:

        def refusal(answer: httpx.Response) -> tuple[int, str]:
            return answer.status_code, answer.json()["errors"][0]["message"]

        def refused(scope: str = scope, **changes: str) -> tuple[int, str]:
            return refusal(signer.ask(signer.url(server.url, scope, **changes)))

        assert signer.ask(signer.url(server.url, scope)).status_code == 200
        once = signer.url(server.url, scope)
        assert signer.ask(once).status_code == 200
        assert refusal(signer.ask(once))[1].endswith("came before")
        assert refused(ts="1760000000") == (401, "ts 1760000000 is not fresh")
        assert refused(nonce="AAAA")[0] == 400
        assert refused(service="other")[0] == 400
        assert refused(scope="registry")[0] == 400
        assert refusal(other.ask(other.url(server.url, scope))) == (403, "unknown key")
        url = signer.url(server.url, scope)
        parts = urlsplit(url)
        swapped = url.replace(parts.query, "&".join(reversed(parts.query.split("&"))))
        assert refusal(signer.ask(swapped)) == (400, "the query is not sorted")
        for authorization, text in (
            ("", "the Authorization is not KEY:SIGNATURE"),
            ("a:b", "the Authorization is not base64"),
            ("AAAA:AAAA", "not an ssh-ed25519 key"),
            (signer.authorization(url + "x"), "the signature is wrong"),
        ):
            answer = http.get(url, headers={"Authorization": authorization})
            assert refusal(answer) == (401, text)
        assert len(server.refusals) == 11


def test_a_token_is_used_up_and_a_foul_server(registry: DockerRegistry, http: httpx.Client) -> None:
    signer = Signer(http)
    grants = {signer.line: [("*", "pull")]}
    with in_thread(TokenServer(registry.port, grants, uses=1)) as server:
        answer = signer.ask(signer.url(server.url, "repository:acme/tiny:pull"))
        headers = {"Authorization": f"Bearer {answer.json()['token']}"}
        codes = [http.get(server.url + BLOB, headers=headers).status_code for _ in range(2)]
        assert codes == [200, 401]
        server.challenge = lambda exchange: 'Bearer realm="http://169.254.169.254/"'
        forged = http.get(server.url + BLOB).headers["WWW-Authenticate"]
        assert forged == 'Bearer realm="http://169.254.169.254/"'
        server.token_answer = (200, b"no json")
        assert signer.ask(signer.url(server.url, "")).text == "no json"
        server.redirect = lambda exchange: (
            "http://other.example/" if "blobs" in exchange.path else None
        )
        assert http.get(server.url + BLOB).headers["Location"] == "http://other.example/"
        assert http.get(f"{server.url}/v2/").status_code == 401


def test_claims_without_a_memory() -> None:
    with pytest.raises(Refusal, match="service"):
        check_request("GET", EXAMPLE_URL, f"{EXAMPLE_KEY}:{EXAMPLE_SIGNATURE}", 1760000000)


# --- the benchmark --------------------------------------------------------------------------------


def test_the_benchmark_measures() -> None:
    figures = {figure.name.strip(): figure for figure in pull.throughput(True, 3_000_000)}
    assert len(figures) == 5
    ratio = figures["pull of 3.000 MB / (curl -o, then sha256sum)"]
    assert ratio.target == 0.8
    assert ratio.value > 0
    assert figures["pull"].value > 0
    assert figures["curl alone"].value > 0
    assert figures["memory of the daemon above idle, most"].value > 0
    assert figures["/api/version during pulls, 95th percentile"].value > 0
