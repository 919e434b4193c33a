"""`reports/features.html`: which columns a ranker reads, how they are scaled, and why the others were dropped."""

from __future__ import annotations

from pathlib import Path

from tastemaker.evaluation import page
from tastemaker.features.preparation import Verdict
from tastemaker.training.features import TrainedFeatures
from tastemaker.training.ranker_rows import LABEL, QUESTION


def write_feature_page(trained: TrainedFeatures, folder: Path) -> Path:
    """Writes the page and gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    asked, verdicts = trained.rows.asked, trained.preparation.verdicts
    kept = [verdict for verdict in verdicts if verdict.kept]
    figures = [("rows", f"{asked.height:,}"), ("questions", f"{asked[QUESTION].n_unique():,}")]
    figures += [
        ("share of positive rows", f"{float(asked[LABEL].to_numpy().mean()) if asked.height else 0.0:.2%}"),
        ("columns kept", f"{len(kept)} of {len(verdicts)}"),
    ]
    body = page.cards(figures)
    body += "<h2>Columns that are kept, the most important first</h2>" + _table(sorted(kept, key=_importance, reverse=True))
    body += "<h2>Columns that are dropped</h2>" + _table([verdict for verdict in verdicts if not verdict.kept])
    explained = [(name, f"{share:.1%}") for name, share in zip(trained.text.names, trained.text.explained, strict=True)]
    body += "<h2>Text vectors, reduced</h2>" + page.table(["column", "share of the variance"], explained)
    body += f"<p class=soft>Together {sum(trained.text.explained):.1%} of the variance of {len(trained.text.mean)} dimensions.</p>"
    path = folder / "features.html"
    words = "Fitted on the rows of a ranker: what was offered, what was taken, and what was known just before"
    path.write_text(page.page("Features", words, body), encoding="utf-8")
    return path


def _table(verdicts: list[Verdict]) -> str:
    rows = [[one.name, one.scaling, _number(one.mutual_information), _number(one.importance), one.reason] for one in verdicts]
    return page.table(["column", "scaling", "mutual information, nats", "importance, AUC", "why"], rows)


def _importance(verdict: Verdict) -> float:
    return verdict.importance if verdict.importance is not None else 0.0


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
