"""The command line: one thin file per verb, loaded when it is called, so that `--help` answers at once."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from tastemaker import __version__
from tastemaker.schema.errors import MissingExtraError, TastemakerError

# verb: (file, function, the line that `tastemaker --help` shows), in the order of a life
VERBS: dict[str, tuple[str, str, str]] = {
    "demo": ("demo", "run", "The whole life on MovieLens 100k, then serve."),
    "init": ("init", "run", "Make a workspace with a commented tastemaker.toml."),
    "import": ("import_", "run", "Validate files and append them to the journal."),
    "profile": ("profile", "run", "What the data looks like: a page, and the baseline for drift."),
    "stage": ("stage", "run", "Histories, split and features of a log that no memory holds."),
    "train": ("train", "run", "Journal to candidate bundle."),
    "runs": ("runs", "run", "List the trainings and compare two of them."),
    "evaluate": ("evaluate", "run", "Judge a bundle against strong baselines."),
    "compress": ("compress", "run", "Make a bundle smaller and faster within a quality budget."),
    "tune": ("tune", "run", "Search the numbers of the next run."),
    "release": ("release", "release", "Gate a bundle, then make it live."),
    "rollback": ("release", "rollback", "Go back to the previous live bundle."),
    "watch": ("watch", "run", "Learn anew and release when it is time."),
    "serve": ("serve", "run", "Answer over HTTP, console at /."),
    "consume": ("consume", "run", "Read a log of events (Redis, Kafka) into the journal."),
    "health": ("health", "run", "Replay live features from the journal; alert rules for Prometheus."),
    "erase": ("erase", "run", "Erase a person; tell what still knows them."),
    "keys": ("keys", "verbs", "API keys: add, list, revoke."),
    "rebuild": ("rebuild", "run", "Rebuild what answers know from the journal, and compare."),
    "recommend": ("recommend", "run", "Lists for many users, to a Parquet file."),
    "plan": ("plan", "run", "How many machines a load takes, and what they cost."),
    "doctor": ("doctor", "run", "What this machine can do and what is missing."),
}
# Modules that only an extra installs, by the extra that brings them.
EXTRA_OF = {
    "torch": "train",
    "transformers": "train",
    "sentence_transformers": "train",
    "onnx": "train",
    "onnxscript": "train",
    "tensorboard": "train",
    "implicit": "train",
    "sklearn": "train",
    "optuna": "tune",
    "ray": "ray",
    "redis": "redis",
    "aiokafka": "kafka",
    "opentelemetry": "traces",
}


def build(called: str | None = None) -> typer.Typer:
    """The command line with all verbs, of which only the called one's file is loaded."""
    app = typer.Typer(
        name="tastemaker",
        help="From a catalogue and an event log to a recommender you can stand behind.",
        add_completion=False,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for verb, (file, function, summary) in VERBS.items():
        run = getattr(importlib.import_module(f"tastemaker.cli.{file}"), function) if verb == called else _not_called
        if isinstance(run, typer.Typer):
            app.add_typer(run, name=verb)
            continue
        app.command(name=verb, help=None if verb == called else summary)(run)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tastemaker {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Options that come before the verb."""


def _not_called() -> None:
    """Stands in the list of verbs for those that were not called."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one verb. Exit codes: 0 ok, 1 failed, 2 bad usage or bad input."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small products: a second thread waits longer than it works
    sys.exit(call(list(sys.argv[1:] if arguments is None else arguments)))


def call(arguments: Sequence[str]) -> int:
    """Runs one verb and gives its exit code; errors made on purpose are printed as their text, without a traceback."""
    verb = next((word for word in arguments if not word.startswith("-")), None)
    try:
        build(verb if verb in VERBS else None)(args=list(arguments), prog_name="tastemaker")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        _complain("Stopped.")
        return 130
    except TastemakerError as error:
        _complain(str(error))
        return error.exit_code
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        missing = MissingExtraError(extra, f"`tastemaker {arguments[0] if arguments else ''}`")
        _complain(f"{missing} ({error})")
        return missing.exit_code
    return 0


def _complain(text: str) -> None:
    Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {_escape(text)}", soft_wrap=True)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()
