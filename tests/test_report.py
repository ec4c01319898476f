"""The report: complete, self-contained; and its explorer in a real browser.

Where there is no browser its tests are skipped; under CI (the variable of this name) they fail.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from logit_distributions import manipulations, plans, recipes, store
from logit_distributions.read import distribution
from paper import report, selection
from paper.claims.verdicts import VERDICTS, Verdict, register
from tests.conftest import STORED

SHOWN = ("table2", "figure2", "figureB4")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The report with some of the artefacts, which saves drawing all, and some data missing."""
    folder = tmp_path_factory.mktemp("build")
    shutil.copytree(STORED, folder / "data", copy_function=os.symlink)
    stored = folder / "data"
    for path in (*(stored / "epochs").glob("cifar100-*"), *(stored / "distances").glob("*")):
        path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_BUILD", str(folder))
        patch.setenv("REPRO_DATA", str(folder / "data"))
        patch.setattr(report, "names", lambda: SHOWN)
        patch.setattr(report.ours, "names", lambda: ["controls", "distances"])
        return report.write()


@pytest.fixture(scope="module")
def text(file):
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def data(text):
    script = re.search(
        '<script type="application/json" id="stored">(.*?)</script>', text, re.DOTALL
    )
    return json.loads(script[1])


def explored(name, seed):
    """Return the dataset of a network that the explorer has, at the scale that readers prefer."""
    scale = selection.select("logits", recipes.TEACHERS).scale
    return store.open_dataset(STORED / "logits" / f"cifar10-{scale}-{name}-seed{seed}.nc")


