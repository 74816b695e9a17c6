"""From chapters/18_pitfalls.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import html
import textwrap
from fnmatch import fnmatchcase
from typing import NamedTuple

from bnlib.nn._rules import (
    bad_batch,
    cure_of,
    dead_channels,
    eval_layer,
    far_statistics,
    few_values,
    half_statistics,
    int8_range,
    lost_parts,
    momentum_sense,
    never_updated,
    not_finite,
    padding,
    shared_layer,
    thawed,
    time_axis,
    training_layer,
    unsynchronized,
    untracked,
    useless_bias,
    weight_decay,
    zero_weights,
)
from bnlib.nn._survey import bare, run_on, survey

__all__ = ["diagnose"]


class Report(list):
    """A list of findings that prints as a table, and shows as one in a notebook.

    layers : how many normalization layers were looked at. named_in : the part of the
    model that their names start from, such as "model.module".
    """

    def __init__(self, findings, layers, named_in="model"):
        super().__init__(findings)
        self.layers, self.named_in = layers, named_in

    def groups(self):
        """Return lists of findings with one code and one cure, the worst first."""
        made = {}
        for finding in self:
            made.setdefault((finding.code, finding.recipe), []).append(finding)
        return sorted(made.values(), key=lambda g: -rank_of(g[0]))

    def to_dict(self):
        """Return the report as plain dicts, lists and strings, for JSON."""
        return {"layers": self.layers, "findings": [row_of(g) for g in self.groups()]}

    def __repr__(self):
        lines = [title_of(self)]  # of at most 88 columns
        for row in self.to_dict()["findings"]:
            where = f"{row['code']} in {named(row['layers'])}"
            lines.append(f"  {row['severity']}: {where}")
            lines.append(textwrap.indent(textwrap.fill(row["what"], 80), " " * 4))
            lines.append(textwrap.indent("cure:\n" + row["cure"], " " * 4))
            lines.append(f"    see {row['page']}")
        return "\n".join(lines)

    def _repr_html_(self):
        names = "severity", "finding", "layers", "what was seen"
        rows = "".join(f'<th scope="col">{name}</th>' for name in names)
        for row in self.to_dict()["findings"]:
            cells = row["severity"], row["code"], named(row["layers"]), row["what"]
            plain = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            cure = f'<td colspan="4"><pre>{html.escape(row["cure"])}</pre></td>'
            rows += f"</tr><tr>{plain}</tr><tr>{cure}"
        table = f"<table><tr>{rows}</tr></table>" if self else ""
        return f"<p>{html.escape(title_of(self))}</p>{table}"


PAGE = "chapters/18_pitfalls.html#pitfall-"


def rank_of(finding):
    """Return how bad a finding is, as an index of SEVERITIES."""
    return SEVERITIES.index(RULES.get(finding.code, Rule()).severity)


def row_of(group):
    """Return what a report says of a group of findings, as a dict of plain values."""
    code, rule = group[0].code, RULES.get(group[0].code, Rule())
    return {
        "code": code,
        "severity": rule.severity,
        "reason": rule.reason,
        "layers": [finding.layer for finding in group],
        "what": group[0].what,
        "cure": cure_of(group),
        "page": PAGE + code,
    }


def named(layers):
    """Return the first of some names, and how many more there are."""
    more = len(layers) - 1
    return f"{layers[0]} and {more} more" if more else layers[0]


def title_of(report):
    """Return the first line of a report."""
    plural = "s" * (len(report) != 1)
    found = f"{len(report) or 'no'} finding{plural}"
    inside = "" if report.named_in == "model" else f", named as in {report.named_in}"
    return f"{found}, {report.layers} normalization layers{inside}"


class Rule(NamedTuple):
    """How bad it is, the reason, and the function; one of your own is a warning."""

    severity: str = "warning"
    reason: str = ""
    find: object = None


SEVERITIES = "note", "warning", "error"
RULES = {
    "not-finite": Rule("error", "NaN in a buffer stays for ever", not_finite),
    "bad-batch": Rule("error", "one NaN reaches every running statistic", bad_batch),
    "never-updated": Rule("error", "in use it normalizes by 0 and 1", never_updated),
    "far-statistics": Rule("error", "it is used on other data", far_statistics),
    "training-layer": Rule("error", "answers depend on neighbours", training_layer),
    "lost-activation": Rule("error", "the network became linear there", lost_parts),
    "time-axis": Rule("error", "positions are taken for channels", time_axis),
    "shared-layer": Rule("error", "one average fits neither place", shared_layer),
    "thawed": Rule("error", "a frozen network changes all the same", thawed),
    "eval-layer": Rule("warning", "it trains against old statistics", eval_layer),
    "untracked": Rule("warning", "answers depend on neighbours", untracked),
    "momentum": Rule("warning", "the last batch is all that is kept", momentum_sense),
    "half-statistics": Rule("warning", "small updates are lost", half_statistics),
    "few-values": Rule("warning", "a deviation of few values is noise", few_values),
    "padding": Rule("warning", "filling is counted as data", padding),
    "unsynchronized": Rule("warning", "every process has its own", unsynchronized),
    "zero-weights": Rule("warning", "channels are switched off", zero_weights),
    "dead-channels": Rule("warning", "noise is multiplied", dead_channels),
    "useless-bias": Rule("note", "it costs, and does nothing", useless_bias),
    "weight-decay": Rule("note", "γ and β are pulled to 0", weight_decay),
    "int8-range": Rule("note", "one scale leaves most channels no digits", int8_range),
}


def wanted(ignore, severity):
    """Return a function that says whether a finding is to be reported."""
    ignore = [ignore] if isinstance(ignore, str) else ignore
    pairs = [text.partition(":")[::2] for text in ignore]
    unknown = [code for code, _ in pairs if code not in RULES]
    if unknown:
        what = f"ignore must hold codes, or code:layer, got {unknown}"
        raise ValueError(f"{what}; known are {list(RULES)}")
    if severity not in SEVERITIES:
        what = f"severity must be one of {SEVERITIES}, the least to report"
        raise ValueError(f"{what}; got {severity!r}")

    def is_wanted(finding):
        names = [name or "*" for code, name in pairs if code == finding.code]
        left = any(fnmatchcase(finding.layer, name) for name in names)
        return not left and rank_of(finding) >= SEVERITIES.index(severity)

    return is_wanted


def diagnose(
    model, batch, *, optimizer=None, forward=run_on, ignore=(), severity="note"
):
    """Return what is wrong with the normalization layers of a model, as findings.

    Each `Finding` has a code, the layer's name, what was seen, with its number, and the
    cure, as code; `RULES` lists what is looked for. The model is run once on the batch
    and differentiated once; nothing in it changes. A model's own calls of
    torch.nn.functional are not seen, and the rule for biases says nothing where no
    gradient flows.

    Parameters
    ----------
    model : module
        With layers of torch.nn or bnlib.nn.
    batch : object
        A tensor, a tuple or list that starts with one, or a dict of keyword arguments;
        64 examples or more make statistics comparable. Show it a batch of training to
        judge training, one from where the model is used to judge that.
    optimizer : optimizer or None
        Where given, weight decay is looked at too.
    forward : function
        `forward(model, batch)` returns the output.
    ignore : iterable of str
        Codes not to report, or "code:layer", with * in the layer's name for any
        letters.
    severity : str
        The least to report, "note", "warning" or "error".

    Returns
    -------
    findings : Report
        Prints as a table, with `to_dict()`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument; and whatever the model raises.
    """
    given, model = model, bare(model)
    if optimizer is not None and not hasattr(optimizer, "param_groups"):
        what = f"optimizer must be a torch optimizer, got {type(optimizer).__name__}"
        raise TypeError(f"{what}; pass optimizer=torch.optim.SGD(...)")
    is_wanted = wanted(ignore, severity)
    seen = survey(model, batch, optimizer, forward)
    found = [f for r in RULES.values() for f in r.find(seen) if is_wanted(f)]
    shared = {f.layer for f in found if f.code == "shared-layer"}  # none fit these
    found = [f for f in found if f.code != "far-statistics" or f.layer not in shared]
    wrapped = getattr(given, "module", None) is model
    return Report(found, len(seen.norms), "model.module" if wrapped else "model")
