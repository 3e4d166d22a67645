"""The check of the built site's links, on sites of two pages; and the links of the Markdown that GitHub shows."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINKS = runpy.run_path(str(ROOT / "docs/_ext/links.py"))


@pytest.fixture
def site(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/page.html").write_text(
        '<h1 id="here">Here</h1><a href="../index.html">back</a>', encoding="utf-8"
    )
    (tmp_path / "site.css").write_text("body { background: url(data:image/png;base64,AA) }", encoding="utf-8")
    return tmp_path


def index(site: Path, body: str) -> list[str]:
    (site / "index.html").write_text(f'<link rel="stylesheet" href="site.css?v=1">{body}', encoding="utf-8")
    return list(LINKS["faults"](site))


def test_what_is_whole_has_no_fault(site):
    body = '<a href="deep/page.html#here">in</a> <a href="#top" id="top">up</a> <a href="https://example.org/x">out</a>'
    assert index(site, body) == []
    assert LINKS["external"](site) == ["https://example.org/x"]
    assert LINKS["main"](site) == 0
    assert (site / "external-links.txt").read_text(encoding="utf-8") == "https://example.org/x\n"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="gone.html">x</a>', "index.html links to gone.html, which is not there"),
        (
            '<a href="deep/page.html#there">x</a>',
            "index.html links to deep/page.html#there, and page.html has no such place",
        ),
        ('<a href="#nowhere">x</a>', "index.html links to #nowhere, and index.html has no such place"),
        ('<img src="gone.png">', "index.html shows gone.png, which is not there"),
        ('<script src="https://cdn.example/a.js"></script>', "index.html fetches https://cdn.example/a.js"),
        ('<link rel="stylesheet" href="//fonts.example/f.css">', "index.html fetches //fonts.example/f.css"),
    ],
)
def test_each_fault_is_said(site, body, fault):
    assert index(site, body) == [fault]
    assert LINKS["main"](site) == 1


def test_a_stylesheet_fetches_nothing_either(site):
    (site / "site.css").write_text("@import 'https://fonts.example/f.css';", encoding="utf-8")
    assert index(site, "") == ["site.css fetches https://fonts.example/f.css"]


@pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("*.md")))
def test_the_links_of_the_repository_lead_to_files(page):
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8"))
    gone = [
        link for link in found if "://" not in link and not link.startswith("mailto:") and not (ROOT / link).exists()
    ]
    assert gone == []
