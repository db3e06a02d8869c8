"""What `mkdocs build` does besides: the notebooks and the pages of experiments/ become pages of the site.

On a code host, pages link to files of the whole repository. The site has the pages of docs/ and experiments/ alone, so
a link to any other file, such as `../lpt/heads.py`, becomes a link to `repo_url` where mkdocs.yml names one, and plain
text otherwise.
"""

import json
import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and figures of experiments/, and each notebook as a page."""
    for path in sorted((ROOT / "experiments").rglob("*")):
        if path.suffix in (".md", ".png", ".svg"):
            place = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, place, abs_src_path=str(path)))
    for path in sorted((ROOT / "docs").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        files.append(File.generated(config, f"{path.stem}.md", content=as_markdown(notebook)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have links of a page lead to where its targets are in the site."""
    place = page.file.src_uri
    in_repository = place if place.startswith("experiments/") else f"docs/{place}"

    def rewritten(link: re.Match[str]) -> str:
        mark, text, target, anchor = link[1], link[2], link[3], link[4] or ""
        found = normpath(join(dirname(in_repository), target))
        in_site = found.removeprefix("docs/").replace(".ipynb", ".md")
        if files.get_file_from_path(in_site) is not None:
            return f"{mark}[{text}]({relpath(in_site, dirname(place) or '.')}{anchor})"
        if (ROOT / found).exists():
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{found})" if config.repo_url else text
        return link[0]  # broken, and reported by mkdocs

    return LINK.sub(rewritten, markdown)


def as_markdown(notebook: dict) -> str:
    """A notebook's cells as one Markdown page."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(parts) + "\n"
