"""Where pictures and sounds may come from: files of one folder, bytes, public addresses; bounded in size and time."""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tastemaker.features.fetch import FetchRules, Unreadable, allowed, fetch
from tastemaker.features.reference import ReferenceRules, read_reference, shown
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import ImageSettings

LOCAL = ipaddress.ip_network("127.0.0.1/32")
CONTENT = bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    asked: list[tuple[str, str | None]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Host"]))
        kind, _, rest = self.path[1:].partition("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", base64.urlsafe_b64decode(rest).decode())
            self.end_headers()
        elif kind == "round":
            self.send_response(307)
            self.send_header("Location", f"/round/{rest}x")
            self.end_headers()
        elif kind == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(200):
                try:
                    self.wfile.write(b"a")
                except OSError:
                    return
                time.sleep(0.05)
        elif kind == "endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"a" * 65_536)
            except OSError:
                return
        elif kind == "claims":
            self.send_response(200)
            self.send_header("Content-Length", "99999999")
            self.end_headers()
        elif kind == "ok":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)
        else:
            self.send_response(404)
            self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    service = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    service.daemon_threads = True
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{service.server_address[1]}"
    service.shutdown()
    service.server_close()


def rules(**more: object) -> FetchRules:
    given: dict[str, object] = {"section": "image", "max_bytes": 200_000, "seconds": 3.0, "networks": (LOCAL,)}
    return FetchRules(**{**given, **more})  # type: ignore[arg-type]


def to(url: str) -> str:
    return "to/" + base64.urlsafe_b64encode(url.encode()).decode()


def test_a_file_behind_an_address_comes_whole_also_over_redirects(server: str) -> None:
    assert fetch(f"http://{server}/ok/a.png?size=2", rules()) == CONTENT
    assert Handler.asked[-1] == ("/ok/a.png?size=2", server)
    assert fetch(f"http://{server}/{to('/ok/b.png')}", rules()) == CONTENT
    assert (
        fetch(
            f"http://{server}/{to(f'http://localhost:{server[10:]}/ok/c.png')}",
            rules(networks=(LOCAL, ipaddress.ip_network("::1"))),
        )
        == CONTENT
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://HOST/missing", "answered with status 404"),
        ("http://HOST/claims", "larger than image.max_bytes"),
        ("http://HOST/endless", "larger than image.max_bytes"),
        ("http://HOST/round/", "more than 4 redirects"),
        (f"http://HOST/{to('file:///etc/passwd')}", "no valid http or https address"),
        ("http://name@HOST/ok/x", "user name"),
        ("http://HOST/ok/a b", "blanks"),
        ("http://127.0.0.1:99999/", "no valid address"),
        ("http://127.0.0.1:1/", "could not be fetched"),
        ("https://HOST/ok/x", "could not be fetched"),
        ("http://no-such-host.invalid/", "not known"),
        ("http:///x", "no valid http or https address"),
    ],
)
def test_what_can_or_may_not_be_fetched_is_told(server: str, url: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        fetch(url.replace("HOST", server).replace("PORT", server[10:]), rules())


def test_the_redirect_to_another_private_address_is_not_asked(server: str) -> None:
    before = len(Handler.asked)
    with pytest.raises(Unreadable, match="private"):
        fetch(f"http://{server}/{to(f'http://127.0.0.3:{server[10:]}/ok/secret')}", rules())
    assert [path for path, _ in Handler.asked[before:] if "secret" in path] == []


def test_a_slow_server_is_left_at_the_deadline(server: str) -> None:
    began = time.monotonic()
    with pytest.raises(Unreadable, match=r"not there within image.timeout"):
        fetch(f"http://{server}/drip", rules(seconds=0.5))
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0.0.0.0", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"]
)
def test_ways_to_write_this_machine_are_refused_by_default(server: str, host: str) -> None:
    before = len(Handler.asked)
    with pytest.raises(Unreadable, match=r"private network|not known"):
        fetch(f"http://{host}:{server[10:]}/ok/x", rules(networks=()))
    assert len(Handler.asked) == before


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1:248:1893:25c8:1946", True), ("10.0.0.1", False), ("172.16.3.4", False),
        ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False), ("224.0.0.1", False), ("255.255.255.255", False),
        ("0.0.0.0", False), ("fe80::1", False), ("fd00::1", False), ("ff02::1", False), ("64:ff9b::7f00:1", False), ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False), ("::ffff:10.0.0.1", False), ("::ffff:93.184.216.34", True), ("fec0::1", False), ("::", False),
    ],
)  # fmt: skip
def test_public_and_private_addresses(address: str, public: bool) -> None:
    assert allowed(ipaddress.ip_address(address)) is public


