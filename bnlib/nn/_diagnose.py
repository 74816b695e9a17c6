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
        return sorted(made.values(), key=lambda g: -SEVERITIES.index(severity_of(g[0])))

    def to_dict(self):
        """Return the report as plain dicts, lists and strings, for JSON."""
        return {"layers": self.layers, "findings": [row_of(g) for g in self.groups()]}

    def __repr__(self):
        return as_text(self)

    def _repr_html_(self):
        return as_html(self)


PAGE = "chapters/18_pitfalls.html#pitfall-"


def severity_of(finding):
    """Return how bad a finding is; one of a rule of your own is a warning."""
    return {rule.code: rule.severity for rule in RULES}.get(finding.code, "warning")


def row_of(group):
    """Return what a report says of a group of findings, as a dict of plain values."""
    reasons = {rule.code: rule.reason for rule in RULES}
    code = group[0].code
    return {
        "code": code,
        "severity": severity_of(group[0]),
        "reason": reasons.get(code, ""),
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


def as_text(report):
    """Return a report for a terminal, of at most 88 columns."""
    lines = [title_of(report)]
    for row in report.to_dict()["findings"]:
        lines.append(f"  {row['severity']}: {row['code']} in {named(row['layers'])}")
        lines.append(textwrap.indent(textwrap.fill(row["what"], 80), " " * 4))
        lines.append(textwrap.indent("cure:\n" + row["cure"], " " * 4))
        lines.append(f"    see {row['page']}")
    return "\n".join(lines)


def as_html(report):
    """Return a report for a notebook, with what came from the model quoted."""
    names = "severity", "finding", "layers", "what was seen"
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = ""
    for row in report.to_dict()["findings"]:
        cells = row["severity"], row["code"], named(row["layers"]), row["what"]
        plain = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        cure = f'<td colspan="4"><pre>{html.escape(row["cure"])}</pre></td>'
        rows += f"<tr>{plain}</tr><tr>{cure}</tr>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<p>{html.escape(title_of(report))}</p>" + (table if rows else "")


class Rule(NamedTuple):
    """What is looked for: its code, how bad it is, the reason, and the function."""

    code: str
    severity: str
    reason: str
    find: object


SEVERITIES = "note", "warning", "error"
RULES = (
    Rule("not-finite", "error", "NaN in a buffer stays for ever", not_finite),
    Rule("bad-batch", "error", "one NaN reaches every running statistic", bad_batch),
    Rule("never-updated", "error", "in use it normalizes by 0 and 1", never_updated),
    Rule("far-statistics", "error", "it is used on other data", far_statistics),
    Rule("training-layer", "error", "answers depend on neighbours", training_layer),
    Rule("lost-activation", "error", "the network became linear there", lost_parts),
    Rule("time-axis", "error", "positions are taken for channels", time_axis),
    Rule("shared-layer", "error", "one average fits neither place", shared_layer),
    Rule("thawed", "error", "a frozen network changes all the same", thawed),
    Rule("eval-layer", "warning", "it trains against old statistics", eval_layer),
    Rule("untracked", "warning", "answers depend on neighbours", untracked),
    Rule("momentum", "warning", "the last batch is all that is kept", momentum_sense),
    Rule("half-statistics", "warning", "small updates are lost", half_statistics),
    Rule("few-values", "warning", "a deviation of few values is noise", few_values),
    Rule("padding", "warning", "filling is counted as data", padding),
    Rule("unsynchronized", "warning", "every process has its own", unsynchronized),
    Rule("zero-weights", "warning", "channels are switched off", zero_weights),
    Rule("dead-channels", "warning", "noise is multiplied", dead_channels),
    Rule("useless-bias", "note", "it costs, and does nothing", useless_bias),
    Rule("weight-decay", "note", "γ and β are pulled to 0", weight_decay),
    Rule("int8-range", "note", "one scale leaves most channels no digits", int8_range),
)


def wanted(ignore, severity):
    """Return the rules to apply, and [(code, pattern of layer names)] to leave out."""
    codes = [rule.code for rule in RULES]
    parts = [
        text.partition(":")
        for text in ([ignore] if isinstance(ignore, str) else ignore)
    ]
    pairs = [(code, pattern or "*") for code, _, pattern in parts]
    unknown = [code for code, _ in pairs if code not in codes]
    if unknown:
        what = f"ignore must hold codes, or code:layer, got {unknown}"
        raise ValueError(f"{what}; known are {codes}")
    if severity not in SEVERITIES:
        what = f"severity must be one of {SEVERITIES}, the least to report"
        raise ValueError(f"{what}; got {severity!r}")
    least = SEVERITIES.index(severity)
    rules = [r for r in RULES if SEVERITIES.index(r.severity) >= least]
    return [r for r in rules if (r.code, "*") not in pairs], pairs


def is_left(finding, pairs):
    """Return whether (code, pattern of layer names) leaves a finding out."""
    return any(finding.code == c and fnmatchcase(finding.layer, p) for c, p in pairs)


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
    rules, left = wanted(ignore, severity)
    seen = survey(model, batch, optimizer, forward)
    found = [f for rule in rules for f in rule.find(seen) if not is_left(f, left)]
    shared = {f.layer for f in found if f.code == "shared-layer"}  # none fit these
    found = [
        f for f in found if (f.code, f.layer in shared) != ("far-statistics", True)
    ]
    wrapped = getattr(given, "module", None) is model
    return Report(found, len(seen.norms), "model.module" if wrapped else "model")
