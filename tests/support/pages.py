"""An HTML page as a test reads it: every element, whether tags are balanced, and the texts."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "link", "img", "input", "br", "hr", "source", "rect", "line", "circle", "polyline", "polygon"}


@dataclass(frozen=True)
class Element:
    """A start tag."""

    tag: str
    attributes: dict[str, str | None]


@dataclass
class Page(HTMLParser):
    """Parse a page with `read`."""

    elements: list[Element] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """What stands between tags, scripts and styles among it."""
    problems: list[str] = field(default_factory=list)
    """Tags that are not balanced."""
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element."""
        self.elements.append(Element(tag, dict(attrs)))
        if len({name for name, _ in attrs}) < len(attrs):
            self.problems.append(f"<{tag}> has an attribute twice")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element that closes itself."""
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Notes what is closed out of order."""
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes what is not open")

    def handle_data(self, data: str) -> None:
        """Notes a text."""
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All texts."""
        return "".join(self.texts)

    def of(self, tag: str) -> list[Element]:
        """The elements of a tag."""
        return [element for element in self.elements if element.tag == tag]


def read(html: str) -> Page:
    """The parsed page."""
    page = Page()
    page.feed(html)
    page.close()
    page.problems += [f"<{tag}> is never closed" for tag in page._open]
    return page
