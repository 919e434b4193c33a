"""What the dashboards ask Prometheus for."""

from __future__ import annotations

import json
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "grafana"


def queries(board: str = "*") -> dict[str, str]:
    """Each expression, with the panel that it is of."""
    return {
        target["expr"]: f"{path.name}: {panel['title']}"
        for path in sorted(FOLDER.glob(f"{board}.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    }


def names(expression: str) -> set[str]:
    """Names of the series that an expression reads."""
    return set(re.findall(r"tastemaker_[a-z_]+", expression))
