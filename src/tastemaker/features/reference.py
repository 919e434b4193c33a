"""Where an item's picture or sound lies, and its bytes: a file, a `data:` URL, base64, or an http(s) address. The same lines in training and behind the service.

A reference is written by whoever writes items, so it is not trusted: files are read inside one folder only, everything has a size, and addresses are
fetched only where that is asked for, and then never from inside a private network (`fetch`).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from tastemaker.features.fetch import FetchRules, Unreadable, fetch
from tastemaker.schema.settings import MediaSettings

_SHOWN = 2_048
_PLACEHOLDER = "data:,"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{32,}={0,2}\s*")


@dataclass(frozen=True)
class ReferenceRules:
    """What may be read.

    Attributes:
        section: of the settings, for error messages.
        folder: files outside of it are not read. max_bytes: of one file. fetch: how addresses are fetched; None: they are not.
    """

    section: str
    folder: Path
    max_bytes: int
    fetch: FetchRules | None = None

    @classmethod
    def of(cls, section: str, settings: MediaSettings) -> ReferenceRules:
        """The rules of a section of the settings.

        Raises:
            SettingsError: `fetch_from` names no network.
        """
        rules = FetchRules.of(section, settings) if settings.fetch else None
        return cls(section, Path(settings.folder), settings.max_bytes, rules)


def is_address(reference: str) -> bool:
    """Whether a reference has to be fetched."""
    return reference[:8].lower().startswith(("http://", "https://"))


def shown(reference: str | None) -> str | None:
    """A reference as it is kept beside an item: bytes that are written out in it are left away."""
    return _PLACEHOLDER if reference is not None and len(reference) > _SHOWN else reference


def read_reference(reference: str, rules: ReferenceRules) -> bytes:
    """The bytes that a reference names.

    Raises:
        Unreadable: there are none, or they may not be read; it says why in a few words.
    """
    reference = reference.strip()
    if is_address(reference):
        if rules.fetch is None:
            raise Unreadable(f"an address, and {rules.section}.fetch is false")
        return fetch(reference, rules.fetch)
    if reference[:5].lower() == "data:":
        return _limited(_data_url(reference, rules), rules)
    if _SCHEME.match(reference) and not Path(reference).drive:
        raise Unreadable("an address that is neither http, https nor data")
    found = _file(reference, rules) if len(reference) <= _SHOWN and "\0" not in reference else None
    if found is not None:
        return found
    if len(reference) > rules.max_bytes * 3 // 2:
        raise Unreadable(f"larger than {rules.section}.max_bytes")
    if _BASE64.fullmatch(reference):
        return _limited(_decoded(reference), rules)
    raise Unreadable(f"no such file in {rules.section}.folder")


def _file(reference: str, rules: ReferenceRules) -> bytes | None:
    """A file's bytes; None where there is none."""
    try:
        root = rules.folder.resolve()
        path = (root / reference).resolve()
        if not path.is_relative_to(root):
            if path.exists():
                raise Unreadable(f"a file outside of {rules.section}.folder")
            return None
        # Without O_NONBLOCK opening a pipe would wait for its writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise Unreadable("no plain file")
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links that go round in a circle
        return None
    with os.fdopen(handle, "rb") as stream:
        if os.fstat(handle).st_size > rules.max_bytes:
            raise Unreadable(f"larger than {rules.section}.max_bytes")
        return _limited(stream.read(rules.max_bytes + 1), rules)


def _data_url(reference: str, rules: ReferenceRules) -> bytes:
    """RFC 2397."""
    head, comma, body = reference.partition(",")
    if not comma:
        raise Unreadable("a data URL without a comma")
    if len(body) > rules.max_bytes * 3:
        raise Unreadable(f"larger than {rules.section}.max_bytes")
    return _decoded(unquote_to_bytes(body).decode("latin-1")) if head.lower().endswith(";base64") else unquote_to_bytes(body)


def _decoded(text: str) -> bytes:
    try:
        text = "".join(text.split()).replace("-", "+").replace("_", "/")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable("base64 that can't be decoded") from None


def _limited(found: bytes, rules: ReferenceRules) -> bytes:
    if not found:
        raise Unreadable("empty")
    if len(found) > rules.max_bytes:
        raise Unreadable(f"larger than {rules.section}.max_bytes")
    return found
