"""A few bytes in a mapped file, other ones after every change of the journal: whoever only wants to know whether something happened need not ask the database.

They are written after a change is durable and before its caller is told, so what was acknowledged is seen at once. A process that dies between the two has told nobody;
that nothing stays unseen for ever is the reader's part, who asks the database now and then all the same.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

BYTES = 16


class Stamp:
    """The bytes of one journal.

    Args:
        path: of the file, which is made where it is missing.

    Raises:
        OSError: it can't be made.
    """

    def __init__(self, path: Path) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            if os.fstat(file).st_size < BYTES:
                os.pwrite(
                    file, os.urandom(BYTES), 0
                )  # written, not only made longer: a page without a block on a full disk ends the process that writes it
            self._map = mmap.mmap(file, BYTES)
        finally:
            os.close(file)

    def read(self) -> bytes:
        """Other bytes than before if anything was changed since."""
        return self._map[:BYTES]

    def change(self) -> None:
        """Something was changed. Random bytes: of two processes that write at once none may restore what a reader has seen."""
        self._map[:BYTES] = os.urandom(BYTES)

    def close(self) -> None:
        """Lets go of the file."""
        self._map.close()