def test_the_page_asks_no_network_and_is_small(file, text):
    addresses = set(re.findall(r"""https?://[^\s"'<>)]+""", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert file.stat().st_size < 15e6


def test_tables_figures_verdicts_and_provenance_are_there(text):
    dataset = store.open_dataset(STORED / "logits" / "cifar10-small-hybrid-seed0.nc")
    assert f"<code>{dataset.attrs['commit'][:10]}</code>" in text
    assert html.escape(dataset.attrs["recipe"]) in html.escape(html.unescape(text))
    for name in report.ON_CIFAR100:  # of two data sets no more than one is behind a figure
        behind = report._behind(name)
        assert {each.attrs["dataset"] for each in behind} == {"cifar100"}
        assert all(f"logits/{each.attrs['run']}.nc" in text for each in behind)
    assert '<th scope="row">Hybrid ST-AT</th>' in text
    assert text.count("data:image/png") == 3  # Figure 2, the test images, and ours
    assert "epochs/cifar100-small-st-seed0.nc is missing; make it with" in text
    for claim in ("wholly-remove", "gap-few-above-five", "b4-st-mean", "C-minima"):
        assert f'id="claim-{claim}"' in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert str(STORED.parent) not in text


def test_what_the_paper_does_not_have_is_a_group_of_its_own(text):
    for name in ("controls-table", "controls-figure", "distances-table", "distances-figure"):
        assert f'<section id="beyond-{name}"' in text
    assert "<span>Beyond the paper</span>" in text
    assert "make it with &#39;logitdist make distances/st" in text


def test_the_tally_adds_up_and_says_when_rules_were_fixed(text):
    tally = re.search(r'<ul class="legend">(.*?)</ul>', text, re.DOTALL)[1]
    counts = [int(n) for n in re.findall(r"<b>(\d+)</b>", tally)]
    assert [html.unescape(v) for v in re.findall(r"</b> ([^<]+)</li>", tally)] == list(VERDICTS)
    assert sum(counts) == len(register())
    plain = " ".join(re.sub(r"<[^>]+>", "", text).split())
    before, after = (sum(c.fixed == when for c in register()) for when in ("before", "after"))
    assert f"{before} were committed before their number was computed" in plain
    assert f"figure, {after} after" in plain
    assert "would hold by chance if there were nothing to find" in plain
    assert "Not here yet: paper/appendix-c.md" not in plain


def test_bins_of_the_explorer_hold_as_many_roundings_each(data):
    for bins in data["bins"].values():
        width = (bins["high"] - bins["low"]) / bins["number"]
        assert width * 1024 == pytest.approx(round(width * 1024))


def test_stored_logits_are_those_of_the_datasets(data):
    names = [run["label"] for run in data["runs"]]
    run = data["runs"][names.index("AT, seed 1")]
    dataset = explored("at", 1)
    integers = np.frombuffer(base64.b64decode(run["logits"]), "<i2")
    natural, adversarial = run["scale"] * integers.reshape(2, data["count"], -1)
    for ours, name in ((natural, "logits"), (adversarial, "adversarial_logits")):
        np.testing.assert_allclose(ours, dataset[name].values[:1000], atol=0.51 * run["scale"])
    robust = np.array(list(run["robust"])) == "1"
    np.testing.assert_array_equal(robust, dataset["robust"].values[-1, :1000])
    gaps, bins = distribution.logit_gap(dataset["logits"].values), data["bins"]["gap"]
    edges = np.linspace(bins["low"], bins["high"], bins["number"] + 1)
    assert np.sum(run["gap"]) == pytest.approx(1, abs=0.01)
    assert np.average(edges[:-1], weights=run["gap"]) == pytest.approx(gaps.mean(), abs=0.1)
    assert "student hybrid, seed 0" in names
    assert len(plans.TABLE2) <= len(names)


def test_missing_data_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    assert report.main([]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is missing; make it with" in error


def test_names_of_classes_cannot_end_the_script():
    classes = ["<!--<script>", "</script>", "a < b"]
    inline = report.inline(classes)
    assert "<" not in inline
    assert json.loads(inline) == classes


def test_captions_are_text_and_not_in_the_pictures(text, file):
    caption = (file.parent / "figures" / "figure2.txt").read_text().strip()
    assert caption in html.unescape(text)
    sizes = re.search(r'width="(\d+)" height="(\d+)" alt="Figure 2', text)
    width, height = map(int, sizes.groups())
    with Image.open(file.parent / "figures" / "figure2.png") as whole:
        assert whole.size[0] == width
        pixels = np.asarray(whole.convert("L"))
    assert height < len(pixels)
    assert (pixels[height - 4 : height] == 255).all()  # between the panels and the caption
    assert (pixels[height:] < 128).sum() > 1000


def test_strips_have_an_axis():
    claim = next(each for each in register() if each.stated)
    verdict = Verdict(claim, "holds", value=3.0, low=2.0, high=4.0, each=(2.5, 3.5))
    drawn = report.strip(verdict)
    numbers = {float(n): float(at) for at, n in re.findall(r"left: ([\d.]+)%\">([^<]+)<", drawn)}
    assert len(numbers) >= 2
    (mean,) = map(float, re.findall(r'class="mean" cx="([\d.]+)"', drawn))
    low, high = min(numbers), max(numbers)
    share = numbers[low] + (numbers[high] - numbers[low]) * (3 - low) / (high - low)
    assert mean / 2.6 == pytest.approx(share, abs=0.5)


def test_a_missing_browser_fails_under_ci(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="chromium and chromium-driver"):
        programs()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="chromium and chromium-driver"):
        programs()


def programs():
    """Return the browser and its driver; without them skip, or under CI fail."""
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("no browser: install Debian's packages chromium and chromium-driver")
    return paths


@pytest.fixture(scope="module")
def browser(file):
    from selenium import webdriver

    program, driver_program = programs()
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "force-prefers-reduced-motion",
        "window-size=1280,900",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(driver_program)
    with webdriver.Chrome(options=options, service=service) as driver:
        driver.get(file.as_uri())
        yield driver
        complaints = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert complaints == []


def number(browser, name):
    return int(browser.find_element("id", f"{name}-number").text.split()[0])


def press(browser, key, on="body"):
    from selenium.webdriver.common.keys import Keys

    browser.find_element("css selector", on).send_keys(getattr(Keys, key))


def target(browser):
    values = browser.find_elements("css selector", "#target .value")
    return np.array([float(each.text) for each in values])


def choose(browser, how, k):
    browser.find_element("css selector", f'input[value="{how}"]').click()
    browser.execute_script(
        "const k = document.getElementById('k'); k.value = arguments[0];"
        "k.dispatchEvent(new Event('input', {bubbles: true}))",
        k,
    )


def test_arrows_move_between_images(browser):
    browser.execute_script("document.getElementById('explorer').scrollIntoView()")
    press(browser, "HOME")
    assert number(browser, "image") == 1
    first = browser.find_element("id", "bars-a").get_attribute("innerHTML")
    press(browser, "ARROW_RIGHT")
    assert number(browser, "image") == 2
    assert browser.find_element("id", "bars-a").get_attribute("innerHTML") != first
    press(browser, "END")
    assert number(browser, "image") == 1000
    press(browser, "ARROW_LEFT")
    assert number(browser, "image") == 999
    assert "test image 999" in browser.find_element("id", "label").text


def test_sliders_have_names_and_say_their_value(browser):
    press(browser, "HOME")
    image, k = (browser.find_element("id", name) for name in ("image", "k"))
    assert (image.accessible_name, image.get_attribute("min")) == ("Image", "1")
    assert re.fullmatch("1 of 1000, [a-z]+", image.get_attribute("aria-valuetext"))
    assert k.accessible_name == "Logits that stay, k"


def view(browser):
    """Return everything that the explorer shows."""
    drawings = ("bars-a", "bars-b", "density-max", "density-gap", "target", "label")
    return [browser.find_element("id", name).get_attribute("innerHTML") for name in drawings]


def test_the_address_keeps_a_view(browser, file):
    from selenium.webdriver.support.select import Select
    from selenium.webdriver.support.wait import WebDriverWait

    browser.get(file.as_uri())
    assert "#" not in browser.current_url
    first = view(browser)
    Select(browser.find_element("id", "run-b")).select_by_visible_text("student hybrid, seed 0")
    choose(browser, "permute", 2)
    browser.find_element("id", "again").click()
    press(browser, "ARROW_RIGHT", "#image")
    WebDriverWait(browser, 5).until(lambda driver: "draw=1" in driver.current_url)
    shown, address = view(browser), browser.current_url
    assert shown != first
    browser.get("about:blank")
    browser.get(address)
    assert view(browser) == shown
    assert number(browser, "k") == 2
    browser.get(file.as_uri() + "#explorer?a=nobody&image=5000&k=-3&how=%22%5D&draw=x")
    assert (number(browser, "image"), number(browser, "k")) == (1000, 0)
    assert browser.find_element("id", "name-a").text == "AT, seed 0"
    browser.get(file.as_uri())


def test_captions_and_figures_can_be_read_on_a_phone(browser, file):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(file.as_uri())
        caption = browser.find_element("css selector", "#figure2 figcaption")
        assert caption.text.startswith("Figure 2. (A)")
        assert float(caption.value_of_css_property("font-size").removesuffix("px")) >= 14
        assert caption.size["width"] <= 390
        wrap = browser.find_element("css selector", "#figure2 .picture-wrap")
        assert wrap.find_element("tag name", "img").size["width"] > 600
        assert wrap.get_attribute("tabindex") == "0"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.get(file.as_uri())


def test_arrows_on_a_slider_move_the_slider(browser):
    before, k = number(browser, "image"), number(browser, "k")
    press(browser, "ARROW_RIGHT", "#k")
    assert (number(browser, "image"), number(browser, "k")) == (before, k + 1)


def test_manipulations_are_those_of_the_targets(browser):
    dataset = explored("at", 0)
    press(browser, "HOME")
    natural = dataset["logits"].values[0]
    choose(browser, "none", 3)
    np.testing.assert_allclose(target(browser), natural, atol=0.006)
    for k in (0, 3, 9, 10):
        choose(browser, "average", k)
        expected = manipulations.average(natural[None], k)[0]
        np.testing.assert_allclose(target(browser), expected, atol=0.006)
        choose(browser, "permute", k)
        permuted, kept = target(browser), manipulations.ranking(natural[None])[0, :k]
        np.testing.assert_allclose(np.sort(permuted), np.sort(natural), atol=0.006)
        np.testing.assert_allclose(permuted[kept], natural[kept], atol=0.006)
    choose(browser, "permute", 0)
    before = target(browser)
    browser.find_element("id", "again").click()
    assert not np.array_equal(target(browser), before)


def test_another_network_can_be_chosen(browser):
    from selenium.webdriver.support.select import Select

    Select(browser.find_element("id", "run-b")).select_by_visible_text("student hybrid, seed 0")
    assert browser.find_element("id", "name-b").text == "student hybrid, seed 0"
    press(browser, "HOME")
    browser.find_element("id", "differ").click()
    outcomes = [browser.find_element("id", f"outcome-{which}").text for which in "ab"]
    assert sum("robust" in outcome for outcome in outcomes) == 1


def test_every_control_is_reached_by_tab_and_shows_it(browser):
    wanted = {"run-a", "run-b", "image", "previous", "next", "differ", "k", "again"}
    browser.execute_script("document.querySelector('nav a:last-of-type').focus()")
    reached = set()
    for _ in range(400):
        browser.switch_to.active_element.send_keys("\ue004")
        name, outline = browser.execute_script(
            "const e = document.activeElement; return [e.id, getComputedStyle(e).outlineStyle]"
        )
        if name in wanted:
            assert outline == "solid", name
            reached.add(name)
        if reached == wanted:
            return
    pytest.fail(f"Tab reached {reached} only")


@pytest.mark.parametrize("width", [375, 320])
def test_nothing_overflows_on_a_phone(browser, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        shown = browser.execute_script("return document.documentElement.scrollWidth")
        assert shown <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_where_the_system_is(browser):
    def background(scheme):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert background("dark") < 150 < 600 < background("light")
