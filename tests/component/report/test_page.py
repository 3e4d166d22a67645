"""The report in headless Chromium: it loads with the network off, draws its charts, and is worked by keyboard."""

import pytest

from browser import CHROMIUM, Browser
from made_up import full_report, write_run
from softspoken.report.compare import compare
from softspoken.report.report import write_report

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report of a run with everything that an evaluation can hold, and a comparison of it with one that has less."""
    folder = tmp_path_factory.mktemp("pages")
    runs = [write_run(folder / "full", full_report()), write_run(folder / "short", steps=3)]
    return write_report(runs[0]), compare(runs, folder / "compare.html")


@pytest.fixture(scope="module")
def browser(pages, tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    browser.open(pages[0], 1280)
    yield browser
    browser.close()


def wrong(browser: Browser) -> list[dict]:
    """What the console would have shown."""
    kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    return [event for event in browser.events if event.get("method") in kinds]


MARKS = """[...document.querySelectorAll('.plot')].map(plot =>
    [plot.id.split('-')[0], plot.querySelectorAll('.js-line, .points path').length])"""


def test_nothing_is_fetched_and_nothing_goes_wrong(browser):
    requested = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert [url for url in requested if not url.startswith(("file:", "data:", "blob:"))] == []
    assert requested[0].startswith("file:")
    assert wrong(browser) == []
    assert browser.evaluate("document.querySelectorAll('script').length") == 4  # none that a summary brought


def test_every_chart_has_marks(browser):
    marks = browser.evaluate(MARKS)
    groups = [group for group, _ in marks]
    assert {group: groups.count(group) for group in groups} == {
        "planes": 2,
        "distributions": 2,
        "running": 2,
        "curves": 8,
        "slices": 2,
    }
    assert all(number for _, number in marks)


def test_a_chart_is_read_by_the_arrow_keys(browser):
    browser.evaluate("document.getElementById('curves-1').focus()")
    browser.press("ArrowRight", 39)
    browser.press("ArrowRight", 39)
    said = "document.activeElement.nextElementSibling.textContent"
    assert browser.evaluate(said) == "step 2: Toxicity 0.5"
    browser.until("document.querySelector('#curves-1 .hoverlayer').textContent.includes('step 2')")
    browser.press("End", 35)
    assert browser.evaluate(said) == "step 30: Toxicity 0.03333"
    browser.evaluate("document.getElementById('planes-0').focus()")
    for _ in range(5):  # two on the line of the references, then base
        browser.press("ArrowRight", 39)
    assert browser.evaluate(said) == ("masked_words, toxicity 0.020 (0.010 to 0.030), ROUGE-L 40.0 (38.0 to 42.0)")


def test_abuse_is_blurred_until_enter_is_pressed(browser):
    button = "document.querySelector('.hidden-text')"
    state = f"""(() => {{ const button = {button}, text = button.querySelector('.text');
        return [button.getAttribute('aria-expanded'), text.getAttribute('aria-hidden'), getComputedStyle(text).filter]; }})()"""
    assert browser.evaluate(state) == ["false", "true", "blur(6px)"]
    browser.evaluate(f"{button}.focus()")
    browser.press("Enter", 13, "\r")
    assert browser.evaluate(state) == ["true", "false", "none"]
    browser.press(" ", 32, " ")
    assert browser.evaluate(state) == ["false", "true", "blur(6px)"]
    browser.evaluate("document.querySelector('.all-texts').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.evaluate("document.querySelectorAll('.hidden-text[aria-expanded=false]').length") == 0
    browser.press("Enter", 13, "\r")
    assert browser.evaluate("document.querySelectorAll('.hidden-text[aria-expanded=true]').length") == 0


FIRST = """[...document.querySelectorAll('#every-row tbody tr:first-child > *')].map(cell =>
    [...cell.querySelectorAll('.show')].reduce((text, one) => text.replace(one.textContent, ''), cell.textContent))"""


def choose(browser: Browser, order: str) -> None:
    browser.evaluate(f"""(() => {{ const order = document.getElementById('order');
        order.value = [...order.options].find(one => one.text === {order!r}).value; order.dispatchEvent(new Event('change')); }})()""")


def search(browser: Browser, words: str) -> object:
    browser.evaluate(
        f"(() => {{ const box = document.getElementById('search'); box.value = {words!r}; box.form.requestSubmit(); }})()"
    )
    return browser.evaluate("document.getElementById('found').textContent")


def test_every_row_is_found_sorted_and_compared_word_by_word(browser):
    assert browser.evaluate("document.getElementById('found').textContent") == "12 of 12 dialogues"
    assert search(browser, "D11 <SCRIPT>") == "1 of 12 dialogues"
    row = browser.evaluate(FIRST)
    assert row[0] == "d11"
    assert row[2] == "<script>alert('x')</script> Nora calls Felix an idiot & leaves."
    assert row[4:] == ["0.900 → 0.050−0.850", "40.0 → 40.00.0"]
    marked = (
        "['del', 'ins'].map(mark => [...document.querySelectorAll(`#every-row ${mark}`)].map(one => one.textContent))"
    )
    # Nora and Felix are in both; what stands between, before and after is not.
    assert browser.evaluate(marked) == [
        ["<script>alert('x')</script>", "calls", "an idiot & leaves."],
        ["and", "argue."],
    ]
    assert search(browser, "nothing of the kind") == "0 of 12 dialogues"
    search(browser, "")
    choose(browser, "toxicity of tuned, highest first")
    assert browser.evaluate(FIRST)[0] == "d0"
    browser.evaluate("""(() => { const part = document.getElementById('part'); part.value = 'everyday';
        part.dispatchEvent(new Event('change')); })()""")
    assert browser.evaluate("document.getElementById('found').textContent") == "6 of 12 dialogues"
    browser.evaluate("""(() => { const part = document.getElementById('part'); part.value = '';
        part.dispatchEvent(new Event('change')); })()""")


def test_what_is_downloaded_is_what_was_found_and_no_formula(browser):
    search(browser, "d7")
    lines = str(browser.evaluate("asCsv()")).removeprefix("\ufeff").split("\r\n")
    assert lines[0] == "id,dialogue,base,tuned,toxicity of base,toxicity of tuned,rougeL of base,rougeL of tuned"
    assert lines[1].startswith("d7,")
    assert lines[1].endswith(",0.9,0.05,40,40")
    assert browser.evaluate("""cell('=HYPERLINK("x")')""") == '"\'=HYPERLINK(""x"")"'
    assert browser.evaluate("cell(-0.5)") == "-0.5"
    search(browser, "")


def test_everything_that_takes_the_keyboard_has_a_name(browser):
    nameless = """[...document.querySelectorAll('a, button, summary, [tabindex]')].filter(one =>
        !(one.getAttribute('aria-label') || one.textContent.trim())).length"""
    assert browser.evaluate(nameless) == 0
    lost = "[...document.querySelectorAll('nav a')].filter(one => !document.querySelector(one.hash)).length"
    assert browser.evaluate(lost) == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_no_wider_than_the_window(browser, width):
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.until(f"document.documentElement.scrollWidth <= {width}")
    fits = "[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg').clientWidth <= plot.clientWidth + 1)"
    browser.until(fits)


def test_dark_and_light_follow_the_system(browser):
    colour = "getComputedStyle(document.body).backgroundColor"
    seen = set()
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        seen.add(browser.evaluate(colour))
    assert len(seen) == 2


def test_the_comparison_opens_as_well(browser, pages):
    browser.events.clear()
    browser.open(pages[1], 390)
    assert wrong(browser) == []
    marks = browser.evaluate(MARKS)
    assert [group for group, _ in marks] == ["planes"] * 2 + ["curves"] * 7
    assert all(number for _, number in marks)
    browser.until("document.documentElement.scrollWidth <= 390")
