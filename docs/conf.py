"""How the site is built: ``sphinx-build -W --keep-going docs docs/_build``."""

import os
import socket
import sys
from pathlib import Path

import skvmdls

# sphinx-gallery runs the examples: on the CPU, and with one thread if two are not there.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "skvmdls"
copyright = "the developers of skvmdls"
version = release = skvmdls.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "results", "api/_templates"]
templates_path = ["_templates"]
# Machine-made or repeated texts: names of files, and the same headings in one page.
suppress_warnings = ["config.cache"]

myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

autosummary_generate = True
autodoc_default_options = {
    "members": True,
    # What scikit-learn and torch give to every estimator and module is told there.
    "inherited-members": "TransformerMixin,BaseEstimator,Module,Display",
    "exclude-members": "set_fit_request,get_params,set_params",
}
autodoc_typehints = "none"
add_module_names = False
numpydoc_show_class_members = False
# EX01, SA01, ES01: our own tests ask for examples of public names; the others are taste.
numpydoc_validation_checks = {
    *("GL01", "GL02", "GL03", "GL05", "GL06", "GL07", "GL10"),
    *("SS01", "SS02", "SS04", "PR01", "PR02", "PR03", "PR05", "RT01"),
}
numpydoc_validation_exclude = {r"\.__init__$"}
numpydoc_validation_overrides = {"GL01": [r"^Kind of"]}

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "gallery",
    # The others take longer than a page may: they are shown, and not run.
    "filename_pattern": r"/(known_and_unknown|why_rejected|open_world)\.py$",
    "ignore_pattern": r"benchmarks",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "plot_gallery": True,
    "abort_on_example_error": True,
    "reset_modules": (),
    "remove_config_comments": True,
    "write_computation_times": False,
}


def _reaches(host: str) -> bool:
    try:
        socket.create_connection((host, 443), timeout=2).close()
    except OSError:
        return False
    return True


# Links to other projects' pages are a convenience: without a network, plain names.
_OTHERS = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "sklearn": "https://scikit-learn.org/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}
intersphinx_mapping = {
    name: (url, None)
    for name, url in _OTHERS.items()
    if _reaches(url.split("/")[2])
}

html_theme = "pydata_sphinx_theme"
html_title = "skvmdls"
html_static_path: list[str] = []
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
