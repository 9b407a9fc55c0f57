"""Builds as setuptools does; what the archive of the sources holds stands beside this.

setuptools looks for MANIFEST.in at the top level only, which is kept short.
"""

from setuptools.build_meta import *  # noqa: F403
from setuptools.command.egg_info import manifest_maker

manifest_maker.template = ".ci/MANIFEST.in"
