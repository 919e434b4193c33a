"""Draws a profile: `reports/profile.html` for people, `profile.json` and `baseline.json` for programs. It measures nothing itself."""

from __future__ import annotations

import html
from pathlib import Path

import msgspec

from tastemaker.data.numbers import Numbers
from tastemaker.data.profile import Profile
from tastemaker.data.profile_catalogue import NO_LETTERS, CatalogueFigures
from tastemaker.data.profile_features import FeatureProfile
from tastemaker.data.profile_findings import findings, number
from tastemaker.data.profile_people import Repeats, Suspects, Visits
from tastemaker.data.profile_times import Newness, Timeline
from tastemaker.data.tallies import Tail
from tastemaker.evaluation import page, plots
from tastemaker.schema.baseline import Baseline

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
STEP_WORDS = {1: "day", 7: "week", 30: "30 days", 91: "91 days", 365: "365 days", 3_650: "10 years", 36_500: "100 years"}
TOP_CATEGORIES = 20
ONE = "1 event"


def write_profile(profile: Profile, baseline: Baseline, folder: Path) -> Path:
    """Writes `profile.json`, `baseline.json` and `profile.html`; gives the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("profile.json", profile), ("baseline.json", baseline)):
        (folder / name).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1))
    path = folder / "profile.html"
    path.write_text(profile_page(profile), encoding="utf-8")
    return path


def profile_page(profile: Profile) -> str:
    """The whole page."""
    body = _head(profile) + _times(profile) + _tails(profile.users, profile.items)
    body += _newness(profile.newness) if profile.newness else ""
    body += _visits(profile.visits) if profile.visits else ""
    body += _repeats(profile.repeats, profile.events) + (_suspects(profile.suspects) if profile.suspects else "")
    body += _labels(profile) + _value(profile.value)
    body += _catalogue(profile.catalogue) if profile.catalogue else ""
    body += _features(profile.features) if profile.features else ""
    return page.page("What the data looks like", f"A profile of the journal, made {profile.made}. All times are UTC.", body)


def _head(profile: Profile) -> str:
    cards = [("events", f"{profile.events:,}"), ("users", f"{profile.users.n:,}"), ("items with events", f"{profile.items.n:,}")]
    if profile.catalogue:
        cards.append(("items in the catalogue", f"{profile.catalogue.items:,}"))
    if profile.timeline:
        cards.append(("days from the first event to the last", f"{profile.timeline.days:,}"))
    cards.append(("of all user-item pairs were met", _percent(profile.repeats.pairs, profile.users.n * profile.items.n, 3)))
    told = "".join(f"<li>{html.escape(one)}</li>" for one in findings(profile))
    return page.cards(cards) + f"<h2>What stands out</h2><ul>{told}</ul>"


def _times(profile: Profile) -> str:
    line = profile.timeline
    if line is None:
        words = {
            "order": "The timestamps are small numbers: they give an order, not a time.",
            "none": "The events have no timestamps: the order of the log is taken as the order of events.",
        }[profile.clock.kind]
        return f"<h2>Events over time</h2><p>{words} Nothing can be said about days, visits and speed.</p>"
    return _timeline(line) + _hours(line)


def _timeline(line: Timeline) -> str:
    step = STEP_WORDS[line.step]
    text = f"<h2>Events per {step}</h2>"
    text += plots.timeline([(begin, count, empty > 0) for begin, count, empty in line.columns], f"Events per {step}")
    text += f"<p class=soft>{line.days:,} days, the busiest is {line.busiest[0]} with {line.busiest[1]:,} events. "
    if not line.gaps:
        return text + "Every day has events.</p>"
    where = "shaded" if line.step == 1 else "columns are shaded in which at least one day has none"
    text += f"{number(line.empty_days, 'day')} ({line.empty_days / line.days:.1%}) without any event ({where}), in {number(line.gaps, 'gap')}.</p>"
    rows = [[gap.first, gap.last, f"{gap.days:,}"] for gap in line.longest_gaps]
    return text + "<h2>The longest gaps</h2>" + page.table(["first day without events", "last", "days"], rows)


def _hours(line: Timeline) -> str:
    if not line.hours:
        return "<p class=soft>Only the day of the events is known: nothing can be said about hours, visits and minutes.</p>"
    rows = [line.hours[24 * day : 24 * day + 24] for day in range(7)]
    drawn = plots.heat(WEEKDAYS, [str(hour) for hour in range(24)], rows, "Events in each hour of the week", unit=" events")
    return "<h2>Hours of the week (UTC)</h2>" + drawn


def _tails(users: Tail, items: Tail) -> str:
    series = [(name, [(float(r), float(n)) for r, n in tail.ranks]) for name, tail in (("items", items), ("users", users))]
    text = "<h2>Long tails: who and what has most events</h2>" + plots.lines(
        series, "Events by rank, both axes logarithmic", log=True, below="rank, 1 = busiest"
    )
    rows = [
        [
            name, f"{tail.n:,}", f"{tail.mean:,.1f}", f"{tail.median:,.0f}", f"{tail.most:,}",
            f"{tail.single:.1%}", f"{tail.top_1:.1%}", f"{tail.top_10:.1%}", f"{tail.gini:.3f}",
        ]
        for name, tail in (("users", users), ("items", items))
    ]  # fmt: skip
    header = ["", "number", "mean", "median", "most", "with one", "top 1 %", "top 10 %", "Gini"]
    words = (
        "Mean, median and most: events of one of them. With one: share of them with a single event. Top: share of the events that the busiest "
        "take, at least one of them. Gini: 0 if all have equally many events, towards 1 if one has all."
    )
    return text + page.table(header, rows) + f"<p class=soft>{words}</p>"


def _newness(new: Newness) -> str:
    names = [period.begin for period in new.periods]
    series = [
        ("new items", [(float(n), one.new_item / one.events) for n, one in enumerate(new.periods) if one.events]),
        ("new users", [(float(n), one.new_user / one.events) for n, one in enumerate(new.periods) if one.events]),
    ]
    words = (
        f"Share of the events of each period ({STEP_WORDS[new.step]}) whose item, or user, was first seen in that very period. "
        "In the first period everything is new. What is new has no history: it must be understood from its text and its first events."
    )
    return f"<h2>How much is new</h2>{plots.lines(series, 'Share of events with something new', percent=True, names=names)}<p class=soft>{words}</p>"


def _visits(visits: Visits) -> str:
    minutes = f"{visits.gap / 60:g} min"
    cards = [
        (f"visits (a gap of more than {minutes} ends one)", f"{visits.n:,}"),
        ("half of the visits last at most", _duration(visits.seconds_median)),
        ("nine of ten last at most", _duration(visits.seconds_p90)),
        ("events of a visit, mean", f"{visits.events_mean:,.1f}"),
        ("events, in half of them at most", f"{visits.events_median:,}"),
        ("events, in nine of ten at most", f"{visits.events_p90:,}"),
        ("of the visits have one event", f"{visits.single:.1%}"),
    ]
    lengths = [(_from(visits.lengths, place), count) for place, (_, count) in enumerate(visits.lengths)]
    sizes = [(_powers(least), count) for least, count in visits.sizes]
    return (
        f"<h2>Visits</h2>{page.cards(cards)}<div class=pair><div><h2>How long they last</h2>"
        f"{plots.ranked(lengths, 'Visits by length')}</div><div><h2>Events of a visit</h2>{plots.ranked(sizes, 'Visits by events')}</div></div>"
    )


def _repeats(repeats: Repeats, events: int) -> str:
    rows = [
        ["different user-item pairs", f"{repeats.pairs:,}", ""],
        [
            "pairs with more than one event",
            f"{repeats.repeated_pairs:,}",
            _percent(repeats.repeated_pairs, repeats.pairs) + " of pairs",
        ],
        ["events that repeat a pair", f"{repeats.repeats:,}", _percent(repeats.repeats, events) + " of events"],
        ["exact copies: same user, item, type and time", f"{repeats.copies:,}", _percent(repeats.copies, events) + " of events"],
    ]
    return "<h2>Repeats</h2>" + page.table(["", "number", "share"], rows)


def _suspects(suspects: Suspects) -> str:
    text = "<h2>Users who look like machines</h2>"
    if not suspects.n:
        return text + "<p>None: nobody passes the bounds of the settings (profile.bot_…, data.bot_events_per_day).</p>"
    rows = [
        [
            one.user_id,
            f"{one.events:,}",
            f"{one.busiest_day:,}",
            "" if one.busiest_minute is None else f"{one.busiest_minute:,}",
            "" if one.variation is None else f"{one.variation:.3f}",
            "; ".join(one.reasons),
        ]
        for one in suspects.listed[:20]
    ]
    header = ["user", "events", "busiest day", "busiest minute", "variation of gaps", "why"]
    words = f"{suspects.n:,} users with {suspects.events:,} events. Suspected is not proven: look before you drop them."
    return text + f"<p>{words}</p>" + page.table(header, rows)


def _labels(profile: Profile) -> str:
    rows = [(one.name, one.events) for one in profile.types[:TOP_CATEGORIES]]
    text = "<h2>Kinds of events</h2>" + plots.ranked(rows, "Events of each type")
    if len(profile.types) > TOP_CATEGORIES:
        text += f"<p class=soft>and {len(profile.types) - TOP_CATEGORIES:,} more types.</p>"
    if not profile.labels:
        return text + "<p class=soft>data.positive names no label: every event counts as a positive one.</p>"
    lines = [[one.name, f"{one.events:,}", _percent(one.events, profile.events)] for one in profile.labels]
    lines.append(["any of them", f"{profile.positive:,}", _percent(profile.positive, profile.events)])
    return text + "<h2>Labels</h2>" + page.table(["data.positive", "events", "of all"], lines)


def _value(value: Numbers) -> str:
    if not value.baseline.count:
        return "<h2>Values</h2><p class=soft>No event has a value.</p>"
    return "<h2>Values of events</h2>" + _drawn(value, "Events by value")


def _catalogue(found: CatalogueFigures) -> str:
    rows = [[name, f"{count:,}", _percent(count, found.items)] for name, count in found.missing.items()]
    rows.append(["all of title, text and categories", f"{found.no_text:,}", _percent(found.no_text, found.items)])
    links = [
        ["catalogue items without any event", f"{found.unmet:,}", _percent(found.unmet, found.items) + " of items"],
        ["items with events that the catalogue does not know", f"{found.unknown_items:,}", f"{found.unknown_events:,} events"],
        ["hidden items", f"{found.hidden:,}", _percent(found.hidden, found.items) + " of items"],
    ]
    text = f"<h2>Catalogue: what is missing</h2>{page.table(['items without', 'number', 'share'], rows)}"
    text += f"<h2>Catalogue and events</h2>{page.table(['', 'number', 'share'], links)}"
    return text + _categories(found) + _texts(found) + _titles(found) + _price(found.price)


def _categories(found: CatalogueFigures) -> str:
    if not found.categories.count:
        return ""
    rows = list(found.categories.counts.items())[:TOP_CATEGORIES]
    text = f"<h2>Categories</h2>{plots.ranked(rows, 'Items of each category')}"
    told = found.items - found.categories.missing
    words = f"{found.categories.distinct:,} categories; an item that has any has {found.categories.count / told:.1f} on average."
    return text + f"<p class=soft>{words}</p>"


def _texts(found: CatalogueFigures) -> str:
    written = [one for one in found.scripts if one.name != NO_LETTERS or one.items]
    rows = [[one.name, f"{one.items:,}", _percent(one.items, found.items), f"{one.letters:,}"] for one in written]
    text = "<h2>What the texts are written in</h2>" + page.table(
        ["script", "items mostly in it", "share", "letters in all items"], rows
    )
    return text + "<h2>Letters of title and text</h2>" + _drawn(found.letters, "Items by letters of title and text")


def _titles(found: CatalogueFigures) -> str:
    same = found.same_titles
    if not same.titles:
        return ""
    words = f"{same.titles:,} titles are shared by {same.items:,} items."
    rows = [[title, f"{count:,}"] for title, count in same.most[:10]]
    return f"<h2>Same title, different item</h2><p>{words}</p>" + page.table(["title", "items"], rows)


def _price(price: Numbers) -> str:
    return "<h2>Prices</h2>" + _drawn(price, "Items by price") if price.baseline.count else ""


def _features(found: FeatureProfile) -> str:
    text = f"<h2>Features</h2><p class=soft>{found.rows:,} rows"
    text += f", {found.positive:.1%} of them positive.</p>" if found.positive is not None else ".</p>"
    text += f"<p>{html.escape(found.note)}</p>" if found.note else ""
    places = [place for place, one in enumerate(found.features) if one.varies]
    constant = [one.name for one in found.features if not one.varies]
    if constant:
        text += f"<p class=soft>The same for every row, so they tell nothing here: {html.escape(', '.join(constant))}.</p>"
    if not places:
        return text
    text += _feature_table(found)
    names = [found.features[place].name for place in places]
    rows = [[found.correlation[row][column] for column in places] for row in places]
    text += "<h2>Features that say the same</h2>" + plots.heat(names, names, rows, "Rank correlation", signed=True)
    drawn = "".join(
        f"<div><p>{html.escape(found.features[place].name)}</p>{_drawn(found.features[place].numbers, found.features[place].name)}</div>"
        for place in places
    )
    return text + f"<h2>How features are spread</h2><div class=pair>{drawn}</div>"


def _feature_table(found: FeatureProfile) -> str:
    """The features that vary, the most important first."""
    rows = [
        [
            one.name, "" if one.information is None else f"{one.information:.4f}", "" if one.importance is None else f"{one.importance:+.4f}",
            *(f"{one_of:.3g}" for one_of in (one.numbers.baseline.mean, one.numbers.baseline.low, one.numbers.median, one.numbers.baseline.high)),
            _percent(one.numbers.baseline.missing, found.rows),
        ]
        for one in sorted(found.features, key=lambda one: (-(one.importance or 0.0), -(one.information or 0.0)))
        if one.varies
    ]  # fmt: skip
    text = page.table(["feature", "information", "importance", "mean", "low", "median", "high", "missing"], rows)
    if found.auc is None:
        return text
    return (
        f"{text}<p class=soft>Information: mutual information with the label, in nats. Importance: what the area under the ROC curve of a "
        f"small model ({found.auc:.3f} on rows that it did not see) loses when the feature is shuffled.</p>"
    )


def _drawn(numbers: Numbers, label: str) -> str:
    """A histogram with its figures below."""
    seen, base = numbers.histogram, numbers.baseline
    if seen.values:
        text = plots.named_columns([(plots.compact(value), n) for value, n in zip(seen.values, seen.counts, strict=True)], label)
    else:
        text = plots.histogram(seen.edges, seen.counts, label, seen.log)
    words = f"{base.count:,} rows; mean {base.mean:,.4g}, median {numbers.median:,.4g}, from {base.low:,.4g} to {base.high:,.4g}"
    words += f"; {base.missing:,} without" if base.missing else ""
    return text + f"<p class=soft>{words}{'; columns grow by a factor' if seen.log and not seen.values else ''}.</p>"


def _percent(part: float, whole: float, digits: int = 1) -> str:
    return f"{part / whole:.{digits}%}" if whole else "-"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3_600 else f"{seconds / 3_600:.1f} h"


def _from(lengths: list[tuple[int, int]], place: int) -> str:
    least = lengths[place][0]
    if not least:
        return "no time: one moment"
    if place + 1 == len(lengths):
        return f"{_round(least)} and more"
    return f"{_round(least)} to {_round(lengths[place + 1][0])}"


def _round(seconds: int) -> str:
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min" if seconds < 3_600 else f"{seconds // 3_600} h"


def _powers(least: int) -> str:
    return ONE if least == 1 else f"{least:,} to {2 * least - 1:,}"
