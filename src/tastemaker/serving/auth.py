"""Who asks and what they may: API keys with scopes. The file of keys holds hashes; a key itself is shown once, when it is made.

A key is 256 random bits, so one round of SHA-256 is as safe at rest as a slow hash and costs a microsecond a request.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from socket import getaddrinfo
from typing import Literal

import msgspec

from tastemaker.schema.errors import InputError, TastemakerError

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
PREFIX = "tm"
MOST_KEYS = 1_024
KEYS_FILE = "keys.json"
REFRESH_SECONDS = 0.5
"""A key that is added or revoked counts in every worker after this time."""
_NOBODY = "0" * 64


class NoKey(TastemakerError):
    """A key is needed, and none that is known came."""


class NotAllowed(TastemakerError):
    """The key has not the scope that the route needs."""


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key as it is stored.

    Attributes:
        key_id: its public part; logs and lists show it.
        name: what it is for.
        scopes: what it may; `admin` may everything.
        sha256: hex digest of the whole key.
        created: epoch seconds.
        slot: its place among the counters of requests, 1 and up.
        rate: requests per second that it may make; None: the setting's.
    """

    key_id: str
    name: str
    scopes: tuple[Scope, ...]
    sha256: str
    created: float
    slot: int
    rate: float | None = None

    def may(self, scope: Scope) -> bool:
        """True if the key has a scope."""
        return scope in self.scopes or "admin" in self.scopes


class KeyFile:
    """The keys of a workspace.

    Args:
        path: the file, readable by its owner alone; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Key]:
        """All keys, oldest first.

        Raises:
            InputError: the file is damaged.
        """
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=list[Key])
        except FileNotFoundError:
            return []
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path} is damaged ({error}). Delete it and add keys again.") from None

    def add(self, name: str, scopes: Iterable[Scope], rate: float | None = None) -> tuple[Key, str]:
        """Makes a key; gives what is stored of it, and the key itself, which nobody can read again.

        Raises:
            InputError: no scope or an unknown one, a rate that is no positive number, or too many keys.
        """
        chosen = tuple(dict.fromkeys(scopes))
        if not chosen or any(scope not in SCOPES for scope in chosen):
            raise InputError(
                f"The scopes are {', '.join(map(str, chosen)) or 'missing'}; give one or more of: {', '.join(SCOPES)}."
            )
        if rate is not None and not 0 < rate < float("inf"):
            raise InputError(f"The rate is {rate}; expected requests per second, more than 0.")
        key_id = secrets.token_hex(4)
        text = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
        with self._changing() as keys:
            free = set(range(1, MOST_KEYS)) - {key.slot for key in keys}
            if not free:
                raise InputError(f"There are {len(keys):,} keys, the most there can be. Revoke some: tastemaker keys revoke DIR ID")
            key = Key(
                key_id=key_id,
                name=name,
                scopes=chosen,
                sha256=_digest(text.encode()),
                created=time.time(),
                slot=min(free),
                rate=rate,
            )
            keys.append(key)
        return key, text

    def revoke(self, key_id: str) -> Key:
        """Takes a key out.

        Raises:
            InputError: there is no such key.
        """
        with self._changing() as keys:
            found = next((key for key in keys if key.key_id == key_id), None)
            if found is None:
                raise InputError(f"There is no key {key_id!r}. `tastemaker keys list DIR` shows the ids.")
            keys.remove(found)
        return found

    @contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self.read()
            yield keys
            temporary = self.path.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(keys)))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)


class Keyring:
    """The keys as a worker knows them; it looks for changes of the file by itself.

    Args:
        file: the keys. closed: nobody may enter without a key, even when all are revoked. An open service closes with its first key.
    """

    def __init__(self, file: KeyFile, closed: bool = False) -> None:
        self._file, self.closed = file, closed
        self._keys: dict[str, Key] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._looked = 0.0
        self._refresh(time.monotonic())

    def enter(self, token: bytes | None, scope: Scope) -> Key | None:
        """Whose request it is; None where the service is open and nobody needs a key.

        Raises:
            NoKey: a key is needed. NotAllowed: the key has not this scope.
        """
        now = time.monotonic()
        if now - self._looked > REFRESH_SECONDS:
            self._refresh(now)
        if not self.closed:
            return None
        if token is None:
            raise NoKey("An API key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
        key = self._known(token)
        if key is None:
            raise NoKey("This API key is not known, or was revoked. Make one with: tastemaker keys add DIR")
        if not key.may(scope):
            raise NotAllowed(f"The API key {key.key_id} may {', '.join(key.scopes)}; this needs {scope}.")
        return key

    def _known(self, token: bytes) -> Key | None:
        """The key of a token. What is compared is hashed, in constant time, and an unknown id takes as long as a wrong secret."""
        parts = token.split(b"_", 2)
        key = self._keys.get(parts[1].decode("latin-1")) if len(parts) == 3 else None
        same = hmac.compare_digest(_digest(token), key.sha256 if key is not None else _NOBODY)
        return key if same else None

    def _refresh(self, now: float) -> None:
        self._looked = now
        try:
            found = self._file.path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        except FileNotFoundError:
            self._keys, self._stamp = {}, None
            return
        if stamp == self._stamp:
            return
        try:
            self._keys = {key.key_id: key for key in self._file.read()}
        except InputError as error:  # those known so far go on counting; a damaged file opens nothing
            print(f"the keys were not read: {error}", flush=True)
            self.closed = True
        self._stamp = stamp
        self.closed = self.closed or bool(self._keys)


def token_of(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """The key in a request's headers (lower-case names): of `X-API-Key`, or of `Authorization` with `Bearer` or an AWS signature.

    A signature can't be proved from a hash: of `AWS4-HMAC-SHA256 Credential=KEY/…` the access key id is the API key, whole.
    """
    for name, value in headers:
        if name == b"x-api-key":
            return value
        if name == b"authorization":
            kind, _, rest = value.partition(b" ")
            if kind.lower() == b"bearer":
                return rest.strip()
            if kind == b"AWS4-HMAC-SHA256":
                return rest.partition(b"Credential=")[2].partition(b"/")[0]
    return None


def check_own(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Keeps strangers out of an open service: pages of other sites that a browser on this machine shows, and whoever comes through a proxy.

    Raises:
        NotAllowed: `Host` or `Origin` is not this machine.
    """
    for name, value in headers:
        if name in (b"host", b"origin") and not _own(value):
            raise NotAllowed(
                f"{name.decode().title()} is {value[:80].decode('latin-1')!r}: without an API key this service answers its own machine alone. "
                "Make a key with: tastemaker keys add DIR"
            )


@lru_cache(1_024)
def _own(value: bytes) -> bool:
    """True if a `Host` or `Origin` names this machine; names are not looked up."""
    host = value.decode("latin-1").rpartition("//")[2]
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if host == "localhost" or host.endswith(".localhost") or not host:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """True if nobody but this machine can reach an address or name."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        pass
    try:
        found = {str(row[4][0]) for row in getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(ip_address(address.partition("%")[0]).is_loopback for address in found)


def check_exposure(host: str, keys: Sequence[Key], workspace: Path) -> None:
    """Refuses to serve other machines without keys.

    Raises:
        InputError: the address can be reached from elsewhere, and there is no key.
    """
    if not keys and not is_loopback(host):
        raise InputError(
            f"{host} can be reached from other machines, and this workspace has no API key: anybody could read and write. "
            f"Make one with `tastemaker keys add {workspace} --scope read`, or serve this machine alone with --host 127.0.0.1."
        )


def _digest(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()
