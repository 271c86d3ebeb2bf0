"""The report's section about the replay: what the candidate would have answered to production's logged requests."""

from __future__ import annotations

from typing import Any

from gitops.core.figures import number, signed
from gitops.core.params import Params
from gitops.rendering import amounts
from gitops.rendering.markdown import code, details, plain, table
from gitops.reporting.context import Context

TITLE = "### Replay of production's requests"

#: What is said where nothing was replayed.
SAID = {
    "none": "Nothing was replayed: ",
    "too_few": "⚠️ Too few requests to replay: ",
    "failed": "⚠️ The replay failed, which holds up no merge: ",
}

#: Why a server with the candidate would refuse a row.
WHY = {"missing": "the candidate needs it", "unknown": "the candidate does not know it", "unfit": "of another type now"}

#: Changes of decision that are listed.
LISTED = 10


def replay(context: Context) -> str:
    """Changed decisions and where they are, what they are worth, refusals, and latency; else why there is nothing."""
    found = context.replay
    if not found:
        return ""
    if found["status"] != "ok":
        return f"{TITLE}\n\n{SAID[found['status']]}{plain(found['reason'], 1000)}."
    parts = [TITLE, _changed(found), _refusals(found), _transitions(found), _sizes(found), _slices(found)]
    parts += [_value(found["value"]), _labelled(found["labelled"], context.settings), _details(found)]
    return "\n\n".join(filter(None, parts))


def _changed(found: dict[str, Any]) -> str:
    if found["tolerance"] is None:
        what = "would be decided otherwise than by the model in production"
    else:
        what = f"would get an answer that differs by more than {found['tolerance']:g} standard deviations of the target"
    span = f"{found['from']} to {found['to']}" if found["from"] < found["to"] else found["to"]
    return (
        f"{_percent(found['changed'])} of {found['rows']:,} rows that production was asked about ({span}) {what}. The "
        f"distributions of the two models' answers are {found['drift']:.3f} apart (Kolmogorov-Smirnov, 0 to 1)."
    )


