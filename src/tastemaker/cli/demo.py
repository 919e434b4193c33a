"""`tastemaker demo`: the whole life on MovieLens 100k, told step by step, then the service."""

from __future__ import annotations

import json as json_module
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tastemaker.cli.backtest import backtest_ahead
from tastemaker.cli.movielens import fetch_movielens
from tastemaker.cli.traffic import visited
from tastemaker.cli.workspace import SETTINGS_FILE, open_workspace
from tastemaker.schema.errors import InputError, TastemakerError

NEW_ITEM = {"title": "The Lightsaber Chronicles", "categories": ["Sci-Fi", "Action", "Adventure"]}
NEW_ITEM_ID = "demo-new-film"
COMPRESS = ("--budget", "2%", "--steps", "int8-text,int8-user,int8-vectors", "--set", "compress.effort=quick", "--set",
            "compress.questions=2500", "--set", "compress.calibration=48")  # fmt: skip
"""What takes seconds: nothing is learned anew, and fewer questions are asked, so that a wider budget is needed to be sure."""


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace to make.")] = Path("demo"),
    port: Annotated[int, typer.Option(help="Port of the service.")] = 8000,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Leave the service running.")] = True,
    traffic: Annotated[
        bool, typer.Option("--traffic/--no-traffic", help="Made-up people visit the service while it is left running.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print what happened as JSON at the end.")] = False,
) -> None:
    """The whole life on MovieLens 100k, then serve."""
    screen = Console(stderr=json, highlight=False)
    story = Story(screen)
    learn(directory, story)
    with serving(directory, port) as url:
        story.step("Answers over HTTP")
        tell_examples(url, story)
        tell_real_time(url, story)
        story.facts["seconds"] = time.perf_counter() - story.began
        screen.print(f"\nThe whole demo took {story.facts['seconds']:.0f} s.")
        screen.print(f"Report: {directory / 'reports' / 'report.html'}")
        if json:
            typer.echo(json_module.dumps(story.facts))
        if serve:
            screen.print(f"[bold]The service runs at {url} (console at /, API at /docs). Stop it with Ctrl-C.[/]")
            if not traffic:
                _wait()
                return
            screen.print("Made-up people visit it meanwhile (--no-traffic leaves them out): look at the console's panel Health.")
            with visited(open_workspace(directory), lambda path, body: ask(url, path, body)):
                _wait()


class Story:
    """Prints numbered steps with their times and keeps the facts."""

    def __init__(self, screen: Console) -> None:
        self.screen = screen
        self.began = time.perf_counter()
        self.facts: dict[str, Any] = {}
        self._steps = 0

    def step(self, title: str) -> None:
        """Begins a step."""
        self._steps += 1
        self.screen.print(f"\n[bold]{self._steps}. {title}[/]  [dim]{time.perf_counter() - self.began:.0f} s[/]")

    def say(self, text: str) -> None:
        """Prints one line of the story; square brackets are text."""
        self.screen.print(text.replace("[", r"\["), soft_wrap=True)


def learn(directory: Path, story: Story) -> None:
    """Data, bundle and report; what an earlier demo in the same folder has done is kept."""
    story.step("MovieLens 100k: fetch and import")
    raw = fetch_movielens()
    if not (directory / SETTINGS_FILE).exists():
        _verb("init", str(directory))
    _verb("import", str(directory), "--events", str(raw / "ml-100k.inter"), "--items", str(raw / "ml-100k.item"),
          "--users", str(raw / "ml-100k.user"))  # fmt: skip
    if (directory / "bundles" / "registry.json").exists():
        story.say("A bundle is there already and is kept; delete the folder to start over.")
    else:
        story.step("Train: the language model reads the titles, the sequence model learns what comes next")
        with backtesting(directory):
            _verb("train", str(directory))
    story.step("Evaluate: held-out events, whole catalogue, strong baselines beside")
    _verb("evaluate", str(directory))
    if (directory / "reports" / "compression.json").exists():
        story.say("It has been compressed already.")
        return
    story.step("Compress: eight bits in place of thirty-two, each step inside a budget")
    _verb("compress", str(directory), *COMPRESS)


