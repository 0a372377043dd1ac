#!/usr/bin/env python3
"""Writes the documents of the packages: changelog, copyright, licences and links.

documents.py changelog VERSION MAINTAINER   CHANGELOG.md as debian/changelog has it
documents.py copyright                      DEP-5, a stanza for each crate that is compiled in
documents.py licences                       the licence files of those crates, each text once
documents.py links DIRECTORY                adapts the links of the pages that are staged there

All but the last print to standard output, from cargo's metadata for this machine's target.
SOURCE_DATE_EPOCH is the date of an unreleased version.
"""

import calendar
import collections
import email.utils
import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

Package = dict[str, Any]

ROOT = pathlib.Path(__file__).resolve().parent.parent
REPOSITORY = "https://github.com/langmartai/langmart-prober"
# The path and the anchor of a link to a file of the repository, relative or on GitHub.
LINK = re.compile(rf"\]\((?:({REPOSITORY}/blob/main/)|(?![a-z]+:|#))([^)#\s]+)(#[^)\s]*)?\)")
LICENCE_FILES = re.compile(r"(licen[cs]e|copying|notice|copyright|unlicense)", re.IGNORECASE)
# Copyright lines of templates with placeholders are ignored.
COPYRIGHT = re.compile(
    r"^\W*(?:copyright\s+)(?:\(c\)\s*|©\s*)?(?!\[|\{|holder|owner|notice|law|statement|license)(.*\d{4}.*)$",
    re.IGNORECASE,
)


def changelog(version: str, maintainer: str) -> None:
    """Prints CHANGELOG.md as a Debian changelog."""
    sections = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    released = [
        section for section in sections if f"[{version.split('-')[0]}]" in section.splitlines()[0]
    ]
    for section in sections:
        title, _, body = section.partition("\n")
        match = re.match(r"\[([^]]+)\](?: - (\d{4}-\d\d-\d\d))?", title)
        assert match, title
        name, day = match.groups()
        if name == "Unreleased":
            if released or not body.strip():
                continue
            name, when = version, int(os.environ["SOURCE_DATE_EPOCH"])
        else:
            name, when = f"{name}-1", noon(day)
        print(f"langmart-prober ({name}) unstable; urgency=medium\n")
        for item in re.split(r"^- ", body, flags=re.MULTILINE)[1:]:
            text = re.split(r"\n#|\n\n", item)[0]
            print(
                textwrap.fill(
                    " ".join(text.split()),
                    78,
                    initial_indent="  * ",
                    subsequent_indent="    ",
                    break_on_hyphens=False,
                )
            )
        print(f"\n -- {maintainer}  {email.utils.formatdate(when).replace('-0000', '+0000')}\n")


def noon(day: str) -> int:
    """Returns noon of a day, as seconds since the Unix epoch."""
    year, month, date = map(int, day.split("-"))
    return calendar.timegm((year, month, date, 12, 0, 0))


def crates() -> list[Package]:
    """Returns the packages whose code is in the binary, by name and version.

    Build scripts, macros and tests are excluded.
    """
    match = re.search(r"^host: (.*)$", output("rustc", "-vV"), re.MULTILINE)
    assert match, "rustc -vV has no host"
    host = match[1]
    metadata = json.loads(
        output("cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={host}")
    )
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    found, open_ = set(), [root]
    while open_:
        for dependency in nodes[open_.pop()]["deps"]:
            name = dependency["pkg"]
            macro = any("proc-macro" in target["kind"] for target in packages[name]["targets"])
            if (
                name not in found
                and not macro
                and any(kind["kind"] is None for kind in dependency["dep_kinds"])
            ):
                found.add(name)
                open_.append(name)
    return sorted(
        (packages[name] for name in found),
        key=lambda package: (package["name"], package["version"]),
    )


