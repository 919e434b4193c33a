"""Fetches a file from an http(s) address that somebody else wrote: bounded in size and time, and never from inside a private network.

A name is resolved once, every address behind it is checked, and the connection goes to a checked address: a name that answers differently the second
time (DNS rebinding) has no second time. Redirects are new addresses and go the same way. Proxies of the environment are not used, for they would resolve
the name again.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from functools import cache
from urllib.parse import SplitResult, urljoin, urlsplit

from tastemaker.schema.errors import InputError, SettingsError
from tastemaker.schema.settings import MediaSettings

REDIRECTS = 4
_REDIRECT = (301, 302, 303, 307, 308)
_PART = 65_536
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "tastemaker", "Connection": "close"}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Unreadable(InputError):
    """A picture or sound that can't be read; the text says why, in a few words and without its name, so that like ones can be counted."""


@dataclass(frozen=True)
class FetchRules:
    """What may be fetched.

    Attributes:
        section: of the settings, for error messages.
        max_bytes: of one file. seconds: for one address, redirects included. networks: private ones that may be fetched from all the same.
    """

    section: str
    max_bytes: int
    seconds: float
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, section: str, settings: MediaSettings) -> FetchRules:
        """The rules of a section of the settings.

        Raises:
            SettingsError: `fetch_from` names no network.
        """
        try:
            networks = tuple(ipaddress.ip_network(name) for name in settings.fetch_from)
        except ValueError as error:
            raise SettingsError(f"{section}.fetch_from: {error}; expected networks such as 10.1.0.0/16.") from None
        return cls(section, settings.max_bytes, settings.timeout, networks)


def fetch(url: str, rules: FetchRules) -> bytes:
    """The body behind an address.

    Raises:
        Unreadable: it can't be fetched or may not be.
    """
    deadline = time.monotonic() + rules.seconds
    for _ in range(REDIRECTS + 1):
        answer = _ask(url, rules, deadline)
        if isinstance(answer, bytes):
            return answer
        url = urljoin(url, answer)
    raise Unreadable(f"more than {REDIRECTS} redirects")


def allowed(address: Address, networks: tuple[Network, ...] = ()) -> bool:
    """Whether an address is one of the public internet (no loopback, link-local, private, shared, multicast or reserved one, nor one that hides such a
    one behind IPv6), or lies in one of the given networks."""
    if any(address.version == network.version and address in network for network in networks):
        return True
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return allowed(inner, networks)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _ask(url: str, rules: FetchRules, deadline: float) -> bytes | str:
    """The body behind an address, or where it says that this lies."""
    parts = _split(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _checked_address(str(parts.hostname), port, rules, deadline)
    connection = _Connection(str(parts.hostname), port, address, parts.scheme == "https", max(deadline - time.monotonic(), 0.001))
    guard = threading.Timer(max(deadline - time.monotonic(), 0.0), connection.cut)
    guard.daemon = True
    guard.start()  # a server that sends a byte a second would never run into a socket's timeout
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers=_HEADERS)
        response = connection.getresponse()
        if response.status in _REDIRECT and response.headers.get("Location"):
            return str(response.headers["Location"])
        if response.status != 200:
            raise Unreadable(f"answered with status {response.status}")
        if int(response.headers.get("Content-Length") or 0) > rules.max_bytes:
            raise Unreadable(f"larger than {rules.section}.max_bytes")
        body = _body(response, rules)
        if time.monotonic() > deadline:  # the body may look whole when the connection was cut
            raise TimeoutError
        return body
    except TimeoutError:
        raise Unreadable(f"not there within {rules.section}.timeout") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() > deadline:
            raise Unreadable(f"not there within {rules.section}.timeout") from None
        raise Unreadable(f"could not be fetched ({type(error).__name__})") from None
    finally:
        guard.cancel()
        connection.close()


def _body(response: http.client.HTTPResponse, rules: FetchRules) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := response.read(_PART):
        size += len(part)
        if size > rules.max_bytes:
            raise Unreadable(f"larger than {rules.section}.max_bytes")
        parts.append(part)
    if not size:
        raise Unreadable("empty")
    return b"".join(parts)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Unreadable("no valid address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise Unreadable("no valid http or https address")
    if parts.username is not None or any(letter <= " " or letter >= "\x7f" for letter in url):
        raise Unreadable("an address with a user name, blanks or letters beyond ASCII")
    return parts


def _checked_address(host: str, port: int, rules: FetchRules, deadline: float) -> str:
    """The first address of a host, after all of them were checked."""
    found = _resolved(host, port, max(deadline - time.monotonic(), 0.0), rules)
    for name in found:
        if not allowed(ipaddress.ip_address(name.partition("%")[0]), rules.networks):
            raise Unreadable("an address in a private network")
    return found[0]


def _resolved(host: str, port: int, seconds: float, rules: FetchRules) -> list[str]:
    """All addresses of a host; the system's resolver knows no deadline, so it is left alone when that has passed."""
    answers: list[list[str] | None] = []

    def look() -> None:
        try:
            answers.append([str(row[4][0]) for row in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except (OSError, UnicodeError):
            answers.append(None)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers:
        raise Unreadable(f"not there within {rules.section}.timeout")
    if not answers[0]:
        raise Unreadable("a host that is not known")
    return answers[0]


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was chosen before; the host's name is in the request and, with TLS, in the certificate."""

    def __init__(self, host: str, port: int, address: str, secure: bool, seconds: float) -> None:
        super().__init__(host, port, timeout=seconds)
        self.default_port = http.client.HTTPS_PORT if secure else http.client.HTTP_PORT
        self._address, self._secure = address, secure
        self._open: socket.socket | None = None  # `sock` is forgotten as soon as the answer begins

    def connect(self) -> None:
        """Opens the connection."""
        self.sock = self._open = socket.create_connection((self._address, self.port), self.timeout)
        if self._secure:
            secure = _tls().wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
            self.sock = self._open = secure
            secure.do_handshake()

    def cut(self) -> None:
        """Ends whatever waits for the connection."""
        if self._open is not None:
            with contextlib.suppress(OSError):
                self._open.shutdown(socket.SHUT_RDWR)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