@contextmanager
def backtesting(directory: Path) -> Iterator[None]:
    """Meanwhile the backtest runs on half of the cores, what is started inside on the others; `evaluate` finds the lists and need not train.

    A small training on half of the cores takes less than twice its time. Nothing runs beside where there is one core only, or where a process
    can't be held to some.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(cores) < 2:
        yield
        return
    beside = get_context("spawn").Process(target=backtest_ahead, args=(directory,), daemon=True)
    half = len(cores) // 2
    try:
        os.sched_setaffinity(0, cores[half:])  # processes inherit it
        beside.start()
        os.sched_setaffinity(0, cores[:half])
        yield
        beside.join()  # if it failed, `evaluate` meets the same fault and tells it
    finally:
        if beside.is_alive():
            beside.kill()
        os.sched_setaffinity(0, cores)


@contextmanager
def serving(directory: Path, port: int) -> Iterator[str]:
    """The service as a child process; gives its URL when it is ready and stops it at the end."""
    host = open_workspace(directory).settings.serving.host
    url = f"http://{host}:{port}"
    log = (directory / "runs" / "serve.log").open("w")
    child = subprocess.Popen(
        [sys.executable, "-m", "tastemaker", "serve", str(directory), "--port", str(port)], stdout=log, stderr=log
    )
    try:
        _await_ready(child, url, Path(log.name))
        yield url
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
        log.close()


def tell_examples(url: str, story: Story) -> None:
    """Three users: what they watched last and what they are offered, with the reason for each."""
    users = [user["user_id"] for user in ask(url, "/v1/users?limit=300")["users"] if 20 <= user["events"] <= 120]
    for user_id in users[:: max(1, len(users) // 3)][:3]:
        told = ask(url, f"/v1/users/{user_id}")
        last = ", ".join(_name(event) for event in told.get("history", [])[:4])
        story.say(f"\nUser {user_id} last watched: {last}")
        answer = ask(url, "/v1/recommend", {"user_id": user_id, "k": 5, "explain": True})
        for place, item in enumerate(answer["items"], 1):
            story.say(f"   {place}. {_name(item):<44.44} {item.get('reason') or item['source']}")
        story.facts.setdefault("examples", []).append({"user_id": user_id, "items": answer["items"]})


def tell_real_time(url: str, story: Story) -> None:
    """A new event changes the next answer; a new item is found and offered at once; a deleted one is gone."""
    story.step("Real time: an event, a new item, a deletion")
    visitor = "demo-visitor"
    watched = ask(url, "/v1/search", {"query": "Star Wars", "k": 1})["items"]
    watched += ask(url, f"/v1/items/{watched[0]['item_id']}/similar?k=1")["items"]
    events = [{"user_id": visitor, "item_id": item["item_id"], "event_type": "rating", "value": 5} for item in watched]
    before = [item["item_id"] for item in ask(url, "/v1/recommend", {"user_id": visitor, "k": 10})["items"]]
    began = time.perf_counter()
    ask(url, "/v1/events", {"events": events})
    after = ask(url, "/v1/recommend", {"user_id": visitor, "k": 10})["items"]
    changed = len({item["item_id"] for item in after} - set(before))
    took = 1000 * (time.perf_counter() - began)
    names = " and ".join(_name(item) for item in watched)
    story.say(f"A new visitor watched {names}: {changed} of 10 recommendations are new, {took:.0f} ms after the event.")
    story.say(f"   now: {', '.join(_name(item) for item in after[:5])}")
    began = time.perf_counter()
    ask(url, f"/v1/items/{NEW_ITEM_ID}", NEW_ITEM, "PUT")
    found = ask(url, "/v1/search", {"query": NEW_ITEM["title"], "k": 3})["items"]
    offered = [item["item_id"] for item in ask(url, "/v1/recommend", {"user_id": visitor, "k": 20})["items"]]
    took = 1000 * (time.perf_counter() - began)
    place = offered.index(NEW_ITEM_ID) + 1 if NEW_ITEM_ID in offered else None
    first = "first" if found and found[0]["item_id"] == NEW_ITEM_ID else "not first"
    story.say(f"A new film, {NEW_ITEM['title']!r}, was added by its title alone ({took:.0f} ms):")
    story.say(f"   search finds it {first}, the visitor is offered it at place {place}.")
    ask(url, f"/v1/items/{NEW_ITEM_ID}", method="DELETE")
    left = [item["item_id"] for item in ask(url, "/v1/recommend", {"user_id": visitor, "k": 50})["items"]]
    story.say(f"Deleted again: it is {'still there' if NEW_ITEM_ID in left else 'gone from the next answer'}.")
    story.facts["real_time"] = {"changed": changed, "new_item_place": place, "deleted_gone": NEW_ITEM_ID not in left}


def ask(url: str, path: str, body: Any = None, method: str | None = None) -> dict[str, Any]:
    """One HTTP call with JSON in and out; an error answer becomes an error with its text."""
    data = None if body is None else json_module.dumps(body).encode()
    request = urllib.request.Request(
        url + path,
        data=data,
        headers={"content-type": "application/json"},
        method=method or ("POST" if body is not None else "GET"),
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise TastemakerError(f"{request.method} {path} answered {error.code}: {error.read().decode()[:300]}") from None
    return dict(json_module.loads(text)) if text else {}


def _verb(*arguments: str) -> None:
    """Runs one verb as a user would: in a process of its own, so that its memory is given back."""
    done = subprocess.run([sys.executable, "-m", "tastemaker", *arguments], check=False)
    if done.returncode:
        raise TastemakerError(f"`tastemaker {' '.join(arguments)}` ended with {done.returncode}; its own message is above.")


def _await_ready(child: subprocess.Popen[bytes], url: str, log: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if child.poll() is not None:
            raise InputError(f"The service did not start: {log.read_text(errors='replace')[-1500:]}")
        try:
            with urllib.request.urlopen(url + "/readyz", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise TastemakerError(f"The service was not ready within {seconds:.0f} s; see {log}.")


def _name(item: dict[str, Any]) -> str:
    return str(item.get("title") or item.get("item_id"))


def _wait() -> None:
    try:
        if hasattr(signal, "pause"):
            signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
            signal.pause()
    except KeyboardInterrupt:
        return
