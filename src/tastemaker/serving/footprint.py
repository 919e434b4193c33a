"""How much memory a process keeps that answers with a bundle: measured in a process of its own, as memory that was once asked for is seldom given back.

    python -m tastemaker.serving.footprint FOLDER...

prints a JSON list of bytes (resident set after some lists), one a bundle.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tastemaker.schema.errors import BundleError

LISTS = 30
SECONDS = 600.0


def footprints(folders: Sequence[Path]) -> list[int]:
    """Bytes that a process keeps with each of some bundles; all start from one process in which nothing is loaded but the program.

    Raises:
        BundleError: a bundle can't be loaded or asked in SECONDS, or this system can't tell.
    """
    command = [sys.executable, "-m", "tastemaker.serving.footprint", *map(str, folders)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        if not done.returncode:
            return msgspec.json.decode(done.stdout, type=list[int])
        why = (done.stderr.strip().splitlines() or ["its process was ended"])[-1]
    except subprocess.TimeoutExpired as error:
        why = str(error)
    raise BundleError(f"The memory of {', '.join(folder.name for folder in folders)} could not be measured ({why}).")


def _child(folder: Path) -> int:
    """Bytes of this process once it has answered with a bundle."""
    from tastemaker.serving.wire import Live

    live = Live(folder, check=False)
    for user in list(live.brain.users)[:LISTS]:
        with contextlib.suppress(Exception):  # whether it can answer is asked elsewhere; here, what it keeps
            live.best([live.query(live.state.history(user))], 10)
    gc.collect()
    return resident()


def resident() -> int:
    """Bytes of memory that this process keeps now (Linux), or kept at most (elsewhere)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


def _main(folders: Sequence[Path]) -> None:
    import tastemaker.serving.wire  # noqa: F401  before the fork, so that every child has it and none has more

    found = []
    for folder in folders:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writing, str(_child(folder)).encode())
            except Exception as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as file:
            text = file.read()
        os.waitpid(child, 0)
        found.append(text)
    if not all(found):
        sys.exit(1)
    print(f"[{','.join(found)}]")


if __name__ == "__main__":
    _main([Path(word) for word in sys.argv[1:]])
