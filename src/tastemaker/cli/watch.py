"""`tastemaker watch`: learn anew when it is time, compress, release; one at a time, each step once, whatever kills it."""

from __future__ import annotations

import ctypes
import fcntl
import json as json_module
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker.cli.workspace import Workspace, open_workspace
from tastemaker.schema.errors import InputError, TastemakerError

if TYPE_CHECKING:
    from tastemaker.schema.manifest import Manifest

DAY = 86_400.0


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    once: Annotated[bool, typer.Option("--once", help="Look once, as a cron job does, and end.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Learn anew whether it is time or not.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print each round as a line of JSON.")] = False,
) -> None:
    """Learn anew and release when it is time."""
    workspace = open_workspace(directory, overrides or ())
    with only_one(workspace):
        while True:
            told = look(workspace, tuple(overrides or ()), now)
            typer.echo(json_module.dumps(told) if json else f"{time.strftime('%Y-%m-%d %H:%M:%S')} {told['words']}")
            if once or now:
                raise typer.Exit(0 if told["state"] != "failed" else 1)
            time.sleep(workspace.settings.watch.check_seconds)


def look(workspace: Workspace, overrides: tuple[str, ...] = (), now: bool = False) -> dict[str, Any]:
    """One round: goes on with what was cut short, else begins if there is a reason. Gives `state` (idle, released, trial, refused, candidate, failed) and `words`."""
    round_ = Round.open(workspace)
    if round_ is None:
        because = "asked for" if now else reason(workspace)
        if because is None:
            return {"state": "idle", "words": f"Nothing to do: {_waiting(workspace)}."}
        round_ = Round.begin(workspace, because)
    try:
        told = _steps(workspace, round_, overrides)
    except TastemakerError as error:
        told = {"state": "failed", "words": f"It failed and is tried again at the next look: {error}"}
        round_.failures += 1
        if round_.failures < 3:
            round_.save()
            return told
        told["words"] = f"It failed three times and is given up: {error}"
    round_.end(told)
    return told


