"""``python -m paper.appendix_c``: the audit of Appendix C; tables of its functions; its page."""

from __future__ import annotations

import argparse
import csv
import sys
import textwrap
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from logit_distributions.errors import ReproError
from paper import exit_code, parser_of
from paper.appendix_c import surrogate

COLUMNS = ("beta", "f_plus", "f_minus", "g_plus", "psi_plus", "g_minus", "psi_minus")


def parse_range(text: str) -> list[float]:
    """Return the values of ``START:STOP:STEP``, both ends included.

    Raises
    ------
    ReproError
        If the text is no such range, or STOP is not a whole number of steps from START.
    """
    try:
        start, stop, step = (Decimal(part) for part in text.split(":"))
        steps = (stop - start) / step
        count = int(steps)
    except (ValueError, ArithmeticError, InvalidOperation):
        count, steps = -1, Decimal(0)
    if count < 0 or count != steps:
        raise ReproError(
            f"--beta {text}: expected START:STOP:STEP with STOP a whole number of steps above "
            "START, such as 0.25:12:0.25"
        )
    return [float(start + i * step) for i in range(count + 1)]


def table(arguments: argparse.Namespace) -> int:
    """Print f, g and ψ as CSV; ``nan`` where they are not real."""
    beta = parse_range(arguments.beta)
    f = surrogate.correct_roots(beta, arguments.classes, arguments.variant)
    if arguments.branch == 2:
        g = surrogate.second_branch(beta, arguments.classes)
    else:
        g = surrogate.wrong_roots(beta, arguments.classes, arguments.variant)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in zip(beta, *f, *g, strict=True):
        writer.writerow(repr(float(value)) for value in row)
    return 0


def audit(arguments: argparse.Namespace) -> int:
    """Print every erratum, the proofs and the verdicts; 0 only if every proof ran."""
    from paper.appendix_c import networks
    from paper.appendix_c.errata import errata, run_proofs
    from paper.appendix_c.verdicts import verdicts

    formulas, studies = errata(), networks.stored()
    print("ERRATA (printed residual, corrected residual)")
    for erratum in formulas:
        mark = "" if erratum.stands else "  NOT BORNE OUT"
        print(f"\n{erratum.place}: {erratum.printed}{mark}")
        print(f"    {erratum.residual:.3g}, {erratum.corrected:.2g}  ({erratum.measure})")
        print(_indented(erratum.finding))
        print(_indented(f"proof: {', '.join(erratum.proofs) or 'by definition'}"))
    print("\nCLAIMS")
    for verdict in verdicts(studies):
        print(f"\n{verdict.claim.id}: {verdict.verdict}")
        print(_indented(verdict.reason))
    print("\nNETWORKS\n")
    print("\n".join(networks.report(studies)))
    print("\nPROOFS")
    outcome = run_proofs()
    for name, result in outcome.items():
        print(f"{name:24}{result}")
    proved = sum(result == "proved" for result in outcome.values())
    standing = sum(erratum.stands for erratum in formulas)
    print(
        f"\n{proved} of {len(outcome)} proofs ran and hold; "
        f"{standing} of {len(formulas)} errata borne out"
    )
    return 0 if proved == len(outcome) and standing == len(formulas) else 1


def _indented(text: str) -> str:
    return textwrap.fill(text, 96, initial_indent="    ", subsequent_indent="    ")


def page(arguments: argparse.Namespace) -> int:
    """Write paper/appendix-c.md and print its path."""
    from paper.appendix_c.page import write

    print(write())
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m paper.appendix_c`` and return its exit code."""
    parser = parser_of("paper.appendix_c", "Print errata, proofs and a verdict per claim.")
    parser.set_defaults(handler=audit)
    commands = parser.add_subparsers(metavar="COMMAND")
    tables = commands.add_parser("table", help="print f, g and ψ of eqs. (4) and (5) as CSV")
    tables.add_argument("--classes", type=int, default=10, metavar="N")
    tables.add_argument("--variant", choices=surrogate.VARIANTS, default="corrected")
    tables.add_argument("--beta", default="0.25:12:0.25", metavar="START:STOP:STEP")
    tables.add_argument(
        "--branch",
        type=int,
        choices=(1, 2),
        default=1,
        help="2: the misclassified solutions that eq. (5) leaves out, the same in all variants",
    )
    tables.set_defaults(handler=table)
    commands.add_parser("page", help="write paper/appendix-c.md").set_defaults(handler=page)
    parsed = parser.parse_args(arguments)
    return exit_code("appendix C", lambda: int(parsed.handler(parsed)))


if __name__ == "__main__":
    sys.exit(main())
