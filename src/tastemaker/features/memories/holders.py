"""Memories that need no content of their own, as another one's tells what they ask for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tastemaker.features.memories.memory import Memory
from tastemaker.features.memories.window import Window


def holders(memories: Iterable[Memory[Any]]) -> dict[Memory[Any], Memory[Any]]:
    """For each memory the one whose content it reads: its own, or among windows over the same events that of the longest."""
    every = list(memories)
    longest: dict[Any, Window] = {}
    for memory in every:
        if isinstance(memory, Window):
            question = (memory.key, memory.which)
            longest[question] = max(longest.get(question, memory), memory, key=lambda one: one.span)
    return {memory: longest[memory.key, memory.which] if isinstance(memory, Window) else memory for memory in every}
