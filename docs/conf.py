"""How the site is built: ``sphinx-build -W --keep-going docs docs/_build``."""

import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

import matplotlib as mpl
from sphinx.application import Sphinx

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))
# The gallery is run on the CPU, without a window.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
mpl.use("Agg")

import skvmdls
from skvmdls.detector.base import BaseDetector

project = "skvmdls"
copyright = "the developers of skvmdls"
version = release = skvmdls.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "results"]
templates_path = ["_templates"]
# The gallery's settings hold what Sphinx cannot keep between builds.
suppress_warnings = ["config.cache"]

myst_heading_anchors = 4

# Of our own names every reference must lead somewhere.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!skvmdls).*")]
autosummary_generate = True
autodoc_typehints = "none"
add_module_names = False
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False

# The order of the gallery. The last ones need other packages or data: they are shown,
# and not run.
RUN = (
    "quickstart",
    "embeddings",
    "table",
    "photographs",
    "inspection_line",
    "known_and_unknown",
    "why_rejected",
    "new_camera",
    "tune_without_ood",
    "fine_tune",
)
NOT_RUN = (
    "mnist_open_set",
    "onnx_without_torch",
    "score_with_dask",
    "score_with_ray",
    "score_with_spark",
)


def place_in_gallery(name: str) -> int:
    """Return the place of an example; one that is not listed is an error."""
    return (*RUN, *NOT_RUN).index(Path(name).stem)


sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": rf"/({'|'.join(RUN)})\.py$",
    "within_subsection_order": place_in_gallery,
    "ignore_pattern": r"/benchmarks/",
    "reference_url": {"skvmdls": None},
    "download_all_examples": False,
    "default_thumb_file": str(DOCS / "images" / "not_run.png"),
    "capture_repr": (),
    "show_memory": False,
    "show_signature": False,
    "abort_on_example_error": True,
    "write_computation_times": False,
}

copybutton_exclude = ".linenos, .gp, .go"

html_theme = "pydata_sphinx_theme"
html_title = f"skvmdls {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
# Commands keep their two hyphens.
smartquotes = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": {
        "*": ["page-toc"],
        "api/**": ["page-toc"],
        "gallery/**": [],
        # Its tables need the width.
        "results": [],
    },
    "pygments_light_style": "tango",
}
html_sidebars = {"index": []}


def inventory(name: str, url: str) -> str | None:
    """Fetch the list of another project's pages; None where it cannot be had."""
    path = DOCS / "_build" / "inventories" / f"{name}.inv"
    if not path.exists():
        try:
            with urllib.request.urlopen(f"{url}objects.inv", timeout=5) as answer:
                content = answer.read()
        except (urllib.error.URLError, OSError):
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(path)


# Links to other projects are a convenience: without a network they are plain names.
intersphinx_mapping = {
    name: (url, (found,))
    for name, url in {
        "python": "https://docs.python.org/3/",
        "numpy": "https://numpy.org/doc/stable/",
        "sklearn": "https://scikit-learn.org/stable/",
        "torch": "https://docs.pytorch.org/docs/stable/",
    }.items()
    if (found := inventory(name, url))
}


def link_to_the_gallery(app: Sphinx, docname: str, source: list[str]) -> None:
    """Lead from a page's ``../examples/name.py``, as on GitHub, to its gallery page."""
    text = source[0].replace("](../examples)", "](gallery/index.rst)")
    link = r"\]\(\.\./examples/(\w+)\.py\)"
    source[0] = re.sub(link, r"](gallery/\1.rst)", text)


# Groups of a detector's parameters, each by its first one.
PARAMETER_GROUPS = {
    "backbone": "Net",
    "contamination": "Threshold",
    "latent_dim": "Latent space and losses",
    "features": "Score",
    "classes_per_batch": "Training",
    "batch_size": "Computation",
    "autoencoder": "Autoencoder",
}


def group_parameters(
    app: Sphinx, kind: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Put a heading before each group of a detector's parameters."""
    if kind != "class" or not issubclass(thing, BaseDetector):
        return
    end = next(i for i, line in enumerate(lines) if line.startswith(":Attributes:"))
    for number in reversed(range(end)):
        entry = re.match(r"    \*\*(\w+)\*\* : ", lines[number])
        if entry and (title := PARAMETER_GROUPS.get(entry[1])):
            lines[number:number] = [f"    .. rubric:: {title}", ""]


def setup(app: Sphinx) -> None:
    """Let the pages' links work here as well, and group parameters."""
    app.connect("source-read", link_to_the_gallery)
    # After numpydoc, which has written the lists.
    app.connect("autodoc-process-docstring", group_parameters, priority=900)
