"""From data as it lies to labelled rows, whatever its layout; no text file or picture is read here.

=========  =============================================================================
layout     content of ``DIR``
=========  =============================================================================
report     ``train.txt``, ``val.txt``, ``test*.txt``: rows ``guid,tag``; pairs
tables     ``train``, ``val`` and ``test`` as tables (see `mmsa_cache.data.tables`), in ``DIR``,
           ``DIR/data`` or a folder a split; or one table of any name
mvsa       raw MVSA-Single or -Multiple: ``labelResultAll.txt``, two folders below at most; pairs
pairs      no label file, only pairs: the split test, without labels
classes    a folder a class, in ``DIR`` or in a folder a split; pairs in them
=========  =============================================================================

Pairs are ``GUID.txt`` and ``GUID.jpg`` in ``DIR/pairs``, ``DIR/data`` or ``DIR``, or in folders of
their own such as ``texts`` and ``images``. `listing.Listing` gives the rows as a stream; problems
are gathered by their causes, with the first lines of each, before anything raises.
"""