def _share(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"


def _percent(fraction: dict[str, float]) -> str:
    low, value, high = (100 * fraction[key] for key in ("low", "value", "high"))
    return f"**{value:.2f} %** ({low:.2f} to {high:.2f} %)"


def _refusals(found: dict[str, Any]) -> str:
    """What the candidate would refuse, which its clients have to know before a merge; and what it might accept."""
    parts, accepted, refused = [], found["refusals"]["accepted"], found["refusals"]["refused"]
    if accepted["rows"]:
        rows = [[code(each["column"]), WHY[each["why"]], f"{each['rows']:,}"] for each in accepted["columns"]]
        fraction = _share(accepted["rows"] / found["rows"])
        parts.append(
            f"⚠️ **{accepted['rows']:,} of these rows ({fraction}) would be refused** unless clients change what they "
            "send. In the figures here, what they lack is missing."
        )
        parts.append(table(["column", "why", "rows"], rows))
    if refused["by_changed_columns"]:
        parts.append(
            f"{refused['by_changed_columns']:,} of {refused['requests']:,} refused requests were refused only for "
            "columns that the candidate takes otherwise: it may accept them, which their lines in the log cannot tell."
        )
    return "\n\n".join(parts)


def _transitions(found: dict[str, Any]) -> str:
    changed = [each for each in found["transitions"] if each["production"] != each["candidate"]]
    if not changed:
        return ""
    rows = [
        [plain(each["production"]), plain(each["candidate"]), f"{each['rows']:,}", _share(each["rows"] / found["rows"])]
        for each in changed
    ]
    return table(["production", "candidate", "rows", "of all"], rows, limit=LISTED)


def _sizes(found: dict[str, Any]) -> str:
    """How large the changes are, and what sets the rows with the largest ones apart."""
    unit = "standard deviations of the target" if found["tolerance"] is not None else "in probability"
    first, *others = (
        f"{_share(float(level))} of the rows by {by:.3g}" for level, by in found["sizes"]["quantiles"].items()
    )
    most = f"and by {found['sizes']['largest']:.3g} at most"
    text = f"Answers change in {', in '.join([f'{first} {unit} or less', *others])}, {most}."
    if largest := found["largest"]:
        text += f" The {largest['rows']:,} rows that change most do so by {largest['from']:.3g} or more"
        named = [f"{code(each['column'])} ({each['distance']:.2f})" for each in largest["columns"]]
        text += f"; their values are distributed least like the others' in {', '.join(named)}." if named else "."
    return text


def _slices(found: dict[str, Any]) -> str:
    parts = []
    for column, values in found["slices"].items():
        ordered = sorted(values.items(), key=lambda item: -item[1]["changed"]["value"])
        rows = [
            [plain(value), f"{cell['rows']:,}", _percent(cell["changed"]), _share(cell["largest"])]
            for value, cell in ordered
        ]
        parts.append(table([plain(column), "rows", "changed", "of the largest changes"], rows, limit=20))
    return "\n\n".join(parts)


def _value(value: dict[str, Any] | None) -> str:
    """What the changes are worth, by what either model believes."""
    if not value:
        return ""
    rows = [
        [f"by the {name}'s probabilities", _amount(value[belief]), f"{value[belief]['at_stake']:,.0f}"]
        for belief, name in (("candidate", "candidate"), ("production", "model in production"))
    ]
    header = ["", f"candidate's answers in place of production's, {plain(value['unit'])} a month", "at stake"]
    note = "Which answers are right is not known yet: this is what either model believes, no result. At stake are all "
    return table(header, rows) + f"\n\n{note}differences, gains and losses alike."


def _amount(gain: dict[str, float]) -> str:
    if gain["low"] == gain["high"] == 0:
        return "**the same**"
    return f"**{amounts.signed(gain['value'])}** ({amounts.signed(gain['low'])} to {amounts.signed(gain['high'])})"


def _labelled(labelled: dict[str, Any] | None, settings: Params) -> str:
    if not labelled:
        return ""
    if labelled["reason"]:
        return f"Not compared on labelled requests: {plain(labelled['reason'], 400)}."
    rows = []
    for name, score in labelled["metrics"].items():
        numbers = [number(score["candidate"]), number(score["production"])]
        rows.append([plain(settings.label(name)), *numbers, _difference(score["difference"])])
    note = f"On {labelled['rows']:,} requests whose labels have come; a difference above 0 is better."
    return table(["metric", "candidate", "production", "difference"], rows) + f"\n\n{note}"


def _difference(found: dict[str, float]) -> str:
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if low == high == 0:
        return "same"
    return f"{signed(value)} ({signed(low)} to {signed(high)}) {amounts.sign(found)}"


def _details(found: dict[str, Any]) -> str:
    """How long either model takes, and which rows these are."""
    times, logged = found["latency"], found["logged"]
    rows = [[count, *(f"{times[name][count]:.3g} ms" for name in times)] for count in times["candidate"]]
    days = "day" if logged["days"] == 1 else f"{logged['days']} days"
    notes = [
        f"{found['rows']:,} rows of {found['groups']:,} ids or requests, out of {logged['answered']:,} that were "
        f"answered in the last {days}. Both models ran on them in this run, with one thread."
    ]
    if found["left_out"]:
        notes.append(f"{found['left_out']:,} rows were left out that the model in production would refuse today.")
    if logged["other_form"]:
        notes.append(f"{logged['other_form']:,} lines of the log were left out, which are not in a server's form.")
    if found["redacted"]:
        notes.append(f"Redacted in the log, and missing for both models: {', '.join(map(code, found['redacted']))}.")
    body = table(["rows at once", *times], rows) + "\n\n" + "\n".join(f"- {note}" for note in notes)
    return details("Latency, and which rows these are", body)
