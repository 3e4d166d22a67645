"""The site: `make docs` builds it into build/site, which opens from disk and fetches nothing."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "softspoken"
author = "the softspoken authors"
version = release = version_of("softspoken")

extensions = ["myst_nb", "sphinx.ext.autodoc", "reference", "kernels"]
exclude_patterns = ["_ext"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:(class|obj|data)", r"(?!softspoken\.\w+$).*")
]  # types in signatures that the site has no place for
default_role = "literal"  # docstrings are written with single backticks
autodoc_preserve_defaults = True
smartquotes_action = "qe"  # a flag is no dash
highlight_language = "none"  # what is indented without a name is a command with a remark beside it

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3

# Tutorials are notebooks in Markdown, run when the site is built; one that fails, fails the build.
nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
os.environ.update(
    PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    PYTHONSTARTUP=str(HERE / "_ext/shell_cells.py"),
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_VERBOSITY="error",
    DATASETS_VERBOSITY="error",
    TQDM_DISABLE="1",  # a bar has no place on a page
    PYTHONWARNINGS="ignore",
    COLUMNS="88",
    TTY_COMPATIBLE="0",
)

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "softspoken"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = html_show_copyright = False
html_copy_source = False
html_show_search_summary = False  # it would be fetched, which a page from disk may not
html_theme_options = {"navigation_with_keys": True}
