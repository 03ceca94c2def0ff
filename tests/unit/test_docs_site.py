"""The site is built strictly, reads without a network, and its links hold in the repository, too."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.documents import ROOT, pages

OPTIONS = "--quiet --fresh-env --write-all --fail-on-warning --keep-going --nitpicky --builder html"

_FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` does."""
    options = [*OPTIONS.split(), "-d", str(target / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(target / "html")]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "docs", folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder / "html"


class Links(HTMLParser):
    """What a page loads, where it leads, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given["id"]} if "id" in given else set()
        if tag == "a":
            self.leads.append(given.get("href", ""))
        elif tag in ("script", "img", "iframe", "source", "link"):
            self.loads += [given[name] for name in ("src", "href", "srcset") if name in given]


def read(path: Path) -> Links:
    links = Links()
    links.feed(path.read_text(encoding="utf-8"))
    return links


def test_make_docs_builds_what_this_test_builds() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"sphinx {OPTIONS} docs site" in makefile
    assert "site/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_no_page_loads_anything_from_the_network(site: Path) -> None:
    for path in site.rglob("*.html"):
        away = [address for address in read(path).loads if urlsplit(address).netloc]
        assert away == [], path.name
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", path.read_text(encoding="utf-8")), path.name


def test_every_link_within_the_site_leads_somewhere(site: Path) -> None:
    found = {path: read(path) for path in site.rglob("*.html")}
    broken: list[str] = []
    for path, links in found.items():
        for address in links.leads:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or not address:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = found[target].anchors if target in found else set[str]()
            if not target.exists() or (parts.fragment and unquote(parts.fragment) not in anchors):
                broken.append(f"{path.name} → {address}")
    assert broken == []


def test_every_picture_is_in_its_page_and_tells_what_it_shows(site: Path) -> None:
    shown = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.html"))
    pictures = sorted((ROOT / "docs/pictures").glob("*.svg"))
    assert pictures
    for picture in pictures:
        text = picture.read_text(encoding="utf-8")
        assert f'id="{picture.stem}-title"' in text
        assert f'id="{picture.stem}-title"' in shown, f"{picture.name} is on no page"
        assert "<image" not in text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def anchors_of(page: Path) -> set[str]:
    """The anchors that a repository's viewer gives to headings: lower case, without punctuation, dashes for blanks."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    found: set[str] = set()
    for heading in headings:
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        numbers = (f"-{number}" for number in range(1, 100))
        found.add(next(name for name in (slug, *(slug + number for number in numbers)) if name not in found))
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_link_holds_in_the_repository(page: Path) -> None:
    broken: list[str] = []
    for address in _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))):
        path, _, fragment = str(address).partition("#")
        if urlsplit(path).scheme:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in anchors_of(target)):
            broken.append(str(address))
    assert broken == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a](nowhere.md)", "nowhere.md"),
        ("[a](other.md#nowhere)", "nowhere"),
        ("[a](#nowhere)", "nowhere"),
        ("![a](pictures/none.svg)", "none.svg"),
        ("# One\n\n### Three", "header level"),
    ],
)
def test_a_broken_page_fails_the_build(text: str, said: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "_static").mkdir(parents=True)
    (source / "conf.py").write_text((ROOT / "docs/conf.py").read_text(encoding="utf-8"), encoding="utf-8")
    (source / "_static/site.css").write_text("", encoding="utf-8")
    (source / "index.md").write_text(f"# Index\n\n```{{toctree}}\nother\n```\n\n{text}\n", encoding="utf-8")
    (source / "other.md").write_text("# Other\n", encoding="utf-8")
    done = build(source, tmp_path)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_page_that_no_list_names_fails_the_build(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "_static").mkdir(parents=True)
    (source / "conf.py").write_text((ROOT / "docs/conf.py").read_text(encoding="utf-8"), encoding="utf-8")
    (source / "_static/site.css").write_text("", encoding="utf-8")
    (source / "index.md").write_text("# Index\n", encoding="utf-8")
    (source / "forgotten.md").write_text("# Forgotten\n", encoding="utf-8")
    done = build(source, tmp_path)
    assert done.returncode != 0
    assert "forgotten" in done.stderr
