"""What stands out in a profile, in sentences."""

from __future__ import annotations

from tastemaker.data.profile import Profile
from tastemaker.data.profile_catalogue import NO_LETTERS, CatalogueFigures


def findings(profile: Profile) -> list[str]:
    """A sentence for each thing that a reader should know first."""
    items, users = profile.items, profile.users
    told = [
        f"The busiest 1 % of the items take {items.top_1:.0%} of the events, the busiest 10 % take {items.top_10:.0%}.",
        f"Half of the users have at most {number(users.median, 'event')}"
        + (f"; {users.single:.0%} have one only." if users.single else "."),
    ]
    return told + _about_times(profile) + _about_people(profile) + (_about_catalogue(profile.catalogue) if profile.catalogue else
        ["There is no catalogue: what an item is can't be read, and new items can't be understood."])  # fmt: skip


def _about_times(profile: Profile) -> list[str]:
    told = []
    if profile.clock.kind == "order":
        told.append("Timestamps give an order only: evaluation leaves the last event out instead of cutting in time.")
    if profile.clock.kind == "none":
        told.append("Events have no time: evaluation leaves the last event out instead of cutting in time.")
    if profile.clock.kind == "days":
        told.append("Only the day of the events is known, not the hour.")
    untimed = profile.events - profile.clock.timed
    if profile.clock.timed and untimed:
        told.append(f"{untimed:,} events have no usable time.")
    if profile.timeline and profile.timeline.longest_gaps:
        gap = profile.timeline.longest_gaps[0]
        told.append(f"The longest gap without events is {number(gap.days, 'day')} long: {gap.first} to {gap.last}.")
    if profile.newness and len(profile.newness.periods) > 1:
        later = profile.newness.periods[1:]
        events = sum(one.events for one in later)
        new_item, new_user = sum(one.new_item for one in later), sum(one.new_user for one in later)
        told.append(
            f"After the first period {new_item / events:.0%} of the events meet a new item, {new_user / events:.0%} come from a new user."
        )
    return told


def _about_people(profile: Profile) -> list[str]:
    told = []
    if profile.repeats.repeats:
        told.append(f"{profile.repeats.repeats / profile.events:.0%} of the events repeat a user-item pair.")
    if profile.repeats.copies:
        told.append(f"{profile.repeats.copies:,} events are exact copies of another: same user, item, type and time.")
    if profile.suspects and profile.suspects.n:
        told.append(
            f"{profile.suspects.n:,} users look like machines; they make {profile.suspects.events / profile.events:.1%} of the events."
        )
    told += [f"No event has the label {one.name!r}." for one in profile.labels if not one.events]
    if profile.labels and profile.positive:
        told.append(f"{profile.positive / profile.events:.0%} of the events are positive ones.")
    return told


def _about_catalogue(found: CatalogueFigures) -> list[str]:
    told = []
    if found.no_text:
        told.append(f"{found.no_text:,} items have neither title nor text nor categories.")
    if found.missing["text"]:
        told.append(f"{found.missing['text'] / found.items:.0%} of the items have no text beyond their title.")
    if found.unmet:
        told.append(f"{found.unmet / found.items:.0%} of the catalogue has no event yet.")
    if found.unknown_items:
        told.append(f"{found.unknown_items:,} items with {found.unknown_events:,} events are not in the catalogue.")
    written = [one for one in found.scripts if one.name != NO_LETTERS and one.items]
    if len(written) > 1:
        shares = ", ".join(f"{one.name} {one.items / found.items:.0%}" for one in written[:4])
        told.append(f"Texts are written in {len(written)} scripts: {shares}.")
    if found.same_titles.titles:
        told.append(f"{found.same_titles.items:,} items share their title with another item.")
    return told


def number(count: float, what: str) -> str:
    """A count and its noun: 1 day, 2 days."""
    return f"{count:,.0f} {what}{'' if count == 1 else 's'}"
