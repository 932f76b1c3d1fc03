"""Stores: data sets of cells as shuffled, sharded zarr, from which training streams.

A store is a folder with one AnnData ``.zarr`` a data set and an index, ``store.json``. `build`
makes one, `reader` reads blocks of its rows.
"""
