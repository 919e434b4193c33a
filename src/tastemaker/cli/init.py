"""`tastemaker init`: a workspace with a commented `tastemaker.toml`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from tastemaker.cli.workspace import SETTINGS_FILE
from tastemaker.schema.errors import InputError
from tastemaker.schema.settings_file import describe

# What a recipe changes of the defaults, and why.
RECIPES: dict[str, dict[str, str]] = {
    "shop": {
        "data.positive": '["purchase", "cart", "view", "rating>=4"]',
        "text.template": '"{title}. {categories}. {text}"',
    },
    "news": {"data.positive": '["click", "read"]', "data.test_share": "0.1", "text.template": '"{title}. {text}"'},
    "music": {"data.positive": '["listen", "like"]', "text.template": '"{title}. {categories}"'},
    "friends": {"data.positive": '["follow", "like", "share", "comment"]'},
}


def run(
    directory: Annotated[Path, typer.Argument(help="The folder to make.")],
    recipe: Annotated[str | None, typer.Option(help=f"Start from {', '.join(RECIPES)}.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a workspace with a commented tastemaker.toml."""
    path = create(directory, recipe)
    if json:
        typer.echo(json_module.dumps({"workspace": str(directory), "settings": str(path), "recipe": recipe}))
        return
    typer.echo(f"Made {path}")
    typer.echo(f"Next: tastemaker import {directory} --events YOUR_EVENTS.csv --items YOUR_ITEMS.csv")


def create(directory: Path, recipe: str | None = None) -> Path:
    """Makes the workspace and gives the path of its settings file.

    Raises:
        InputError: an unknown recipe, or a workspace is already there.
    """
    if recipe is not None and recipe not in RECIPES:
        raise InputError(f"There is no recipe {recipe!r}. Choose one of: {', '.join(RECIPES)}")
    path = directory / SETTINGS_FILE
    if path.exists():
        raise InputError(f"{path} is already there and was left as it is. Edit it, or choose another folder.")
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; a workspace is a folder. Choose another name.")
    for folder in ("journal", "bundles", "reports", "runs"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    path.write_text(describe(RECIPES[recipe] if recipe else {}), encoding="utf-8")
    return path
