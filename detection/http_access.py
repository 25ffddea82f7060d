"""Where an HTTP server is and how to get in: addresses that hold no secret, headers, TLS.

`address()` takes an address apart; what a person wrote into it as user, password or query is never part of what is
shown. `Access.of()` reads the settings that every connection of slotune has in common:

| extra | meaning |
|---|---|
| `token` | sent as `Authorization: Bearer ...` |
| `headers` | further headers, a mapping (`{"X-Scope-OrgID": "team-a"}`) |
| `verify` | false: any certificate is accepted; a path: the CA bundle that is trusted |
| `ca` | path of the CA bundle (or folder) that is trusted |
| `cert`, `key` | paths of a client certificate and its key (one file may hold both) |
| `ssl_context` | Airflow's spelling: `none` accepts any certificate, `default` does not |
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, urlsplit

from detection.errors import ConfigError

ACCESS_EXTRAS = ("ca", "cert", "headers", "key", "ssl_context", "token", "verify")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_HEADER_NAME = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
_HEADER_VALUE = re.compile(r"^[^\x00-\x08\x0a-\x1f\x7f]*$")
_OPEN_HEADERS = frozenset(
    ("host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length", "x-scope-orgid")
)
"""Headers that hold no credentials; any other may, whatever it is called."""
_SHORTEST_SECRET = 4
_UNLIKELY_BYTES = 16
"""A credential this long stands in data by no chance; a shorter one may be a word of a good answer."""
_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Address:
    """An address without user, password, query and fragment. path: "" or "/prefix", never ending in a slash."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def place(self) -> str:
        """host:port, as Prometheus' label `instance` has it."""
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def origin(self) -> str:
        """host, and the port where it is not the scheme's own: the Host header."""
        usual = self.port == (443 if self.scheme == "https" else 80)
        return _bracketed(self.host) if usual else self.place

    def __str__(self) -> str:
        return f"{self.scheme}://{self.origin}{self.path}"


def address(text: str, *, schemes: tuple[str, ...] = ("http", "https")) -> Address:
    """The parts of an address. ConfigError (which repeats nothing of the text) where it is none."""
    wrong = f"is not an address: write {schemes[0]}://host:port"
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
        host = host.encode("idna").decode("ascii") if host and not host.isascii() else host
    except (ValueError, UnicodeError):
        # their messages repeat what could not be read, which may be a piece of a password
        raise ConfigError(wrong) from None
    if parts.scheme not in schemes or not host or re.search(r"[\x00-\x20\x7f]", parts.netloc + parts.path):
        raise ConfigError(wrong)
    if port == 0:
        raise ConfigError(wrong)
    path = parts.path.rstrip("/")
    return Address(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path)


@dataclass(frozen=True, slots=True)
class Tls:
    """Whose certificates are trusted, and with which one the client shows itself. Paths of PEM files.

    server_name: what the certificate is for, where that is not the address' host.
    """

    verify: bool = True
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """The context for a connection; ConfigError where a file cannot be used."""
        return _context(self, tuple(os.environ.get(name, "") for name in _BUNDLES))


