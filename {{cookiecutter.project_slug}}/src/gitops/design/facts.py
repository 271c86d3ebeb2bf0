"""What a machine knows for the design documents, as Markdown: from settings, schema, splits and repository.

It holds names, counts, percentages and whole months, and no value of a row. Names come from outside: they are escaped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.core.failures import without_secrets
from gitops.core.params import Params
from gitops.integrations import kustomize
from gitops.rendering.markdown import code, number, plain, table

#: Columns that are listed; more are counted.
COLUMNS = 200

#: What a cell shows where there is nothing.
NONE = "–"

CODEOWNERS = Path(".github/CODEOWNERS")
WORKFLOWS = Path(".github/workflows")
REQUEST_LOG = "k8s/components/request-log"

#: The line of an overlay that takes this component in.
LOGGED = re.compile(r"^\s*- *[\w./]*components/request-log\b", re.MULTILINE)


def business(settings: Params) -> str:
    """Return what the model answers, how models are compared, and what of its value is known."""
    data, gate = settings.data, settings.gate
    positive = f", positive: {code(data.positive)}" if data.positive is not None else ""
    limits = [f"{code(name)} {number(limit)}" for name, limit in gate.thresholds.items()]
    rows = [
        ["answer", f"{code(data.target)}, {data.task}{positive}", "`data`"],
        ["models are compared by", f"{code(gate.primary_metric)}; {number(gate.tolerance)} is no difference", "`gate`"],
        ["and must reach", ", ".join(limits), "`gate.thresholds`"],
    ]
    if gate.guardrail_metrics:
        rows.append(["and must not lose in", _names(gate.guardrail_metrics), "`gate.guardrail_metrics`"])
    if data.task == "binary":
        best = settings.train.threshold
        chosen = f"the one with the best {code(best)} on the validation split" if best is not None else "0.5"
        rows.append(["decision threshold", chosen, "`train.threshold`"])
    rows.append(["value", _value(settings.model_dump(mode="json").get("value")), "`value`"])
    return table(["", "", "in `params.yaml`"], rows)


def data(settings: Params, schema: dict[str, Any]) -> str:
    """Return the table, its splits and its columns. `schema` and the splits must be those of the table."""
    chosen, rows = settings.data, schema["rows"]
    left_out = [
        f"; {count} {plain(why.replace('_', ' '))}" for why, count in rows.items() if "dropped" in why and count
    ]
    split = f"by time, {code(chosen.timestamp)}" if chosen.timestamp is not None else "at random"
    facts = [
        ["table", code("a database, by data.query" if chosen.query is not None else chosen.path)],
        ["rows", f"{rows['raw']}{''.join(left_out)}"],
        ["split", f"{split}: {rows['train']} to train, {rows['val']} to validate, {rows['test']} to test"],
        ["target", f"{code(chosen.target)}, {chosen.task}{_classes(chosen.target, schema)}"],
        ["period", _period(chosen.timestamp)],
        ["rows belong together by", _names([chosen.id] if chosen.id is not None else [])],
        ["columns left out", _names(chosen.drop)],
        ["compared by", _names(chosen.slices)],
    ]
    redacted = settings.request_log.redact
    columns = [
        [code(one["name"]), one["dtype"], _percent(one["missing"]), _remarks(one, redacted)]
        for one in schema["features"]
    ]
    known = table(["", ""], [row for row in facts if row[1] != NONE])
    return f"{known}\n\n{table(['feature', 'dtype', 'missing', ''], columns, COLUMNS)}"


def privacy(settings: Params) -> str:
    """Return where rows, requests and labels lie, for how long they are used, and who reviews changes."""
    monitor, retrain, log = settings.monitor, settings.retrain, settings.request_log
    read = f"the monitor reads {monitor.days} days back, a retraining {2 * retrain.label_days}"
    rows = [
        ["table, splits, models", _remote(), "each version until `make gc`"],
        ["requests and answers", _log_address(), f"{_percent(log.sample)} of the requests; {read}"],
        ["columns that are not logged", _names(log.redact), ""],
        ["labels", "`LABELS`", f"used if at most {retrain.label_days} days late"],
        ["files of runs on GitHub", "artifacts", _artifacts()],
        ["environments", _names(kustomize.environments()), ""],
        ["who reviews changes", _owners(), code(CODEOWNERS)],
        ["licence of this repository", _licence(), ""],
    ]
    return table(["", "where", "how much, for how long"], rows)


def _value(value: dict[str, Any] | None) -> str:
    if value is None:
        return "not known"
    cost = f"{value['running_cost']:,.2f}".removesuffix(".00")
    return f"{value['decisions']:,} decisions a month, which cost {cost} {plain(value['unit'])} to run"


def _names(names: Sequence[str] | dict[str, Any]) -> str:
    return ", ".join(code(name) for name in names) or NONE


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if fraction == 0 or fraction >= 0.01 else "below 1 %"


def _remarks(feature: dict[str, Any], redacted: Sequence[str]) -> str:
    """Return what else is known of a feature; names of its categories are values of rows, and left out."""
    remarks = [f"{len(feature['categories'])} categories"] if "categories" in feature else []
    remarks += [f"from {_names(feature['derived'])}"] if feature.get("derived") else []
    remarks += ["not logged"] if feature["name"] in redacted else []
    return ", ".join(remarks)


def _classes(target: str, schema: dict[str, Any]) -> str:
    """Return each class with its fraction of the training rows; nothing for a number."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not schema["target"]["classes"]:
        return ""
    counts: Counter[str] = Counter()
    file = pq.ParquetFile(artifacts.TRAIN)
    for group in range(file.num_row_groups):
        found = pc.value_counts(file.read_row_group(group, columns=[target]).column(0).combine_chunks())
        counts.update({str(one["values"]): one["counts"] for one in found.to_pylist()})
    shown = schema["target"]["classes"][:10]
    more = f" and {len(schema['target']['classes']) - 10} more" if len(schema["target"]["classes"]) > 10 else ""
    return ": " + ", ".join(f"{code(name)} {_percent(counts[name] / counts.total())}" for name in shown) + more


