"""Loops, seeds, optimisers, checkpoints, export. Floor 3, learning wing."""

from __future__ import annotations

import os

# OpenMP's threads wait for each other by spinning. Beside one busy neighbour on a small machine that made a training step 3 to 5 times slower
# and burnt 4 times its CPU time; waiting asleep costs nothing measurable on a quiet one. Read once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