def test_a_name_is_resolved_once_so_that_its_second_answer_does_not_matter(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that first points to an allowed address, then to another one (DNS rebinding)."""
    answers = ["127.0.0.1", "127.0.0.2"]
    real = socket.getaddrinfo

    def rebinding(host: str, port: int, *rest: object, **more: object) -> object:
        return real(answers.pop(0) if host == "shop.example" else host, port, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert fetch(f"http://shop.example:{server[10:]}/ok/x", rules()) == CONTENT
    assert answers == ["127.0.0.2"]
    assert Handler.asked[-1][1] == f"shop.example:{server[10:]}"
    with pytest.raises(Unreadable, match="private"):
        fetch(f"http://shop.example:{server[10:]}/ok/x", rules())


def test_one_private_address_among_several_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    row = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(*row, ("93.184.216.34", 80)), (*row, ("10.0.0.1", 80))])
    with pytest.raises(Unreadable, match="private"):
        fetch("http://shop.example/x", rules())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    (tmp_path / "pictures" / "deep" / "a.png").write_bytes(CONTENT)
    (tmp_path / "secret.png").write_bytes(CONTENT)
    (tmp_path / "pictures" / "large.png").write_bytes(bytes(20_001))
    (tmp_path / "pictures" / "empty.png").touch()
    (tmp_path / "pictures" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "pictures" / "circle.png").symlink_to(tmp_path / "pictures" / "circle.png")
    os.mkfifo(tmp_path / "pictures" / "pipe.png")
    return tmp_path


def read(reference: str, folder: Path) -> bytes:
    return read_reference(reference, ReferenceRules.of("image", ImageSettings(folder=str(folder / "pictures"), max_bytes=20_000)))


def test_files_and_bytes_are_read(folder: Path) -> None:
    plain = base64.b64encode(CONTENT).decode()
    assert read("deep/a.png", folder) == CONTENT
    assert read(str(folder / "pictures" / "deep" / "a.png"), folder) == CONTENT
    assert read(f"data:image/png;base64,{plain}", folder) == CONTENT
    assert read("data:," + "".join(f"%{byte:02x}" for byte in CONTENT), folder) == CONTENT
    assert read(plain, folder) == CONTENT


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("../secret.png", "outside of image.folder"),
        ("/etc/passwd", "outside of image.folder"),
        ("link.png", "outside of image.folder"),
        ("circle.png", "no such file"),
        ("deep", "no plain file|no such file"),
        ("pipe.png", "no plain file"),
        ("large.png", "larger than image.max_bytes"),
        ("empty.png", "empty"),
        ("absent.png", "no such file"),
        ("a\0b", "no such file"),
        ("x" * 100_000, "larger than|no such file"),
        ("A" * 29_000, "larger than image.max_bytes"),
        ("data:image/png;base64", "without a comma"),
        ("data:image/png;base64,!!!", "can't be decoded"),
        ("data:,", "empty"),
        ("ftp://host/a.png", "neither http"),
        ("file:///etc/passwd", "neither http"),
        ("https://host/a.png", "image.fetch is false"),
        ("HTTP://host/a.png", "image.fetch is false"),
    ],
)
def test_what_may_not_be_read_is_told(folder: Path, reference: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read(reference, folder)


def test_settings_and_what_is_shown() -> None:
    with pytest.raises(SettingsError, match=r"image.fetch_from.*10.1.0.0/16"):
        ReferenceRules.of("image", ImageSettings(fetch=True, fetch_from=("my shop",)))
    assert ReferenceRules.of("image", ImageSettings()).fetch is None
    assert shown("https://host/a.png") == "https://host/a.png"
    assert shown("A" * 9_999) == "data:,"
    assert shown(None) is None
