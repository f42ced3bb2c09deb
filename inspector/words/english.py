"""Every sentence that ``describe`` says. A second language is a second table with the same keys and the same fields."""

from __future__ import annotations

from collections.abc import Mapping

ENGLISH: Mapping[str, str] = {
    # assessment
    "assessment.overall": "{name}: of {n} samples the model answers {accuracy} right; with another such sample this "
    "could be anywhere from {low} to {high} (95% interval).",
    "assessment.nothing": "{name}: no samples were assessed, so nothing can be said.",
    "assessment.macro": "Averaged over classes: precision {precision}, recall {recall}, F1 {f1}.",
    "assessment.worst_class": "It does worst on {label}: of {n} true ones it finds {found}{mistaken}.",
    "assessment.mistaken": ", and takes {count} of them for {other}",
    "assessment.perfect": "It makes no mistake on these samples, which does not mean that it never would.",
    "assessment.silent_class": "It never answers {labels}.",
    "assessment.groups": "By {column}: best for {best} ({best_rate} of n = {best_n}), worst for {worst} ({worst_rate} of "
    "n = {worst_n}), {gap} points apart.",
    "assessment.one_group": "By {column} there is only one group, so nothing can be compared.",
    "assessment.gap_doubt": "The 95% intervals of these two ({worst_low} to {worst_high}, and {best_low} to {best_high}) "
    "overlap: the gap may be chance.",
    "assessment.gap_sure": "Their 95% intervals ({worst_low} to {worst_high}, and {best_low} to {best_high}) do not "
    "overlap; the two were picked as the extremes of {count} groups, which makes gaps look larger than they are.",
    "assessment.unequal": "More than chance: {what}.",
    "assessment.more_unequal": "{count} more such differences are in the record.",
    "assessment.none_unequal": "Tested over all groups and rates at once, no group differs from the others by more than "
    "chance; with few samples only large differences could have been found.",
    "assessment.small_group": "Groups of fewer than {limit} samples say little by themselves: {groups}.",
    # attribution
    "attribution.what": "{method}{layer} explains {target} for {n} sample{s}{baseline}.",
    "attribution.at_layer": " at layer {layer}",
    "attribution.baseline": ", measured against the baseline {baseline}",
    "attribution.varying_target": "each sample's own target",
    "attribution.target": "{target}",
    "attribution.spread": "{part}The tenth of the positions that count most ({top} of {positions}) carry {share} of all "
    "attribution; were it spread evenly, they would carry {even}.",
    "attribution.part": "Of the input {name}: ",
    "attribution.signs": "Of the attribution {positive} speaks for the target and {negative} against.",
    "attribution.unsigned": "The values carry no sign: they tell how much, not for or against.",
    "attribution.strongest": "On average over the samples the strongest are {items}.",
    "attribution.evidence": "{share} of the attribution lies on the true evidence, which covers {area} of the "
    "positions{ratio}.",
    "attribution.evidence_ratio": " ({ratio} times what chance would give)",
    "attribution.delta_good": "The values add up to what the method promises within {worst} ({share} of the largest sum).",
    "attribution.delta_bad": "The values miss the sum that the method promises by up to {worst} (sample {index}; {share} of "
    "the largest sum): more steps, or a method without rules, may be needed before the values are believed.",
    "attribution.no_delta": "This method does not claim that its values add up to anything.",
    "attribution.zero": "{count} of {n} samples got zero everywhere: for these there is no explanation.",
    "attribution.broken": "{count} of the values are not finite: something is wrong before any of this can be read.",
    "attribution.coarse": "The map has {size} values for an input of {full}: finer than that, nothing is known.",
    "attribution.no_positions": "{part}The values ({shape}) have no positions to rank.",
    "attribution.doubt": "This says what moved the model's output under this method, not what is true of the world; compare "
    "several methods before believing one.",
    # comparison
    "comparison.what": "{methods} method{s} were compared on {n} samples{controls}.",
    "comparison.controls": ", with {controls} as control",
    "comparison.best": "{metric} ({better} is better): best is {label} with {mean} [{low}, {high}].",
    "comparison.beats": "{count} of {methods} methods beat the {control} control here beyond chance: {labels}.",
    "comparison.none_beats": "No method beats the {control} control here beyond chance.",
    "comparison.also_beats": "The {control} control is beaten by {labels}.",
    "comparison.also_none": "None beats the {control} control.",
    "comparison.tie": "It cannot be told apart from {labels} on these samples.",
    "comparison.undefined": "{metric} is not defined for {labels}.",
    "comparison.direction": "{metric} does not say which way is better, so nothing is ranked by it: {values}.",
    "comparison.agree": "The methods agree: {name} {mean} on average between any two.",
    "comparison.partly": "The methods agree only in part: {name} {mean} on average, least between {first} and {second} "
    "({lowest}).",
    "comparison.disagree": "The methods disagree: {name} {mean} on average, least between {first} and {second} ({lowest}); "
    "at most one of them can be right about the ranking.",
    "comparison.overlap": "Other agreement: {name} {mean} on average, {lowest} between {first} and {second}.",
    "comparison.cost": "The cheapest is {cheap} ({cheap_cost}), the dearest {dear} ({dear_cost}).",
    "comparison.seconds": "{seconds} s",
    "comparison.few": "With {n} samples the intervals are wide or empty: take more before choosing a method.",
    "comparison.warning": "Careful: {warning}",
    # history
    "history.what": "{name}: {count} {unit}s were recorded.",
    "history.nothing": "{name}: nothing was recorded.",
    "history.scalar": "{scalar} went from {first} to {last}, at its {extreme} {best} at {unit} {step}.",
    "history.lowest": "lowest",
    "history.highest": "highest",
    "history.broken_scalar": "{scalar} was not finite at {count} of {n} {unit}s, first at {unit} {step}.",
    "history.overfit": "{scalar} has risen from {best} at {unit} {step} to {last} while {training} went on falling to "
    "{now}: from there on the model fits the training data only.",
    "history.gap": "At the end {scalar} is {value} on the training data and {held} on held-out data.",
    "history.none_found": "No rule found anything wrong. Rules look only for what they know.",
    "history.no_stats": "No statistics of layers were recorded, so no rule could look at them.",
    "history.one_found": "One finding.",
    "history.found": "{count} findings, the earliest first.",
    "history.more_findings": "{count} more findings are not told here.",
    # findings
    "finding.one": "Since {unit} {step}: {message} ({value} against a threshold of {threshold}).{advice}",
    "finding.none": "There is no finding.",
    # store
    "store.what": "{calls} call{s} of {modules} module{ms} were captured ({kinds}), {bytes} in all.",
    "store.several": "{count} modules ran more than once, most often {name} ({times} times).",
    "store.missing": "{count} chosen module{s} never ran: {reasons}.",
    "store.broken": "Not finite: {sites}. The first in run order is {first}.",
    "store.dead": "Channels that are zero for every sample here: {sites}.",
    "store.zero": "Zero everywhere: {sites}.",
    "store.fine": "Every captured number is finite.",
    "store.no_value": "There is no {kind} at {count} site{s}: {reason}.",
    "store.empty": "Nothing was captured.",
    "call.what": "{site} is one call of {module}.",
    "call.tensor": "{name} is {shape} {dtype}: {digest}.",
    # small nouns
    "samples.what": "{n} sample{s} with inputs {shapes}.",
    "samples.classes": "They fall into {classes} classes, from {fewest} of {rare} to {most} of {common}.",
    "samples.evidence": "The true evidence is known and covers {area} of the positions.",
    "samples.padding": "{share} of the steps are padding.",
    "task.what": "{name} has {train} samples to train on and {test} to test.",
    "scores.what": "{labels} methods are scored by {metrics}.",
    "curve.what": "Over {n} samples the mean goes from {first} to {last}, with an area of {area}.",
    "coverage.what": "{ran} of {n} chosen modules ran.",
    # summary
    "summary.what": "{model} has {parameters} parameters, of which {trainable} are trainable, in {modules} modules.",
    "summary.largest": "The most lie in {name} ({kind}): {count}, or {share}.",
    "summary.work": "One run of this input takes {macs} multiply-adds, most of them in {name} ({share}).",
    "summary.uncounted": "Not counted: {skipped}. The true work is larger ({counted} of {total} operations are counted).",
    "summary.memory": "Outputs take {outputs}; {saved} are kept for backward.",
    "summary.time": "A run took {seconds} (median).",
    "summary.not_run": "The model was not run, so shapes, work and memory are not known.",
    "summary.shared": "{count} rows share their parameters with another; each parameter is counted once.",
    # several
    "and": " and ",
    "more": "{count} more",
}
