"""What was run and how to read the tables of a report, in sentences."""

from __future__ import annotations

from datetime import timedelta

from specdec.bench.benchmark_report import Ratio, Report, Result
from specdec.bench.report_tables import range_text, ratio_text
from specdec.bench.setting_names import temperature_text

_SHOWN_DIFFERENCES = 5


def notes(report: Report) -> list[str]:
    """What was run and how to read the tables, a sentence or two each."""
    settings, prompts = report.settings, report.prompts
    shortest, longest = prompts["tokens"]["min"], prompts["tokens"]["max"]
    lengths = f"{shortest} to {longest}" if shortest < longest else str(longest)
    turns = prompts["turns"]["max"]
    answered, each = (f", up to {turns} turns", " each") if turns > 1 else ("", "")
    fields = "".join(f", {name}={value}" for name, value in settings["fields"].items())
    done = report.repetitions
    lines = [
        f"{report.model}, {report.dtype} on {report.device}{_networks(report)}; "
        f"{report.machine['processor']}, "
        f"{report.machine['threads']} of {report.machine['cores']} cores.",
        f"{_prompts(report)} of {lengths} tokens{answered}, "
        f"at most {settings['max_new_tokens']} new tokens{each}, batch {settings['batch_size']}, "
        f"temperature {temperature_text(settings['temperature'])}{fields}; {done} "
        f"{'repetition' if done == 1 else 'repetitions'}, interleaved.",
        "speedup: tokens/s beside plain on the same prompts in the same repetition; median over "
        "prompts, then over repetitions. Over prompts: its quartiles. Over runs: the least and the "
        "largest of the repetitions. The whole call counts, set-up and prefill included.",
        "95 % interval: of tau and of the median ratio, by bootstrap over prompts.",
        *_beside_hf(report),
        *_by_phase(report),
        f"noise: plain beside itself {ratio_text(report.noise)}{_within(report.noise)}.",
        f"memory: {report.memory}.",
        f"all runs: {timedelta(seconds=round(report.seconds))} (h:mm:ss), without loading and "
        "warming up.",
    ]
    if report.inflated:
        lines.append(
            f"Synthetic: inflated from {report.inflated}; the cost of the large model, the text "
            "of the small one."
        )
    if report.interrupted:
        lines.append(f"Interrupted: these are the runs that were finished{_by_set(report)}.")
    if report.failure:
        lines.append(f"It ended there: {report.failure}.")
    for result in report.results:
        if result.identical is None:
            lines.append(f"{result.strategy}: {result.identical_reason}.")
        elif result.differences:
            lines.append(f"{result.strategy}: {result.identical_reason}: {_where(result)}.")
    return lines


def _prompts(report: Report) -> str:
    """``60 prompts``, or ``19 of 60 prompts`` where not all that were given were measured."""
    measured = sum(report.prompts_measured.values())
    given = sum(report.prompts["sets"].values())
    noun = "prompt" if given == 1 else "prompts"
    return f"{given} {noun}" if measured == given else f"{measured} of {given} {noun}"


def _by_set(report: Report) -> str:
    """How many prompts of each set were measured, where there are several sets and not all were."""
    given, measured = report.prompts["sets"], report.prompts_measured
    if len(given) == 1 or measured == given:
        return ""
    return ", " + ", ".join(f"{name} {measured[name]} of {given[name]}" for name in given)


def _beside_hf(report: Report) -> list[str]:
    if not any(result.beside_transformers for result in report.results):
        return []
    return ["beside HF: the same beside transformers' own generate on the same model."]


def _by_phase(report: Report) -> list[str]:
    if report.device.startswith("cpu"):
        return []
    return ["share of time: the host's; what a GPU still computes counts in the phase that waits."]


def _within(ratio: Ratio) -> str:
    spread = ratio.over_repetitions or ratio.over_prompts
    return f" ({range_text(spread)})" if spread else ""


def _where(result: Result) -> str:
    shown = [
        f"{d.set} {d.prompt}{f', turn {d.turn + 1},' if d.turn else ''} at new token {d.position}"
        + ("" if d.logit_gap is None else f", the two best logits {d.logit_gap:.2g} apart")
        for d in result.differences[:_SHOWN_DIFFERENCES]
    ]
    more = len(result.differences) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _networks(report: Report) -> str:
    """What was done to specdec's networks, if anything."""
    what = {
        "weights packed": report.pack,
        "networks compiled": report.compile,
    }
    return "".join(f", {name} (not transformers')" for name, done in what.items() if done)
