"""Which certificate authorities are trusted: the system's, or those that the environment names.

registry-and-store 6: a proxy or a registry of a company works when its authority is in the system's
store, or in ``SSL_CERT_FILE`` or ``SSL_CERT_DIR``. There is no way to switch verification off.
"""

from __future__ import annotations

import logging
import os
import ssl
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

#: Where systems keep all their authorities in one file; the first that there is counts.
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/opt/homebrew/etc/openssl@3/cert.pem",
    "/usr/local/etc/openssl@3/cert.pem",
)
DIRECTORY = "/etc/ssl/certs"
_MOST_FILES = 2000


def client_context(
    environ: Mapping[str, str],
    *,
    bundles: Iterable[str] = BUNDLES,
    directory: str = DIRECTORY,
) -> ssl.SSLContext:
    """A context that verifies servers. Blocking: reads files.

    ``SSL_CERT_FILE`` stands in for the system's file, ``SSL_CERT_DIR`` (several, with ``:``) for
    its directory; what cannot be read is logged, and what the system has is used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    file, directories = environ.get("SSL_CERT_FILE", ""), environ.get("SSL_CERT_DIR", "")
    if not (file and _load(context, "SSL_CERT_FILE", file)):
        _load_system(context, bundles)
    if directories:
        for each in filter(None, directories.split(os.pathsep)):
            _load_directory(context, each)
    elif Path(directory).is_dir():
        # By the hash in a file's name, when it is needed.
        context.load_verify_locations(capath=directory)
    if not context.cert_store_stats()["x509_ca"] and not directories:
        _load_shipped(context)
    return context


def reason(error: ssl.SSLError) -> str:
    """What to tell the user of a failed handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = error.verify_message or "unknown reason"
        # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT and its like: the chain ends at a stranger.
        if error.verify_code in (2, 18, 19, 20, 21):
            text += (
                " (if you trust who signed it, add that certificate authority to the system's "
                "store, or name its file in SSL_CERT_FILE, and restart the server)"
            )
        return f"tls: failed to verify certificate: {text}"
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
        return "http: server gave HTTP response to HTTPS client"
    return f"tls: {(error.reason or str(error)).replace('_', ' ').lower()}"


def _load_system(context: ssl.SSLContext, bundles: Iterable[str]) -> None:
    if sys.platform == "win32":
        context.load_default_certs()
        return
    for path in (ssl.get_default_verify_paths().openssl_cafile, *bundles):
        if Path(path).is_file() and _load(context, "the system's certificates", path):
            return


def _load(context: ssl.SSLContext, what: str, path: str) -> bool:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError) as error:
        text = "it holds no certificate" if isinstance(error, ssl.SSLError) else str(error)
        logger.warning("cannot use %s %s: %s", what, path, text)
        return False
    return True


def _load_directory(context: ssl.SSLContext, directory: str) -> None:
    """Every file in it, whatever its name: people put certificates there as they got them."""
    try:
        files = sorted(each for each in Path(directory).iterdir() if each.is_file())
    except OSError as error:
        logger.warning("cannot use SSL_CERT_DIR %s: %s", directory, error)
        return
    for file in files[:_MOST_FILES]:
        try:
            context.load_verify_locations(cafile=file)
        except (OSError, ValueError):
            logger.debug("not a certificate: %s", file)


def _load_shipped(context: ssl.SSLContext) -> None:
    """A machine without any authority, such as a bare container: those that came with httpx."""
    import certifi  # noqa: PLC0415 - seldom needed

    if not _has_hashed(DIRECTORY):
        context.load_verify_locations(cafile=certifi.where())


def _has_hashed(directory: str) -> bool:
    try:
        return any(each.suffix == ".0" for each in Path(directory).iterdir())
    except OSError:
        return False
