"""The part of the report about the ranker: what it brings over retrieval and fusion, and whether its chances hold."""

from __future__ import annotations

from typing import Any

from tastemaker.evaluation import page
from tastemaker.evaluation.plots import reliability_plot
from tastemaker.evaluation.recommenders import UNRANKED

GAINS = "gain of ours in NDCG@10"


def ranker_part(report: dict[str, Any]) -> str:
    """HTML; empty where there is no ranker."""
    ranker = report.get("ranker")
    if not ranker:
        return ""
    text = "<h2>The ranker: what it brings over retrieval and fusion</h2>" + "".join(
        f"<p>{page.text(note)}</p>" for note in ranker["notes"]
    )
    gain = report[GAINS].get(UNRANKED)
    if gain is not None:
        text += (
            f"<p><b>On the questions of this report: NDCG@10 {gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]</b> beside the same "
            "candidates in the order of the fusion (95 % interval, paired). It reads what had happened up to each question's moment, as the service does.</p>"
        )
    elif not ranker["gate"]["passed"]:
        text += "<p>The lists of this report are those of retrieval and fusion.</p>"
    if ranker["heads"]:
        text += "<h2>Do its chances hold?</h2>" + _heads(ranker["heads"])
    return text


def _heads(heads: dict[str, Any]) -> str:
    lines = [
        [
            name,
            f"{one['rows']:,}",
            f"{one['positives']:,}",
            f"{one['ratio']:.3f}",
            f"{one['auc']:.4f}",
            f"{one['loss']:.4f}",
            f"{one['base']:.4f}",
        ]
        for name, one in heads.items()
    ]
    text = page.table(["label", "rows", "bear it", "calibration ratio", "AUC", "log-loss", "log-loss of the mean"], lines)
    plots = "".join(
        reliability_plot(one["said"], one["happened"], one["size"], f"reliability of {name}") for name, one in heads.items()
    )
    return (
        f"{text}<p class=soft>Held-back questions that the ranker has not learned from, of users that the calibration had not seen. Ratio: sum of "
        f"the chances over the number of events; 1 is right.</p><div class=pair>{plots}</div>"
    )
