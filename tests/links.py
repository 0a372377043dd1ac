#!/usr/bin/env python3
"""Checks the links of all Markdown files of the repository, without the network.

    tests/links.py [DIRECTORY]

With a directory, it checks the relative links of the pages below it instead, for example those of
an unpacked package.

A relative link must name a file or directory of the repository, and its anchor a heading of that
page. A link to this repository's main branch on GitHub is checked like a relative link; pages of
docs/ use this form for files outside docs/, because mdBook renders only docs/. Every page of docs/
must be linked from README.md, or from a page that README.md links, and be listed in SUMMARY.md.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
GITHUB = "https://github.com/langmartai/langmart-prober/blob/main/"
LINK = re.compile(r"(?<!\\)\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")
FENCE = re.compile(r"^ *(```|~~~)")


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the numbered lines of a page outside its code blocks."""
    inside = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if FENCE.match(line):
            inside = not inside
        elif not inside:
            yield number, line


def anchors(path: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub and mdBook derive them."""
    found: set[str] = set()
    for _, line in prose(path):
        match = re.match(r"#+ +(.*?) *$", line)
        if match is None:
            continue
        text = re.sub(r"\]\([^)]*\)", "", match[1]).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = 0
        while (name := f"{anchor}-{count}" if count else anchor) in found:
            count += 1
        found.add(name)
    return found


def links(path: Path) -> Iterator[tuple[int, str]]:
    """Yields line number and destination of each link of a page."""
    for number, line in prose(path):
        line = re.sub(r"`[^`]*`", "", line)
        for match in LINK.finditer(line):
            yield number, match[1]


def target(page: Path, link: str) -> tuple[Path, str] | None:
    """Returns the file and anchor that a link names, or `None` if it leaves the repository."""
    if link.startswith(GITHUB):
        page, link = ROOT / "README.md", link.removeprefix(GITHUB)
    elif re.match(r"[a-z][a-z0-9+.-]*:", link):
        return None
    name, _, anchor = link.partition("#")
    return ((page.parent / unquote(name)).resolve() if name else page), anchor


def problems(page: Path) -> Iterator[str]:
    """Yields a message for each broken link of a page."""
    place = page.relative_to(ROOT)
    in_book = place.parts[0] == "docs"
    for number, link in links(page):
        found = target(page, link)
        if found is None:
            continue
        path, anchor = found
        if not path.exists() or not path.is_relative_to(ROOT):
            yield f"{place}:{number}: {link}: no such file"
        elif in_book and not link.startswith(GITHUB) and not path.is_relative_to(ROOT / "docs"):
            yield f"{place}:{number}: {link}: leaves the book; link to {GITHUB}PATH"
        elif anchor and path.suffix == ".md" and anchor not in anchors(path):
            yield f"{place}:{number}: {link}: no such heading"


def linked(page: Path) -> set[Path]:
    """Returns the pages of the repository that a page links."""
    found = (target(page, link) for _, link in links(page))
    return {path for path, _ in filter(None, found) if path.suffix == ".md" and path.exists()}


def unreachable(pages: list[Path]) -> Iterator[str]:
    """Yields a message for each page of docs/ that is not within two links of README.md."""
    first = linked(ROOT / "README.md")
    reachable = first.union(*(linked(page) for page in first))
    listed = linked(ROOT / "docs/SUMMARY.md")
    for page in pages:
        place = page.relative_to(ROOT)
        if place.parts[0] != "docs":
            continue
        if page not in reachable:
            yield f"{place}: is more than two links away from README.md"
        if page not in listed and page.name != "SUMMARY.md":
            yield f"{place}: is not in SUMMARY.md"


def packaged(directory: Path) -> Iterator[str]:
    """Yields a message for each broken relative link of the pages below a directory."""
    pages = sorted(directory.rglob("*.md"))
    if not pages:
        yield f"{directory} has no pages"
    for page in pages:
        for number, link in links(page):
            if re.match(r"[a-z][a-z0-9+.-]*:", link):
                continue
            name, _, anchor = link.partition("#")
            path = page.parent / unquote(name) if name else page
            if not path.exists():
                yield f"{page}:{number}: {link}: no such file"
            elif anchor and path.suffix == ".md" and anchor not in anchors(path):
                yield f"{page}:{number}: {link}: no such heading"


def main() -> None:
    """Prints every problem; exits with 1 if there is one."""
    if len(sys.argv) > 1:
        broken = list(packaged(Path(sys.argv[1])))
        print("\n".join(broken))
        sys.exit(1 if broken else 0)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    pages = [ROOT / name for name in names.splitlines() if (ROOT / name).exists()]
    found = [message for page in pages for message in problems(page)]
    found += unreachable(pages)
    print("\n".join(found) if found else f"{len(pages)} pages checked")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
