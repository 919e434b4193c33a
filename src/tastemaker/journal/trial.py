"""What a bundle on trial did, list by list, in all processes of a service: by it the release goes on or is ended, after a restart as before.

Kept like `journal.served`: one file a day and process, JSON lines, never waited for.
"""

from __future__ import annotations

import msgspec


class Tried(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One list of a trial.

    Attributes:
        experiment, step: of the release (`bundle.rollout`). variant: `canary`, `control` or `shadow`.
        request_id, user_id: of the list; empty where it was none. time: epoch seconds.
        seconds: that the list took; 0 in the shadow, where nobody waits. cpu: seconds of the processor that it took.
        level: rung of the ladder that it was answered from. error: the kind of exception; the live bundle answered instead. `load`: the bundle could
            not be opened, `slow`: a worker gave it up at once.
        live_cpu, live_level: in the shadow, of the live bundle's list. overlap: in the shadow, share of the live list's top 10 that is in the other's.
    """

    experiment: str
    step: int
    variant: str
    request_id: str = ""
    user_id: str = ""
    time: float = 0.0
    seconds: float = 0.0
    cpu: float = 0.0
    level: int = 0
    error: str = ""
    live_cpu: float = 0.0
    live_level: int = 0
    overlap: float | None = None