class Round:
    """What is being done, step by step, kept in `runs/watch.json` so that a killed round goes on.

    Attributes:
        done: what each finished step gave. failures: how often it was tried in vain.
    """

    def __init__(self, workspace: Workspace, because: str, began: float, done: dict[str, Any], failures: int) -> None:
        self.workspace, self.because, self.began, self.done, self.failures = workspace, because, began, done, failures

    @classmethod
    def begin(cls, workspace: Workspace, because: str) -> Round:
        """A new round."""
        begun = cls(workspace, because, time.time(), {}, 0)
        begun.save()
        return begun

    @classmethod
    def open(cls, workspace: Workspace) -> Round | None:
        """The round that was cut short, if one was; one whose file is damaged is begun anew."""
        try:
            kept = json_module.loads((workspace.runs / "watch.json").read_bytes())
            return cls(workspace, kept["because"], kept["began"], kept["done"], kept["failures"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def save(self) -> None:
        """Writes what is done."""
        kept = {"because": self.because, "began": self.began, "done": self.done, "failures": self.failures}
        partial = self.workspace.runs / "watch.json.tmp"
        partial.write_text(json_module.dumps(kept))
        partial.replace(self.workspace.runs / "watch.json")

    def finish(self, step: str, result: Any) -> None:
        """A step is done."""
        self.done[step] = result
        self.save()

    def end(self, told: dict[str, Any]) -> None:
        """The round is over: a line of `runs/watch.jsonl`."""
        line = {"because": self.because, "began": self.began, "ended": time.time(), **told}
        with (self.workspace.runs / "watch.jsonl").open("a") as file:
            file.write(json_module.dumps(line) + "\n")
        (self.workspace.runs / "watch.json").unlink(missing_ok=True)


def reason(workspace: Workspace) -> str | None:
    """Why to learn anew now; None: there is none yet."""
    limits = workspace.settings.watch
    live, new = _live(workspace), _new_events(workspace)
    if _on_trial(workspace):
        return None
    if live is None:
        return "there is no bundle yet" if new else None
    if new >= limits.new_events:
        return f"{new:,} events came since the live bundle learned"
    age = (time.time() - _made(live)) / DAY
    if limits.days and new and age >= limits.days:
        return f"the live bundle is {age:.1f} days old and {new:,} events came since"
    return None


@contextmanager
def only_one(workspace: Workspace) -> Iterator[None]:
    """Holds the workspace against a second watch.

    Raises:
        InputError: another one is at work.
    """
    workspace.runs.mkdir(parents=True, exist_ok=True)
    with (workspace.runs / "watch.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"Another `tastemaker watch` is at work on {workspace.path}; one at a time is enough.") from None
        yield


def _steps(workspace: Workspace, begun: Round, overrides: tuple[str, ...]) -> dict[str, Any]:
    limits, words = workspace.settings.watch, [part for text in overrides for part in ("--set", text)]
    if "train" not in begun.done:
        again = ["--resume"] if not begun.failures and _unfinished(workspace, begun.began) else []
        hold = begun.done.get("hold", _held(workspace))
        begun.finish("hold", hold)
        begun.finish("train", _verb(workspace, "train", *words, "--hold", str(hold), *again)["version"])
    version = begun.done["train"]
    if limits.evaluate and "evaluate" not in begun.done:
        begun.finish("evaluate", _verb(workspace, "evaluate", *words) and True)
    if limits.compress and "compress" not in begun.done:
        begun.finish("compress", _verb(workspace, "compress", "--bundle", version, *words)["version"])
    version = begun.done.get("compress") or version
    if not limits.release or _live_version(workspace) == version:
        return {"state": "released" if _live_version(workspace) == version else "candidate", "version": version,
                "words": f"{version} is made, because {begun.because}."}  # fmt: skip
    try:
        done = _verb(workspace, "release", version, "--why", f"watch: {begun.because}", "--who", "watch", *words)
    except TastemakerError as error:
        if "was not released" not in str(error):
            raise
        return {"state": "refused", "version": version, "words": str(error)}
    if done.get("trial"):
        return {"state": "trial", "version": version, "words": f"{version} is on trial, because {begun.because}."}
    return {"state": "released", "version": version, "words": f"{version} is live, because {begun.because}."}


def _verb(workspace: Workspace, verb: str, *words: str) -> dict[str, Any]:
    """Runs a verb in a process of its own, so that its memory is given back; gives what it says as JSON."""
    positional = [word for word in words[:1] if not word.startswith("--")]
    command = [sys.executable, "-m", "tastemaker", verb, str(workspace.path), *positional, *words[len(positional) :], "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=_end_with_parent)
    if done.returncode:
        raise TastemakerError(
            done.stderr.strip().removeprefix("error: ")[-1_000:] or f"`tastemaker {verb}` ended with {done.returncode}."
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(json_module.loads(lines[-1])) if lines else {}


def _end_with_parent() -> None:
    """A killed watch takes its step with it, so that the next one does not train beside it (Linux; elsewhere the step goes on)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _unfinished(workspace: Workspace, since: float) -> bool:
    """Whether a training that began since then was cut short."""
    from tastemaker.training.runs import unfinished

    try:
        return unfinished(workspace.runs).began >= since
    except InputError:
        return False


def _held(workspace: Workspace) -> int:
    """How many of the journal's last events are left out of the training."""
    if _live(workspace) is None:
        return 0
    return math.floor(min(workspace.settings.watch.hold * _new_events(workspace), 2 * workspace.settings.release.questions))


def _on_trial(workspace: Workspace) -> str | None:
    from tastemaker.bundle.registry import Registry

    rollout = Registry(workspace.bundles).stages().rollout
    return None if rollout is None else rollout.version


def _waiting(workspace: Workspace) -> str:
    if version := _on_trial(workspace):
        return f"{version} is on trial"
    return f"{_new_events(workspace):,} events came since the live bundle learned, {workspace.settings.watch.new_events:,} are waited for"


def _new_events(workspace: Workspace) -> int:
    from tastemaker.journal.append import Journal

    journal = Journal.open(workspace.journal)
    try:
        position = journal.position()
    finally:
        journal.close()
    live = _live(workspace)
    return position - (live.data.position if live is not None else 0)


def _live_version(workspace: Workspace) -> str | None:
    from tastemaker.bundle.registry import Registry

    return Registry(workspace.bundles).stages().live


def _live(workspace: Workspace) -> Manifest | None:
    from tastemaker.bundle.registry import Registry
    from tastemaker.bundle.verify import read_manifest

    version = _live_version(workspace)
    return None if version is None else read_manifest(Registry(workspace.bundles).folder(version))


def _made(live: Manifest) -> float:
    from calendar import timegm

    return float(timegm(time.strptime(live.created, "%Y-%m-%dT%H:%M:%SZ")))
