"""Print a verdict on every claim of the paper: ``python -m paper.claims [ID ...]``."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from logit_distributions.errors import ReproError
from paper import exit_code, parser_of
from paper.appendix_c import networks
from paper.appendix_c.verdicts import verdicts as appendix_c
from paper.claims import elsewhere, placebo
from paper.claims.verdicts import (
    UNDECIDED,
    VERDICTS,
    Verdict,
    basis,
    judge,
    measured,
    number,
    register,
)


def verdicts(ids: Sequence[str] = ()) -> list[Verdict]:
    """Return what becomes of every claim, or of some by id, the most surprising first.

    First what does not hold, then what the data leave undecided, what holds in direction only,
    and what holds; last what needs the paper's scale, a missing file, or networks that nobody
    trained here. Among what does not hold, and what holds as stated, the clearest is first;
    among what holds in direction, what falls short of the statement, by how clearly.

    Raises
    ------
    ReproError
        If there is no claim of such an id.
    """
    claims = {claim.id: claim for claim in register()}
    if unknown := [name for name in ids if name not in claims]:
        raise ReproError(f"no claim {unknown[0]!r}; 'make claims' prints the ids of all")
    wanted = [claims[name] for name in ids] or list(claims.values())
    judged = [judge(claim) for claim in wanted if claim.measure is not None]
    if any(claim.measure is None for claim in wanted):
        judged += [each for each in appendix_c(networks.stored()) if each.claim in wanted]
    return sorted(judged, key=_surprise)


def _surprise(verdict: Verdict) -> tuple[Any, ...]:
    return VERDICTS.index(verdict.verdict), not verdict.short, -verdict.clearness


def plain(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as plain data, for JSON."""
    entry = asdict(verdict)
    claim = entry.pop("claim")
    stated = {key: value for key, value in claim.items() if value not in (None, "")}
    judged = {key: value for key, value in entry.items() if value not in (None, "", ())}
    return stated | {"rule": verdict.claim.rule} | judged


def lines(judged: Sequence[Verdict], details: bool = False, width: int = 0) -> Iterator[str]:
    """Yield the verdicts, grouped, one line each, cut to `width` unless 0; more with `details`."""
    for name in VERDICTS:
        group = [verdict for verdict in judged if verdict.verdict == name]
        if not group:
            continue
        yield f"{name.upper()}: {len(group)} of {len(judged)}"
        for verdict in group:
            text = f"“{verdict.claim.quotation}”"
            if name == UNDECIDED or not verdict.judged:
                text = verdict.reason
            elif verdict.short:
                text = f"[{verdict.reason}] {text}"
            line = f"  {verdict.claim.id:32s} {measured(verdict):36s} {text}"
            cut = width and not details and len(line) > width
            yield line[: width - 1] + "…" if cut else line
            if details:
                yield from _details(verdict)
        yield ""


def _details(verdict: Verdict) -> Iterator[str]:
    claim = verdict.claim
    yield f"      paper     {claim.place}: “{claim.quotation}”"
    yield f"      measured  {claim.statistic}"
    if claim.measure:
        yield f"                {claim.measure}"
    yield f"      rule      {claim.rule}"
    yield f"      fixed     {claim.fixed}{f': {claim.because}' if claim.because else ''}"
    if verdict.reason:
        yield f"      verdict   {verdict.verdict}: {verdict.reason}"
    if verdict.each:
        values = ", ".join(map(number, verdict.each))
        yield f"      each      {values}  ({basis(verdict)})"
    yield f"      see       {claim.artefact}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the verdicts and return the exit code."""
    parser = parser_of("paper.claims", "Judge every claim of the paper by the stored data.")
    parser.add_argument("ids", nargs="*", metavar="ID", help="only these claims (default all)")
    parser.add_argument("--details", action="store_true", help="quotation, measure, rule, seeds")
    parser.add_argument(
        "--placebo", action="store_true", help="which rules hold where there is nothing to find"
    )
    parser.add_argument(
        "--on", nargs="+", type=Path, metavar="FILE",
        help="judge section 4.1's claims on one network by other datasets of logits",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON, with all details")
    parsed = parser.parse_args(arguments)
    return exit_code("claims", lambda: _print(parsed))


def _print(parsed: argparse.Namespace) -> int:
    if parsed.on:
        print("\n".join(elsewhere.lines(parsed.on)))
        return 0
    judged = verdicts(parsed.ids)
    if parsed.placebo:
        print("\n".join(placebo.lines(placebo.trials(judged))))
        return 0
    if parsed.json:
        print(json.dumps([plain(each) for each in judged], indent=2, ensure_ascii=False))
        return 0
    width = shutil.get_terminal_size((0, 0)).columns  # 0: no terminal, lines of any length
    print("\n".join(lines(judged, parsed.details, width)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