@lru_cache(maxsize=32)
def _context(tls: Tls, bundles: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # what a connection names stands alone; the environment's bundles are added to the system's own
    elif tls.ca:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load(context, tls.ca, "the CA file")
    else:
        for bundle in dict.fromkeys(filter(None, bundles)):
            _load(context, bundle, "the CA bundle of the environment")
    if tls.cert:
        try:
            context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConfigError(f"the client certificate {tls.cert} or its key cannot be used ({_why(error)})") from error
    return context


def _load(context: ssl.SSLContext, path: str, what: str) -> None:
    try:
        if Path(path).is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{what} {path} cannot be used ({_why(error)})") from error


def _why(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else "it holds no certificate in PEM form"


@dataclass(frozen=True, slots=True, repr=False)
class Access:
    """How to get in: headers (login and token among them) and TLS. `repr` shows no secret.

    proxy: address of the proxy to go through; None: what the environment says.
    """

    headers: tuple[tuple[str, str], ...] = ()
    tls: Tls = Tls()
    proxy: str | None = None

    @classmethod
    def of(cls, extra: Mapping[str, object], login: str | None = None, password: str | None = None) -> Access:
        """The access that a connection describes. ConfigError naming the extra that cannot be used, never its value."""
        headers = _headers(extra.get("headers"))
        token = extra.get("token")
        if token not in (None, ""):
            headers.append(("Authorization", f"Bearer {_text(token, 'token')}"))
        elif login:
            pair = base64.b64encode(f"{login}:{password or ''}".encode()).decode("ascii")
            headers.append(("Authorization", f"Basic {pair}"))
        return cls(tuple(headers), _tls(extra))


def unquoted(body: bytes, headers: Mapping[str, str], status: int) -> bytes:
    """A server's answer with the credentials of the request (its headers) as ***: proxies' error pages and debugging
    servers repeat what they are sent, and slotune quotes what an error says."""
    shortest = _UNLIKELY_BYTES if 200 <= status < 300 else _SHORTEST_SECRET
    for secret in secrets_of(headers):
        if len(secret) >= shortest:
            body = body.replace(secret, b"***")
    return body


def secrets_of(headers: Mapping[str, str]) -> tuple[bytes, ...]:
    """The credentials in the headers of a request: values, tokens and passwords, as sent and in the spellings of JSON
    and of addresses. What is shorter than four characters would be found everywhere, and is left out."""
    found: set[str] = set()
    for name, value in headers.items():
        if name.lower() in _OPEN_HEADERS:
            continue
        scheme, _, word = value.partition(" ")
        found |= {value, word}
        if scheme.lower() == "basic":
            with contextlib.suppress(ValueError):
                pair = base64.b64decode(word).decode("utf-8", "replace")
                found |= {pair, pair.partition(":")[2]}
    spelt = {spelling for text in found for spelling in (text, quote(text, safe=""), json.dumps(text)[1:-1])}
    return tuple(sorted((t.encode() for t in spelt if len(t) >= _SHORTEST_SECRET), key=lambda t: (-len(t), t)))


def _headers(given: object) -> list[tuple[str, str]]:
    if given in (None, ""):
        return []
    if not isinstance(given, Mapping):
        raise ConfigError('the extra `headers` must be a mapping, for example {"X-Scope-OrgID": "team-a"}')
    found = []
    for name, value in given.items():
        if not _HEADER_NAME.match(str(name)):
            raise ConfigError("the extra `headers` has a name that is no HTTP header")
        found.append((str(name), _text(value, f"headers.{name}")))
    return found


def _text(value: object, extra: str) -> str:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        text = str(value).strip()
        if _HEADER_VALUE.match(text) and text.isascii():
            return text
    raise ConfigError(f"the extra `{extra}` must be a text of one line that fits into an HTTP header")


def _tls(extra: Mapping[str, object]) -> Tls:
    verify: object = extra.get("verify", True)
    ca = _path(extra, "ca")
    if isinstance(verify, str):
        word = verify.strip().lower()
        if word in (*_TRUE, *_FALSE, ""):
            verify = word not in _FALSE
        else:
            ca, verify = ca or verify.strip(), True
    if verify is None:
        verify = True
    if not isinstance(verify, (bool, int)):
        raise ConfigError("the extra `verify` must be true, false or the path of a CA bundle")
    context = extra.get("ssl_context")
    if context not in (None, "", "default", "none"):
        raise ConfigError("the extra `ssl_context` must be `default` or `none`")
    cert, key = _path(extra, "cert"), _path(extra, "key")
    if key and not cert:
        raise ConfigError("the extra `key` needs `cert`, the client certificate that belongs to it")
    return Tls(bool(verify) and context != "none", ca, cert, key)


def _path(extra: Mapping[str, object], name: str) -> str | None:
    value = extra.get(name)
    if value in (None, ""):
        return None
    if not isinstance(value, str) or "\0" in value:
        raise ConfigError(f"the extra `{name}` must be the path of a file")
    return value


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
