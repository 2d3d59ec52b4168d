"""The documentation site, as `make docs` builds it: whole, without dead links, and without anything from elsewhere."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
PICTURES_BYTES = 1_500_000
MARKDOWN_LEFT = re.compile(r"(?:^|\n)\s*(?:[-*] |\d+\. |```|\|.*\||#+ )")
"""What a reader would see as it is written: a list, a table or a block of code that was not taken for one."""


@dataclass
class Document(HTMLParser):
    """What a page links to, what it loads, the places in it, and the texts of its paragraphs."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    places: set[str] = field(default_factory=set)
    paragraphs: list[str] = field(default_factory=list)
    language: str = ""
    _inside: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.places |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") in {"stylesheet", "icon", "preload"}:
            self.loaded.append(found["href"])
        elif "src" in found:
            self.loaded.append(found["src"])
        elif tag == "html":
            self.language = found["lang"]
        elif tag == "p":
            self._inside = True
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "p"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site; the build fails on every warning."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Document]:
    """Every page, read."""
    found = {}
    for path in site.rglob("*.html"):
        found[path] = Document()
        found[path].feed(path.read_text())
    return found


def is_elsewhere(address: str) -> bool:
    return bool(urlsplit(address).scheme or urlsplit(address).netloc)


def leads_to(page: Path, link: str, site: Path) -> Path:
    path = unquote(urlsplit(link).path)
    target = (site / path.lstrip("/") if path.startswith("/") else page.parent / path) if path else page
    return (target / "index.html" if target.is_dir() else target).resolve()


def test_every_page_of_the_repository_is_there(pages: dict[Path, Document], site: Path) -> None:
    written = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    shown = {path.relative_to(site).parent for path in pages}

    assert {path.parent if path.name == "index" else path for path in written} <= shown


def test_links_lead_to_pages_and_places(pages: dict[Path, Document], site: Path) -> None:
    dead = []
    for path, page in pages.items():
        for link in (link for link in page.links if not is_elsewhere(link)):
            target, place = leads_to(path, link, site), unquote(urlsplit(link).fragment)
            known = pages[target].places if target in pages else set()
            if not target.is_file() or (place and place != "__top" and place not in known):
                dead.append(f"{path.relative_to(site)}: {link}")

    assert dead == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Document], site: Path) -> None:
    """Pages are read in networks without a way out, and nobody is told who reads what."""
    loaded = {(path, address) for path, page in pages.items() for address in page.loaded}
    styles = "\n".join(path.read_text() for path in site.rglob("*.css"))

    assert {address for _, address in loaded if is_elsewhere(address) and not address.startswith("data:")} == set()
    assert [address for path, address in loaded if not leads_to(path, address, site).exists()] == []
    assert re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//", styles) == []


def test_no_markdown_is_left_in_the_text(pages: dict[Path, Document], site: Path) -> None:
    left = [
        (str(path.relative_to(site)), text[:80])
        for path, page in pages.items()
        for text in page.paragraphs
        if MARKDOWN_LEFT.search(text)
    ]

    assert left == []


def test_the_chinese_page_says_that_it_is(pages: dict[Path, Document], site: Path) -> None:
    assert pages[site / "zh-TW" / "index.html"].language == "zh-Hant-TW"
    assert pages[site / "index.html"].language == "en"


def test_chinese_paragraphs_are_one_line(pages: dict[Path, Document], site: Path) -> None:
    """A line break would show as a blank between two characters."""
    paragraphs = pages[site / "zh-TW" / "index.html"].paragraphs

    assert len(paragraphs) > 5
    assert [text for text in paragraphs if "\n" in text.strip()] == []


def test_pages_can_be_searched_but_not_the_files_that_they_show(site: Path) -> None:
    places = {entry["location"] for entry in json.loads((site / "search" / "search_index.json").read_text())["docs"]}

    assert {"", "first-lora/", "reference/loratraining/", "repository/CHANGELOG/"} <= places
    assert [place for place in places if place.startswith("repository/examples/")] == []


def test_pictures_are_small() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "docs" / "images").rglob("*.*")) < PICTURES_BYTES
