"""The site's files are the repository's, at the places that they have there."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# whatever a page links to; the first of them are pages
PATTERNS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/**/*",
    "results/*.*",
    "conf/**/*.yaml",
    "notebooks/*.ipynb",
    "CITATION.cff",
    "LICENSE",
)
CODE = {".py", ".pyc"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's files in the place of those below docs/."""
    root = Path(config.config_file_path).parent
    for file in list(files.documentation_pages() + files.static_pages() + files.media_files()):
        if file.abs_src_path and Path(file.abs_src_path).is_relative_to(config.docs_dir):
            files.remove(file)
    for path in sorted({path for pattern in PATTERNS for path in root.glob(pattern)}):
        if path.is_file() and path.suffix not in CODE:
            place = path.relative_to(root).as_posix()
            files.append(File.generated(config, place, abs_src_path=str(path)))
    return files
