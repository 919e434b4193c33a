"""How much each event of the log counts when a model learns from it. The default settings weigh all alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tastemaker.data.sequences import Sequences
from tastemaker.data.times import ORDER_BELOW
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import SamplingSettings

DAY = 86_400.0


def event_weights(sequences: Sequences, chosen: SamplingSettings) -> FloatArray | None:
    """The weight of each event as something to be predicted, float32 [E], mean one; None where all weigh the same.

    weight = type · value · (events of the user) ** -user_power · (events of the item) ** -item_power · 0.5 ** (age / half_life)

    where value is 1, 1 + s·v or 1 + s·log(1 + v) (the confidence of Hu, Koren and Volinsky 2008, with s = `value_scale`).

    Args:
        sequences: the training log; ages are counted from its latest event.
        chosen: the section `sampling`.

    Raises:
        SettingsError: a setting that this log can't obey; the message says which and why.
    """
    weight = _of_type(sequences, chosen) * _of_value(sequences, chosen) * _of_age(sequences, chosen)
    if chosen.user_power:
        lengths = sequences.lengths()
        weight = weight * np.repeat(np.maximum(lengths, 1.0) ** -chosen.user_power, lengths)
    if chosen.item_power:
        weight = weight * np.maximum(sequences.counts(), 1.0)[sequences.items] ** -chosen.item_power
    if len(weight) == 0 or bool((weight == weight[0]).all() and weight[0] > 0):
        return None
    mean = float(weight.mean())
    if not mean > 0:
        raise SettingsError(
            "The settings in [sampling] give every event of this log the weight 0. Give at least one event type a weight."
        )
    return (weight / mean).astype(np.float32)


def window_chance(items: NDArray[np.integer], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Chance of each window when first a target item is drawn, all alike, and then one of its appearances, [W].

    Class-balanced sampling (Kang et al. 2020, ICLR, "Decoupling representation and classifier for long-tailed recognition").

    Args:
        items: the targets of all windows, one window behind the other, [T].
        lengths: targets of each window, at least one, [W].
    """
    counts = np.bincount(items)
    each = 1.0 / (np.count_nonzero(counts) * counts[items])
    return np.add.reduceat(each, np.cumsum(lengths) - lengths)


def _of_type(sequences: Sequences, chosen: SamplingSettings) -> NDArray[np.float64]:
    unknown = sorted(set(chosen.weights) - set(sequences.type_names))
    if unknown:
        raise SettingsError(
            f"sampling.weights names {', '.join(unknown)}, but the log's event types are: {', '.join(sequences.type_names)}. "
            "Name one of these, or leave the line out."
        )
    wrong = {name: value for name, value in chosen.weights.items() if not 0 <= value < np.inf}
    if wrong:
        raise SettingsError(f"sampling.weights holds {wrong}; expected numbers from 0 up.")
    by_type = np.array([chosen.weights.get(name, 1.0) for name in sequences.type_names] or [1.0])
    found: NDArray[np.float64] = by_type[sequences.event_types]
    return found


def _of_value(sequences: Sequences, chosen: SamplingSettings) -> NDArray[np.float64]:
    if chosen.value not in ("none", "linear", "log"):
        raise SettingsError(f"sampling.value is {chosen.value!r}; expected none, linear or log.")
    if chosen.value == "none" or sequences.values is None:
        return np.ones(len(sequences.items))
    value = np.maximum(np.nan_to_num(sequences.values, nan=0.0, posinf=0.0), 0.0)
    return 1.0 + chosen.value_scale * (value if chosen.value == "linear" else np.log1p(value))


def _of_age(sequences: Sequences, chosen: SamplingSettings) -> NDArray[np.float64]:
    times = sequences.times
    if chosen.half_life < 0:
        raise SettingsError(f"sampling.half_life is {chosen.half_life}; expected days, or 0 for no decay.")
    if not chosen.half_life or len(times) == 0:
        return np.ones(len(times))
    if not np.isfinite(times).all() or times.max() < ORDER_BELOW:
        raise SettingsError(
            f"sampling.half_life is {chosen.half_life} days, but this log's times are missing or only an order, so that no event has an age. Set it to 0."
        )
    found: NDArray[np.float64] = 0.5 ** ((times.max() - times) / (chosen.half_life * DAY))
    return found
