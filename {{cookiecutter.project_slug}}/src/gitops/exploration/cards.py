"""A card for each feature: its distribution in every split, and the target over its values."""

from __future__ import annotations

import html

from gitops.exploration import svg
from gitops.exploration.findings import drifted
from gitops.exploration.layout import key
from gitops.exploration.profiles import Profile, moment, number
from gitops.exploration.targets import Target
from gitops.statistics.fractions import wilson

#: Class names that charts of more than two classes show; the others are one.
CLASSES = svg.SHADES - 1


def card(profile: Profile, at: int, target: Target | None, limit: float, tags: list[str]) -> str:
    """Return the card of a feature, the one at position `at` of the table."""
    association, largest = profile.association, max(profile.drift.values(), default=None)
    data = {
        "at": at,
        "association": -(association if association is not None else -1),
        "drift": -(largest if largest is not None else -1),
        "missing": -profile.fraction_missing(profile.main),
    }
    attributes = " ".join(f'data-{name}="{value:g}"' for name, value in data.items())
    head = "".join(f' <span class="tag">{html.escape(tag)}</span>' for tag in [profile.dtype, *tags])
    charts = [f"<div><h4>{_split_title(profile, limit)}</h4>{distribution(profile)}</div>"]
    if target is not None and profile.bins:
        said = "" if association is None else f"; explains {association:.1%}"
        charts.append(f"<div><h4>{against_title(target)}{said}</h4>{against(profile, target)}</div>")
    return (
        f'<div class="card" id="c{at}" {attributes}><h3>{html.escape(profile.name)}{head}</h3>'
        f'<div class="quiet">{html.escape(summary(profile))}</div><div class="pair">{"".join(charts)}</div></div>'
    )


def summary(profile: Profile) -> str:
    """Return a column's numbers in a line of text."""
    missing = f"{profile.fraction_missing(profile.main):.2%} missing"
    if not profile.statistics:
        return f"{profile.distinct:,} different, {missing}"
    write = moment if profile.dtype == "datetime" else number
    ends = [write(profile.statistics[name]) for name in ("min", "median", "max")]
    return f"{ends[0]} to {ends[2]}, median {ends[1]}, {profile.distinct:,} different, {missing}"


def distribution(profile: Profile) -> str:
    """Return a chart of the column's known values in each split."""
    series = [[count / max(1, sum(counts)) for count in counts] for counts in profile.counts.values()]
    if not series:
        return '<p class="quiet">no value</p>'
    draw = svg.histogram if profile.statistics else svg.bars
    return draw(profile.labels, series, [*profile.counts])


def drifts(profile: Profile, limit: float) -> str:
    """Return the drift of each split as HTML, marked where it is beyond the limit and chance."""
    marked = drifted(profile, limit)
    found = []
    for split, value in profile.drift.items():
        text = f"{html.escape(split)} {value:.2f}"
        found.append(f'<span class="warn">{text}</span>' if split in marked else text)
    return ", ".join(found)


def _split_title(profile: Profile, limit: float) -> str:
    """Return what is left in a card."""
    if not profile.drift:
        return "distribution"
    return f"splits; drift {drifts(profile, limit)}"


def against_title(target: Target) -> str:
    """Return what `against` shows of the target, as HTML."""
    if target.values is not None:
        return f"{html.escape(svg.shorten(target.name))}: quartiles"
    if len(target.classes) == 2:
        return html.escape(svg.shorten(target.classes[-1]))
    return f"{html.escape(svg.shorten(target.name))}: classes"


def against(profile: Profile, target: Target) -> str:
    """Return a chart of the target in each bin of the feature: a fraction and its interval, fractions, or quartiles."""
    rows = sum(count for _, count, _ in profile.bins) or 1
    if target.values is not None:
        return _quartiles(profile, target, rows)
    if len(target.classes) == 2:
        return _fractions(profile, target, rows)
    found = []
    order = shown_classes(profile)
    for label, count, values in profile.bins:
        total = sum(values) or 1
        parts = [values[at] / total for at in order]
        parts += [max(0.0, 1 - sum(parts))] if len(order) < len(values) else []
        named = [*(target.classes[at] for at in order), "others"]
        said = ", ".join(f"{name} {part:.1%}" for name, part in zip(named, parts, strict=False))
        found.append((label, count / rows, parts, f"{label}: {count:,} rows; {said}"))
    return svg.stacks(found)


def shown_classes(profile: Profile) -> list[int]:
    """Return the positions of the classes that a chart shows, at most CLASSES, the most frequent ones."""
    totals = [sum(values[at] for _, _, values in profile.bins) for at in range(len(profile.bins[0][2]))]
    if len(totals) <= CLASSES + 1:
        return [*range(len(totals))]
    return sorted(sorted(range(len(totals)), key=lambda at: -totals[at])[:CLASSES])


def _fractions(profile: Profile, target: Target, rows: int) -> str:
    positive = target.classes[-1]
    found: list[svg.Dot] = []
    every = hits = 0.0
    for label, count, (negatives, positives) in profile.bins:
        total = negatives + positives
        every, hits = every + total, hits + positives
        if not total:
            found.append((label, count / rows, None, f"{label}: {count:,} rows, none with a target"))
            continue
        low, high = wilson(positives / total, total)
        said = f"{label}: {count:,} rows, {positive} {positives / total:.2%} (95 % interval {low:.2%} to {high:.2%})"
        found.append((label, count / rows, (low, positives / total, high), said))
    highest = max((values[2] for _, _, values, _ in found if values), default=1.0)
    return svg.dots(found, (0.0, highest), hits / max(1.0, every), lambda value: f"{value:.1%}")


def _quartiles(profile: Profile, target: Target, rows: int) -> str:
    found: list[svg.Dot] = []
    known = [values for _, _, values in profile.bins if values[1] == values[1]]
    for label, count, values in profile.bins:
        some = values[1] == values[1]
        said = f"quartiles {', '.join(map(number, values))}" if some else "none with a target"
        shown = (values[0], values[1], values[2]) if some else None
        found.append((label, count / rows, shown, f"{label}: {count:,} rows, {said}"))
    ends = (min((each[0] for each in known), default=0.0), max((each[2] for each in known), default=1.0))
    return svg.dots(found, ends, target.median, number)


def legend(splits: list[str], target: Target | None, profile: Profile | None) -> str:
    """Return the legend of all cards: the splits, and the classes where there are more than two."""
    names = [*zip(svg.SPLITS, splits, strict=False)] if len(splits) > 1 else []
    if target is not None and len(target.classes) > 2 and profile is not None and profile.bins:
        order = shown_classes(profile)
        names += [(f"shade{at}", target.classes[position]) for at, position in enumerate(order)]
        names += [(f"shade{len(order)}", "others")] if len(order) < len(target.classes) else []
    return key(names) if names else ""
