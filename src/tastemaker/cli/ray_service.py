"""What a RayService of KubeRay imports: `tastemaker.cli.ray_service:app`. `tastemaker serve --ray` comes to a cluster from outside; here the cluster begins by itself.

The wiring is at the roof because a replica answers with the console's pages, which serving may not know.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tastemaker.cli.workspace import open_workspace
from tastemaker.schema.errors import InputError

ARGUMENTS = {"workspace"}


def app(arguments: dict[str, str]) -> Any:
    """The application of a workspace that lies under the same path on every machine; its settings are those of the workspace and of `TASTEMAKER_…` variables.

    Args:
        arguments: `args` of the Serve configuration: `workspace`, a path.

    Raises:
        InputError: other arguments, no workspace, or one without keys. BundleError: nothing is live.
    """
    from tastemaker.bundle.registry import Registry
    from tastemaker.console.app import application as make
    from tastemaker.serving._ray import application
    from tastemaker.serving.admission import share
    from tastemaker.serving.auth import KEYS_FILE, KeyFile, check_exposure
    from tastemaker.serving.house import House
    from tastemaker.serving.plan import plan_of

    if set(arguments) != ARGUMENTS:
        raise InputError(f"The application was given {sorted(arguments)}; expected args: {{workspace: PATH}}.")
    directory = Path(arguments["workspace"])
    settings = open_workspace(directory).settings
    House(settings.lists)
    keys = KeyFile(directory / KEYS_FILE).read()
    check_exposure("0.0.0.0", keys, directory)
    folder, own = Registry(directory / "bundles").live(), settings.cluster
    slots = 2 * max(own.replicas_min, own.replicas_max)  # while replicas take each other's places there are more of them
    (directory / "runs").mkdir(exist_ok=True)
    counters = share(directory / "runs" / f"admission-{os.getpid()}", slots)
    reads = (folder / "text_encoder" / "model.onnx").is_file()
    return application(plan_of(directory, settings, None, counters, slots, bool(keys)), make, own, reads)