def _period(timestamp: str | None) -> str:
    """Return the months of the first and the last row of all splits, from parquet's own statistics."""
    import pyarrow.parquet as pq

    if timestamp is None:
        return NONE
    ends = []
    for split in (artifacts.TRAIN, artifacts.VAL, artifacts.TEST):
        file = pq.ParquetFile(split)
        index = file.schema_arrow.get_field_index(timestamp)
        groups = (file.metadata.row_group(number).column(index) for number in range(file.num_row_groups))
        ends += [end for one in groups if one.statistics for end in (one.statistics.min, one.statistics.max)]
    return f"{min(ends):%Y-%m} to {max(ends):%Y-%m}" if ends else NONE


def _remote() -> str:
    """Return DVC's default remote as .dvc/config has it; config.local is one machine's."""
    from configobj import ConfigObj

    settings = ConfigObj(".dvc/config", encoding="utf-8")
    name = settings.get("core", {}).get("remote", "")
    url = str(settings.get(f"'remote \"{name}\"'", settings.get(f'remote "{name}"', {})).get("url", ""))
    if not url:
        return "no DVC remote"
    inside = url.startswith("../") and not url.startswith("../../")
    return f"{code(url[3:])}, a folder of this repository" if inside else code(without_secrets(url))


def _log_address() -> str:
    """Return where each environment's pods keep the log."""
    places = []
    for environment in kustomize.environments():
        overlay = kustomize.OVERLAYS / environment / "kustomization.yaml"
        kept = overlay.exists() and LOGGED.search(overlay.read_text(encoding="utf-8"))
        places.append(f"{environment}: {'as ' + code(REQUEST_LOG) + ' says' if kept else 'in the pod, lost with it'}")
    return "; ".join(places)


def _artifacts() -> str:
    found = [
        re.findall(r"^\s+retention-days: (\d+)", path.read_text(), re.MULTILINE) for path in WORKFLOWS.glob("*.yaml")
    ]
    days = [int(one) for each in found for one in each]
    return f"{max(days)} days at most" if days else "as the repository's settings say"


def _owners() -> str:
    lines = CODEOWNERS.read_text(encoding="utf-8").splitlines() if CODEOWNERS.exists() else []
    owners = [name for line in lines for name in line.partition("#")[0].split()[1:]]
    return _names([*dict.fromkeys(owners)])


def _licence() -> str:
    path = Path("LICENSE")
    return plain(path.read_text(encoding="utf-8").strip().partition("\n")[0]) if path.exists() else NONE
