"""Says which links, pictures and anchors of a built site lead nowhere.

    python .ci/check_links.py docs/_build

Links to other sites are not followed.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LINKS = {"a": "href", "link": "href", "img": "src", "script": "src", "iframe": "src"}


class Page(HTMLParser):
    """Where a page leads, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take what a tag leads to, and what leads to it."""
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if target := given.get(LINKS.get(tag, "")):
            self.links.add(target)


def broken(site: Path) -> list[str]:
    """Pages with a target that is not there, as "page: target"."""
    paths = [path.resolve() for path in sorted(site.rglob("*.html"))]
    templates = (site / "_static").resolve()  # of the theme's, no pages
    pages = {path: Page(path) for path in paths if templates not in path.parents}
    found = []
    for path, page in pages.items():
        for target in sorted(page.links):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            place = path
            if parts.path:
                place = (path.parent / unquote(parts.path)).resolve()
            is_there = place.is_file()
            if place in pages and parts.fragment:
                is_there = unquote(parts.fragment) in pages[place].anchors
            if not is_there:
                found.append(f"{path.relative_to(site.resolve())}: {target}")
    if not pages:
        found.append(f"{site}: no pages")
    return found


if __name__ == "__main__":
    lines = broken(Path(sys.argv[1]))
    print("\n".join(lines) or "No broken link.")
    sys.exit(bool(lines))
