"""Every link of the built site: inside it, the page and the place in it must be there; nothing may be fetched from elsewhere when a page is
opened; links to elsewhere are listed, not followed (`python docs/_ext/links.py build/site`)."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LISTED = "external-links.txt"


@dataclass
class Page(HTMLParser):
    """What a page names: `links` that a reader may follow, `fetched` what a browser loads unasked, `places` in it that a link can lead to."""

    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    places: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif (
            tag == "link"
            and given.get("rel") not in ("canonical", "index", "search", "next", "prev")
            and "href" in given
        ):
            self.fetched.append(given["href"])
        self.fetched += [given[name] for name in ("src", "data", "poster") if name in given and tag != "a"]


def faults(site: Path) -> Iterator[str]:
    """A sentence for each link that leads nowhere, and for each thing that is fetched from elsewhere."""
    pages = {path: _read(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        for url in page.fetched:
            if _elsewhere(url):
                yield f"{name} fetches {url}"
            elif not url.startswith("data:") and not _target(path, url).is_file():
                yield f"{name} shows {url}, which is not there"
        for url in page.links:
            if _elsewhere(url):
                continue
            target, place = _target(path, url), unquote(urlsplit(url).fragment)
            if not target.is_file():
                yield f"{name} links to {url}, which is not there"
            elif place and target in pages and place not in pages[target].places:
                yield f"{name} links to {url}, and {target.name} has no such place"
    for path in sorted(site.rglob("*.css")):
        for url in re.findall(r"(?:url\(|@import )['\"]?((?:https?:)?//[^'\")]+)", path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)} fetches {url}"


def external(site: Path) -> list[str]:
    """Where the site leads to, once each."""
    return sorted({url for path in site.rglob("*.html") for url in _read(path).links if _elsewhere(url)})


def _read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _elsewhere(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https", "mailto") or url.startswith("//")


def _target(page: Path, url: str) -> Path:
    path = unquote(urlsplit(url).path)
    return (page.parent / path).resolve() if path else page


def main(site: Path) -> int:
    site = site.resolve()
    (site / LISTED).write_text("".join(f"{url}\n" for url in external(site)), encoding="utf-8")
    found = list(faults(site))
    print(*found, sep="\n", file=sys.stderr)
    return 1 if found or not (site / "index.html").is_file() else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
