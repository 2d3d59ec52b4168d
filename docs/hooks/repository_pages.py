"""Hooks of mkdocs: pages link to any file of the repository, and the site holds what they link to.

On GitHub `../examples/hina.yaml` leads to the file; on the site it leads to a page that shows it, below `repository/`.
A folder is its README, or a list of what lies in it. What does not exist gets no page: a dead link fails the build.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = "docs/"
ELSEWHERE = "repository/"
ALWAYS = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "charts/lora-operator/README.md", "tinybase/README.md")
"""Pages of the navigation, whether or not a page links to them."""
PICTURES = frozenset({".png", ".svg", ".webp"})
LANGUAGES = {".py": "python", ".json": "json", ".lua": "lua", ".sh": "sh"}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files that pages link to, and those that these link to."""
    waiting = [path for path in ALWAYS if (ROOT / path).is_file()]
    waiting += [path for file in files.documentation_pages() for path in _linked(DOCS + file.src_uri)]
    while waiting:
        path = waiting.pop()
        if files.get_file_from_path(_place(path)) is None:
            files.append(_file(path, config))
            waiting += _linked(path) if path.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """The page with links to where the site has the file."""
    place = page.file.src_uri

    def moved(link: re.Match[str]) -> str:
        path = _target(_path(place), link[1])
        if path is None:
            return link[0]
        return posixpath.relpath(_place(path), posixpath.dirname(place)) + (link[2] or "")

    return markdown if _shows_code(place) else LINK.sub(moved, markdown)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """The page in the language that its first lines name (`lang`), so that a browser takes that language's letters."""
    language = page.meta.get("lang")
    return output.replace('<html lang="en"', f'<html lang="{language}"', 1) if language else output


def _linked(path: str) -> Iterator[str]:
    """The files outside of docs/ that this page links to, by their paths in the repository."""
    for link in LINK.finditer((ROOT / path).read_text()):
        target = _target(path, link[1])
        if target is not None and not target.startswith(DOCS):
            yield target


def _target(page: str, link: str) -> str | None:
    """The file or folder that a link means, by its path in the repository; None where there is none."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    if path == "README.md":
        return DOCS + "index.md"
    path = f"{path}/README.md" if (ROOT / path / "README.md").is_file() else path
    return path if not path.startswith("../") and (ROOT / path).exists() else None


def _place(path: str) -> str:
    """Where a file of the repository lies among the pages."""
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    return ELSEWHERE + path + ("" if path.endswith(".md") or Path(path).suffix in PICTURES else ".md")


def _path(place: str) -> str:
    """The file of the repository whose page lies there."""
    return place.removeprefix(ELSEWHERE) if place.startswith(ELSEWHERE) else DOCS + place


def _shows_code(place: str) -> bool:
    return place.startswith(ELSEWHERE) and not (ROOT / _path(place)).is_file()


def _file(path: str, config: MkDocsConfig) -> File:
    place, suffix = _place(path), Path(path).suffix
    if suffix in {".md", *PICTURES}:
        return File.generated(config, place, abs_src_path=str(ROOT / path))
    if (ROOT / path).is_dir():
        shown = "".join(f"- `{name}`\n" for name in _names(ROOT / path))
    else:
        language = LANGUAGES.get(suffix, "yaml" if suffix in {".yaml", ".yml", ".tpl"} else "text")
        shown = f"````{language}\n{(ROOT / path).read_text().rstrip()}\n````\n"
    return File.generated(
        config, place, content=f"---\nsearch: {{exclude: true}}\nhide: [navigation, toc]\n---\n# {path}\n\n{shown}"
    )


def _names(folder: Path) -> list[str]:
    """What lies in a folder, at any depth."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if "__pycache__" not in path.parts)
