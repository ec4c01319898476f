"""The report: one HTML file with every artefact, the verdicts beside it, and an explorer.

The charts of the explorer are drawn by a short script of its own: they redraw at every key press,
and a plotting library would be most of the page.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import xarray as xr
from markupsafe import Markup
from matplotlib import ticker
from numpy.typing import NDArray
from PIL import Image

from logit_distributions import plans, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.store import files, places
from paper import artefacts, exit_code, parser_of, selection, style, tables, tableV, title
from paper.__main__ import names
from paper.beyond import __main__ as ours
from paper.claims import placebo
from paper.claims import verdicts as claims
from paper.claims.__main__ import verdicts
from paper.claims.terms import QUANTITIES

WEB = Path(__file__).with_name("web")
SURPRISING = 10
COLUMNS = 40
BINS = 240

MARKS: dict[str, dict[str, str]] = {
    "does not hold": {"key": "no", "sign": "✕", "short": "does not hold"},
    "undecided": {"key": "undecided", "sign": "?", "short": "undecided"},
    "holds in direction": {"key": "weak", "sign": "≈", "short": "in direction"},
    "holds": {"key": "yes", "sign": "✓", "short": "holds"},
    "needs the paper's scale": {"key": "scale", "sign": "↑", "short": "needs the paper’s scale"},
    "a file is missing": {"key": "absent", "sign": "…", "short": "a file is missing"},
    "not trained here": {"key": "untrained", "sign": "–", "short": "not trained here"},
}

APPENDIX_C = "appendixC"


@dataclass(frozen=True)
class Artefact:
    """A table or figure as the page shows it."""

    name: str
    title: str
    group: str
    short: str
    verdicts: list[claims.Verdict]
    table: tables.Table | None = None
    picture: str | None = None
    size: tuple[int, int] = (0, 0)
    caption: str = ""
    problem: str = ""
    note: str = ""
    runs: list[dict[str, str]] = field(default_factory=list)
    recipes: dict[str, str] = field(default_factory=dict)
    attacks: list[str] = field(default_factory=list)


ON_CIFAR100 = ("figureB4", "figureB5", "figureB6")
"""Figures of the teachers on CIFAR-100."""


Content = dict[str, Any]
"""Fields of an `Artefact`: a table, or a figure's picture, size and caption, or its problem."""


def artefact(name: str, verdicts: list[claims.Verdict], content: Content) -> Artefact:
    """Return a table or a figure of the paper with the verdicts that belong to it."""
    kind, number = title(name).partition(":")[0].split(" ")
    datasets = _behind(name)
    shown: dict[str, Any] = {
        "title": title(name),
        "group": f"{kind}s",
        "short": number,
        "verdicts": verdicts,
        "runs": [_provenance(each) for each in datasets],
        "recipes": {
            f"{store.recipe_of(each)['name']}, scale {each.attrs['scale']}": each.attrs["recipe"]
            for each in datasets
        },
        "attacks": sorted({each.attrs["evaluation"] for each in datasets}),
    }
    return Artefact(name, **content, **shown)


def _content(part: tuple[str, str]) -> Content:
    """Return what the table or the figure of a script shows, or what it lacks."""
    name, kind = part
    make = artefacts.parts(name)[kind]
    try:
        if kind == "table":
            return {"table": make()}
        figure = style.save(name, make)
    except ReproError as error:
        return {"problem": str(error).replace(f"{places.ROOT}/", "")}
    file = places.build() / "figures" / f"{name}.png"
    with Image.open(file) as picture:
        panels = _without(style.height_of_caption(figure), picture)
    caption = file.with_suffix(".txt").read_text(encoding="utf-8").strip()
    return {"picture": _png(panels), "size": panels.size, "caption": caption}


def _without(caption: float, picture: Image.Image) -> Image.Image:
    """Return a picture without this share at the bottom: the page has the caption as text."""
    width, height = picture.size
    return picture.crop((0, 0, width, height - round(caption * height) - 2))


