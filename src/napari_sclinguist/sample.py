"""Sample sections for napari's File > Open Sample menu."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sclinguist.layers import LayerData


def simulated_tonsil() -> list[LayerData]:
    """Open the simulated tonsil-like section that is installed with the package.

    Its counts and its histology come from a script: it shows how things look and work, not how
    good predictions are.
    """
    from napari_sclinguist.layers import section_layers
    from sclinguist_core.data.readers import open_section
    from sclinguist_core.resources import sample_section_path

    return section_layers(open_section(sample_section_path(), name="tonsil (simulated)"))
