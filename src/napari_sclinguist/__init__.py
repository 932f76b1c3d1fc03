"""The napari plugin: open a tissue section, see measured and predicted proteins over the histology.

napari finds the plugin through ``napari.yaml``; nothing is imported before it is needed.
"""

from sclinguist_core import __version__

__all__ = ["__version__"]
