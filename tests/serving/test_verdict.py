"""What a trial says: each rule ends what it is for, equal bundles pass, and what belongs to another stage is left out."""

from __future__ import annotations

import numpy as np
import pytest

from tastemaker.bundle.rollout import Rollout
from tastemaker.evaluation.experiment import variant_of
from tastemaker.journal.trial import Tried
from tastemaker.schema.events import Event
from tastemaker.schema.settings import ReleaseSettings
from tastemaker.serving.verdict import Tally, Verdict, judge

SHADOW = Rollout(version="b", experiment="x", limits=ReleaseSettings(shadow=200, canary=(0.1,)), began=0.0)
CANARY = Rollout(version="b", experiment="x", limits=ReleaseSettings(canary=(0.2, 0.5), step_lists=400), step=0, began=0.0)


def shadow(lists: int = 200, **changed: object) -> Verdict:
    tally, random = Tally(SHADOW), np.random.default_rng(0)
    for number in range(lists):
        cpu = 0.001 * random.lognormal(sigma=0.2, size=2)
        line = {"cpu": cpu[0], "live_cpu": cpu[1], "overlap": 0.7, **changed}
        tally.note(Tried(experiment="x", step=-1, variant="shadow", request_id=str(number), user_id="u", **line))  # type: ignore[arg-type]
    return judge(tally, 1e6)


def canary(
    now: float = 1e6,
    lists: int = 2_000,
    taken: float = 0.3,
    fewer: float = 1.0,
    lost: float = 0.0,
    seed: int = 0,
    **changed: object,
) -> Verdict:
    """Lists of people dealt by the hash. `fewer`: of what is taken in the canary. `lost`: share of the canary's users who never came."""
    tally, random = Tally(CANARY, ("view",)), np.random.default_rng(seed)
    people = [(f"u{n}", variant_of(f"u{n}", "x", CANARY.dealt)) for n in range(1_500)]
    people = [(user, variant) for user, variant in people if variant != "live" and (variant != "canary" or random.random() >= lost)]
    for number in range(lists):
        user, variant = people[int(random.integers(len(people)))]
        line = {"seconds": 0.01 * random.lognormal(sigma=0.2), "cpu": 0.005 * random.lognormal(sigma=0.2)}
        line |= changed if variant == "canary" else {}  # type: ignore[arg-type]
        tally.note(Tried(experiment="x", step=0, variant=variant, request_id=str(number), user_id=user, **line))  # type: ignore[arg-type]
        if random.random() < taken * (fewer if variant == "canary" else 1.0):
            for kind in ("view", "click", "click"):
                tally.event(Event(user_id=user, item_id="i", timestamp=0.0, event_type=kind, request_id=str(number)))
    return judge(tally, now)


@pytest.mark.parametrize("seed", range(5))
def test_an_equal_bundle_passes(seed: int) -> None:
    assert canary(seed=seed).state == "pass"
    assert canary(seed=seed, fewer=1.3).state == "pass", "a better one"


def test_each_rule_of_the_canary_ends_what_it_is_for() -> None:
    for words, found in (
        ("users, ", canary(lost=0.4)),
        ("lists failed", canary(error="KeyError")),
        ("lists lacked", canary(level=1)),
        ("of the processor", canary(cpu=0.05)),
        ("ms, ", canary(seconds=0.1)),
        ("taken lists change", canary(fewer=0.4)),
    ):
        assert found.state == "stop", words
        assert any(words in one for one in found.against), (words, found.against)
        assert len(found.against) == 1, found.against


def test_a_step_lasts_as_long_and_as_many_lists_as_it_should() -> None:
    assert canary(now=CANARY.limits.step_seconds - 1).state == "wait"
    assert canary(lists=300).state == "wait"


def test_a_small_loss_of_few_lists_decides_nothing() -> None:
    assert canary(fewer=0.97).state == "pass"


def test_the_shadow_passes_and_ends() -> None:
    assert shadow().state == "pass"
    assert shadow(199).state == "wait"
    assert shadow(overlap=1.0).state == "pass", "an equal bundle"
    for words, found in (
        ("of 200 lists failed", shadow(error="KeyError")),
        ("top 10", shadow(overlap=0.1)),
        ("lists lacked", shadow(level=1)),
        ("of the processor", shadow(cpu=0.01)),
    ):
        assert found.state == "stop", words
        assert any(words in one for one in found.against), (words, found.against)


def test_one_failure_ends_a_shadow() -> None:
    tally = Tally(SHADOW)
    tally.note(Tried(experiment="x", step=-1, variant="shadow", request_id="1", error="KeyError"))
    assert judge(tally, 0.0).state == "stop"


def test_a_worker_that_gives_up_ends_a_trial_and_other_stages_do_not_count() -> None:
    for word in ("load", "slow"):
        tally = Tally(CANARY)
        tally.note(Tried(experiment="other", step=0, variant="canary", error=word))
        tally.note(Tried(experiment="x", step=1, variant="canary", error=word))
        assert judge(tally, 0.0).state == "wait"
        tally.note(Tried(experiment="x", step=0, variant="canary", error=word))
        assert judge(tally, 0.0).state == "stop"


def test_an_event_counts_once_and_only_of_whom_the_list_was_for() -> None:
    tally = Tally(CANARY)
    tally.note(Tried(experiment="x", step=0, variant="canary", request_id="1", user_id="u"))
    for user in ("stranger", "u", "u"):
        tally.event(Event(user_id=user, item_id="i", timestamp=0.0, event_type="click", request_id="1"))
    assert tally.new.taken.tolist() == [1.0]
