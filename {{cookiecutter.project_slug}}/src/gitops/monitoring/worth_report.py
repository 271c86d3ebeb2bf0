"""What the monitor says of value (worth.py): in the summary, as a picture, and for Prometheus."""

from __future__ import annotations

from functools import partial
from typing import Any

from gitops.rendering.amounts import amount, interval, more, sign
from gitops.rendering.html import BLUE, GREY, ORANGE, verbatim
from gitops.rendering.markdown import plain, table

Worth = dict[str, Any]

#: What is compared: its key in the result, its name, and its colour in the picture.
COMPARED = (("model", "as answered", BLUE), ("promised", "promised", GREY), ("today", "today's way", ORANGE))

#: Labels, and the value if there is one, of each sample of a Prometheus metric.
Samples = list[tuple[dict[str, str], float | None]]


def markdown(worth: Worth | None) -> str:
    """Return the summary's paragraph and table; nothing where there is nothing to say."""
    if not worth:
        return ""
    if not worth["model"]:
        return f"⏳ Value: {plain(worth['reason'], 500)}"
    unit, model, promised = plain(worth["unit"]), worth["model"], worth["promised"]
    parts = [
        f"Value: as answered, **{amount(model['value'])} {unit} a month** (95 %: {interval(model)}), by "
        f"{worth['rows']} labelled rows of the last {worth['days']} days."
    ]
    if worth["gain"]:
        gain = worth["gain"]
        parts.append(f"{sign(gain)} That is {more(gain, worth['unit'])} today's way (95 %: {interval(gain)}).")
    else:
        parts.append(f"Today's way is not known: {plain(worth['reason'], 500)}.")
    if model["high"] < promised["low"]:
        parts.append("⚠️ It is less than the release promised: the intervals are apart.")
    cost = f", less {amount(worth['running_cost'])} {unit} of running cost" if worth["running_cost"] else ""
    parts.append(f"Counted: {amount(worth['decisions'])} decisions a month like the labelled rows{cost}.")
    names = {
        "model": f"as answered, {worth['rows']} labelled rows",
        "promised": "promised by the release, on its test rows",
        "today": f"today's way, {plain((worth['today'] or {}).get('name', ''))}, on the labelled rows",
    }
    shown = [[names[key], amount(worth[key]["value"]), interval(worth[key])] for key in names if worth[key]]
    return " ".join(parts) + "\n\n" + table(["", f"{unit} a month", "95 % interval"], shown)


def plots(worth: Worth | None) -> list[tuple[str, Any]]:
    """Return title and drawing function of the picture, where there are values."""
    return [("Worth a month", partial(_draw, worth=worth))] if worth and worth["model"] else []


def _draw(axes: Any, worth: Worth) -> None:
    known = [(name, colour, worth[key]) for key, name, colour in COMPARED if worth[key]]
    for height, (_, colour, score) in enumerate(reversed(known)):
        axes.plot([score["low"], score["high"]], [height] * 2, color=colour)
        axes.plot(score["value"], height, "o", color=colour)
        axes.annotate(
            amount(score["value"]), (score["value"], height), xytext=(0, 7), textcoords="offset points", ha="center"
        )
    axes.set_yticks(range(len(known)), [name for name, *_ in reversed(known)])
    axes.set_ylim(-0.5, len(known) - 0.5)
    axes.margins(x=0.15)  # an amount is as wide
    axes.xaxis.set_major_formatter(lambda value, _: amount(value))
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel(f"{verbatim(worth['unit'])} a month, with 95 % intervals")


def families(worth: Worth | None) -> list[tuple[str, str, Samples]]:
    """Return name, help and samples of each metric; none where there is nothing to say."""
    if not worth:
        return []
    known = [(key, worth[key]) for key, *_ in COMPARED if worth[key]]

    def samples(bound: str) -> Samples:
        return [({"of": key, "unit": worth["unit"]}, score[bound]) for key, score in known]

    about = "value a month by the labelled rows: the model, what the release promised, today's way."
    return [
        ("value_rows", "Labelled rows of which the value is computed.", [({}, worth["rows"])]),
        ("value", f"Expected {about}", samples("value")),
        ("value_low", f"Lower 95 % bound of the {about}", samples("low")),
        ("value_high", f"Upper 95 % bound of the {about}", samples("high")),
    ]
