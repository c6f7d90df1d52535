"""Extensions of mkdocs.yml: pages from outside of docs/, links to the source, and a nav without gaps.

The pages are read in the repository as well, so their links are those of files: `../app/boards.py`. On the site a link
to a page stays a link, and a link to any other file becomes the file's name, since the site does not have the file.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# Pages that live where people look for them in a repository.
ELSEWHERE = {"README.md": "index.md", "deploy/README.md": "deploy.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(?P<mark>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    written = {path.name for path in Path(config.docs_dir).glob("*.md")} | set(ELSEWHERE.values())
    config.nav = complete_nav(config.nav or [], written)
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=for_site((ROOT / source).read_text(), source)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    source = page.file.src_uri
    return markdown if source in ELSEWHERE.values() else for_site(markdown, f"docs/{source}")


def complete_nav(nav: list[Any], written: set[str]) -> list[Any]:
    """`nav` without the pages that nobody has written yet; pages that it does not name go into its last section."""
    named = {page for page in pages_of(nav) if page in written}
    kept = [section for section in (existing(section, written) for section in nav) if section]
    others = sorted(written - named)
    if not others:
        return kept
    title = next(iter(nav[-1]))
    last = kept.pop()[title] if kept and title in kept[-1] else []
    return [*kept, {title: [*last, *others]}]


def existing(entry: Any, written: set[str]) -> Any:
    """A nav entry (a page, or a title with pages) as far as it is written; None if nothing is left."""
    if isinstance(entry, str):
        return entry if entry in written else None
    ((title, inside),) = entry.items()
    if isinstance(inside, str):
        return entry if inside in written else None
    left = [page for page in (existing(page, written) for page in inside) if page]
    return {title: left} if left else None


def pages_of(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    inside = nav.values() if isinstance(nav, dict) else nav
    return [page for entry in inside for page in pages_of(entry)]


def for_site(markdown: str, source: str) -> str:
    """The links of a page in the repository as the site has them."""
    folder = posixpath.dirname(source)

    def changed(match: re.Match[str]) -> str:
        target, hash_sign, anchor = match["target"].partition("#")
        if "://" in target or not target:
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        page = ELSEWHERE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else "")
        if page:
            return f"{match['mark']}[{match['text']}]({page}{hash_sign}{anchor})"
        text = match["text"]
        return text if path in text or text.startswith("`") else f"{text} (`{path}`)"

    return LINK.sub(changed, markdown)