def output(*command: str) -> str:
    """Runs a command and returns its standard output."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def texts(package: Package) -> dict[str, str]:
    """Returns the licence files of a package by name."""
    directory = pathlib.Path(package["manifest_path"]).parent
    files = [
        path
        for path in sorted(directory.iterdir())
        if path.is_file() and LICENCE_FILES.match(path.name)
    ]
    return {path.name: path.read_text(errors="replace").strip() for path in files}


def licence(package: Package) -> str:
    """Returns the licence as DEP-5 writes it.

    `and` binds closer than `or`; a comma reverses this.
    """
    expression = (package["license"] or "other").replace("/", " OR ")
    expression = re.sub(r" AND \(", ", AND ", re.sub(r"\) AND ", ", AND ", expression))
    return re.sub(
        r" (OR|AND|WITH) ", lambda match: match[0].lower(), re.sub(r"[()]", "", expression)
    )


def copyright_() -> None:
    """Prints the copyright file in DEP-5 format."""
    print("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/")
    print(f"Upstream-Name: langmart-prober\nSource: {REPOSITORY}")
    print(
        "Comment: The crates below are compiled into the program. Their licences as they have"
        " them\n are in /usr/share/doc/langmart-prober/licences.txt.gz.\n"
    )
    print(
        "Files: *\nCopyright: 2026 LangMart and the contributors to langmart-prober\nLicense:"
        " Apache-2.0\n"
    )
    used = collections.OrderedDict({"Apache-2.0": None})
    for package in crates():
        holders = []
        for text in texts(package).values():
            for line in text.splitlines():
                match = COPYRIGHT.match(line)
                if match and match[1].strip() not in holders:
                    holders.append(match[1].strip())
        holders = holders or package["authors"] or [f"the authors of {package['name']}"]
        words = licence(package)
        used[words] = None
        print(f"Files: crates/{package['name']}-{package['version']}/*")
        print("Copyright: " + "\n           ".join(holders))
        print(f"License: {words}\n")
    for words in used:
        print(f"License: {words}")
        if "Apache-2.0" in words:
            print(
                " The Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0 on Debian"
                " systems."
            )
        if words != "Apache-2.0":
            print(
                " The texts, as the crates have them, are in"
                " /usr/share/doc/langmart-prober/licences.txt.gz."
            )
        print()


def licences() -> None:
    """Prints the licence texts of the crates, each text once."""
    holders: dict[str, tuple[str, list[str]]] = {}
    for package in crates():
        for name, text in texts(package).items():
            _, files = holders.setdefault(" ".join(text.split()), (text, []))
            files.append(f"{package['name']} {package['version']} ({name})")
    for text, files in holders.values():
        print("=" * 78)
        print(textwrap.fill("; ".join(files), 78, break_on_hyphens=False, break_long_words=False))
        print("=" * 78 + f"\n\n{text}\n")


def links(directory: str) -> None:
    """Adapts relative links of pages to the package.

    The page of a runbook is beside the documents. A file that is not packaged is on GitHub.
    """
    root = pathlib.Path(directory).resolve()
    for page in sorted(root.rglob("*.md")):

        def adapted(match: re.Match[str], page: pathlib.Path = page) -> str:
            absolute, name, anchor = match[1], match[2], match[3] or ""
            # Runbooks have left packaging/; every other page is where the repository has it.
            folder = page.parent.relative_to(root)
            folder = "packaging" / folder if folder.parts[:1] == ("runbooks",) else folder
            path = os.path.normpath(name if absolute else folder / name)
            packaged = root / path.removeprefix("packaging/")
            if packaged.exists():
                return f"]({os.path.relpath(packaged, page.parent)}{anchor})"
            return f"]({REPOSITORY}/blob/main/{path}{anchor})"

        page.write_text(LINK.sub(adapted, page.read_text()))


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {
        "changelog": changelog,
        "copyright": copyright_,
        "licences": licences,
        "links": links,
    }
    commands[sys.argv[1]](*sys.argv[2:])