def _behind(name: str) -> list[xr.Dataset]:
    """Return the stored logit datasets that an artefact's plan names.

    Of the scale that a figure takes, which is that of `selection.select`, or of all that a table
    prints.
    """
    if name == "tableV":
        return [each for each, _ in tableV.verified()] + [each for _, each in tableV.verified()]
    if name in ON_CIFAR100:
        try:
            teachers = selection.select("logits", recipes.TEACHERS, "cifar100", paired=False)
        except store.Missing:
            return []
        return [each for some in teachers.by_name.values() for each in some]
    plan = {"table3": "table2", "tableS": "table2"}.get(name, name)
    if plan not in plans.SHOWN:
        return []
    if name.startswith("table"):
        try:
            runs = selection.printed(
                "logits", plans.TABLE2 if plan == "table2" else recipes.TEACHERS
            )
        except store.Missing:
            return []
        return [each for some in runs for row in some.by_name.values() for each in row]
    chosen: dict[str, list[xr.Dataset]] = {}
    for scale in reversed(selection.scales()):
        names_of_plan = plans.names(plan, recipes.SCALES[scale])
        stored = {n: store.find("logits", n, scale=scale) for n in names_of_plan}
        if not any(chosen.values()) or all(
            some and len(some) >= len(chosen.get(recipe, [])) for recipe, some in stored.items()
        ):
            chosen = stored
    return [each for some in chosen.values() for each in some]


def _teachers() -> selection.Selection:
    return selection.select("logits", recipes.TEACHERS)


def _provenance(dataset: xr.Dataset) -> dict[str, str]:
    attributes = dataset.attrs
    log = store.find("log", store.recipe_of(dataset)["name"], attributes["dataset"])
    seconds = [
        each["seconds"].values.sum() for each in log if each.attrs["run"] == attributes["run"]
    ]
    engine = json.loads(attributes["evaluation"])["engine"]
    folder = "logits" if engine == recipes.Evaluation.engine else f"logits/{engine}"
    return {
        "file": f"{folder}/{attributes['run']}.nc",
        "epoch": str(attributes["checkpoint_epoch"]),
        "made": attributes["created_at"][:10],
        "commit": attributes["commit"][:10],
        "device": json.loads(attributes["training"])["device"],
        "hours": f"{seconds[0] / 3600:.2f}" if seconds else "",
        "sha256": attributes["content_sha256"][:12],
    }


def strip(verdict: claims.Verdict) -> Markup:
    """Return a verdict's number on an axis: rule shaded, interval, every seed; as SVG and text."""
    assert verdict.value is not None
    assert verdict.low is not None
    assert verdict.high is not None
    windows = {
        name: claims.Window.parse(text)
        for name, text in (("direction", verdict.claim.direction), ("stated", verdict.claim.stated))
        if text
    }
    bounds = [b for w in windows.values() for b in (w.low, w.high) if np.isfinite(b)]
    marks = [*bounds, *verdict.each, verdict.low, verdict.high]
    if not np.isfinite(marks).all():
        return Markup("")
    margin = 0.12 * ((max(marks) - min(marks)) or 1)
    low, span = min(marks) - margin, (max(marks) - min(marks)) + 2 * margin

    def x(value: float) -> float:
        return round(260 * min(max((value - low) / span, 0.0), 1.0), 1)

    parts = [
        f'<rect class="{name}" x="{x(w.low)}" y="2" width="{x(w.high) - x(w.low)}" height="18"/>'
        for name, w in windows.items()
    ]
    parts += [f'<line class="bound" x1="{x(b)}" x2="{x(b)}" y1="2" y2="20"/>' for b in set(bounds)]
    steps = [
        float(tick)
        for tick in ticker.MaxNLocator(3).tick_values(low, low + span)
        if 0.04 <= (tick - low) / span <= 0.96
    ]
    parts += ['<line class="axis" x1="0" x2="260" y1="22" y2="22"/>']
    parts += [f'<line class="axis" x1="{x(t)}" x2="{x(t)}" y1="22" y2="26"/>' for t in steps]
    parts += [f'<line class="seed" x1="{x(v)}" x2="{x(v)}" y1="6" y2="16"/>' for v in verdict.each]
    parts += [
        f'<line class="interval" x1="{x(verdict.low)}" x2="{x(verdict.high)}" y1="11" y2="11"/>'
    ]
    parts += [f'<circle class="mean" cx="{x(verdict.value)}" cy="11" r="3.2"/>']
    numbers = "".join(
        f'<span style="left: {100 * x(tick) / 260:.1f}%">{claims.number(tick)}</span>'
        for tick in steps
    )
    return Markup(
        f'<svg class="strip" viewBox="0 0 260 26" preserveAspectRatio="none" aria-hidden="true">'
        f'{"".join(parts)}</svg><span class="axis" aria-hidden="true">{numbers}</span>'
    )


def explorer() -> dict[str, Any]:
    """Return what the explorer needs: logits, labels and distributions, as JSON.

    The logits of the pictured images are 16-bit integers, little-endian, in base64: natural,
    then adversarial, each image by class; times the network's ``scale`` they are logits.
    """
    scale = _teachers().scale
    pictures = selection.pictures()
    datasets = [
        each
        for name in recipes.names(recipes.SCALES[scale])
        for each in store.find("logits", name, scale=scale)
    ]
    count = len(pictures)
    labels = datasets[0]["label"].values[:count]
    units, runs = [], []
    values = {
        name: [of(each["logits"].values) for each in datasets] for name, of in QUANTITIES.items()
    }
    rounding = max(float(each.attrs["rounded_to"]) for each in datasets)
    bins = {name: _bins(each, rounding) for name, each in values.items()}
    for i, each in enumerate(datasets):
        if not np.array_equal(each["index"].values[:count], np.arange(count)):
            raise ReproError(f"{each.attrs['run']}: expected results on the first {count:,} images")
        both = np.stack([each[n].values[:count] for n in ("logits", "adversarial_logits")])
        unit = float(np.abs(both).max()) / 32767
        units.append(unit)
        runs.append(
            {
                "label": _label(each),
                "scale": unit,
                "logits": base64.b64encode(np.rint(both / unit).astype("<i2").tobytes()).decode(),
                "robust": "".join("01"[int(r)] for r in each["robust"].values[-1, :count]),
                **{name: _shares(values[name][i], bins[name]) for name in QUANTITIES},
            }
        )
    names = [store.recipe_of(each)["name"] for each in datasets]
    data = {
        "classes": [str(name) for name in datasets[0]["class"].values],
        "labels": labels.tolist(),
        "count": count,
        "columns": COLUMNS,
        "rows": -(-count // COLUMNS),
        "bins": bins,
        "first": names.index("at"),
        "second": names.index("st"),
        "runs": runs,
    }
    return data | {
        "json": inline(data),
        "error": f"{max(units) / 2:.1g}",
        "sheet": _sheet(pictures),
    }


def inline(data: Any) -> Markup:
    """Return JSON that may stand in a script: a class named ``<!--<script>`` does not end it."""
    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))


def _label(dataset: xr.Dataset) -> str:
    name = store.recipe_of(dataset)["name"]
    network = selection.label(name) if name in recipes.TEACHERS else f"student {name}"
    return f"{network}, seed {dataset.attrs['seed']}"


def _bins(values: list[NDArray[np.floating]], rounding: float) -> dict[str, Any]:
    """Return at most `BINS` equal bins, each of as many multiples of the rounding."""
    edges = style.edges_between(
        min(float(v.min()) for v in values), max(float(v.max()) for v in values), BINS, rounding
    )
    return {"low": float(edges[0]), "high": float(edges[-1]), "number": len(edges) - 1}


def _shares(values: NDArray[np.floating], bins: dict[str, Any]) -> list[float]:
    counts, _ = np.histogram(values, bins["number"], (bins["low"], bins["high"]))
    return [round(float(share), 4) for share in counts / len(values)]


def _sheet(pictures: NDArray[np.uint8]) -> str:
    """Return the pictures on one PNG, `COLUMNS` in a row, as a data URI."""
    count, _, height, width = pictures.shape
    rows = -(-count // COLUMNS)
    sheet = np.zeros((rows * COLUMNS, height, width, 3), np.uint8)
    sheet[:count] = pictures.transpose(0, 2, 3, 1)
    tiles = sheet.reshape(rows, COLUMNS, height, width, 3).transpose(0, 2, 1, 3, 4)
    return _png(Image.fromarray(tiles.reshape(rows * height, COLUMNS * width, 3)))


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def page() -> str:
    """Return the whole page."""
    explored = explorer()
    judged, shown = verdicts(), names()
    named: dict[str, list[claims.Verdict]] = {}
    for each in judged:
        artefact_of = each.claim.artefact
        named.setdefault(artefact_of if artefact_of in shown else APPENDIX_C, []).append(each)
    scripts = [*shown, *(f"beyond.{name}" for name in ours.names())]
    parts = [(name, kind) for name in scripts for kind in artefacts.parts(name)]
    contents = list(zip(parts, artefacts.side_by_side(_content, parts), strict=True))
    on_page = [
        artefact(name, named.get(name, []), content)
        for (name, _), content in contents
        if name in shown
    ]
    on_page.append(
        Artefact(
            APPENDIX_C,
            "Appendix C: what follows, what does not",
            "Appendix",
            "C",
            named.get(APPENDIX_C, []),
            note="paper/appendix-c.md has the errata, their proofs and the tables.",
        )
    )
    on_page += [
        Artefact(
            f"{name.replace('.', '-')}-{kind}", title(name), "Beyond the paper",
            name.removeprefix("beyond."), [], **content,
        )
        for (name, kind), content in contents
        if name not in shown
    ]  # fmt: skip
    counts = Counter(each.verdict for each in judged)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(WEB), autoescape=jinja2.select_autoescape(),
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["short_number"] = claims.number
    css = environment.get_template("style.css").render(explored)
    return environment.get_template("page.html").render(
        css=Markup(css),
        script=Markup((WEB / "explorer.js").read_text(encoding="utf-8")),
        lead=_lead(),
        verdicts=judged,
        surprising=judged[:SURPRISING],
        tally=[MARKS[v] | {"verdict": v, "count": counts[v]} for v in claims.VERDICTS],
        fixed=Counter(each.claim.fixed for each in judged),
        tried=(tried := placebo.trials(judged)),
        by_chance=placebo.by_chance(tried),
        blunt=[each.verdict.claim.id for each in tried if not each.discriminates],
        decided=Counter(each.claim.fixed for each in judged if each.judged),
        marks=MARKS,
        artefacts=on_page,
        explorer=explored,
        made=_made(),
        versions_used=sorted({each.attrs["versions"] for each in store.find("logits")}),
        strip=strip,
        measured=claims.measured,
        basis=claims.basis,
    )


def _lead() -> str:
    runs = _teachers()
    caveat = (
        "They are of the paper’s size and schedule."
        if runs.is_of_the_paper
        else "They test the paper’s orders and directions, not its percentages."
    )
    return (
        "Every number of ours on this page is computed from stored results of networks that were "
        "really trained and really attacked, or, for Appendix C, from formulas. "
        f"{runs.about()} {caveat}"
    )


def _made() -> str:
    count = len(store.find("logits", dataset="*"))
    return (
        f"{count} datasets of logits in {places.data().name}/, each with its recipe, its "
        "seed, the commit and the machine that made it."
    )


def write() -> Path:
    """Write the page to the build folder and return its path."""
    path = places.build() / "report.html"
    with files.atomic(path) as temporary:
        temporary.write_text(page(), encoding="utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report and print its path and size."""
    parser_of("paper.report", __doc__).parse_args(arguments)

    def command() -> int:
        path = write()
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
        return 0

    return exit_code("report", command)


if __name__ == "__main__":
    sys.exit(main())
