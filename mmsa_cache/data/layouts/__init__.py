"""Data folders of any layout as streams of labelled rows; text files and pictures stay unread.

=========  =============================================================================
layout     content of ``DIR``
=========  =============================================================================
report     ``train.txt``, ``val.txt``, ``test*.txt``: rows ``guid,tag``; pairs
tables     ``train``, ``val`` and ``test`` as tables (see `mmsa_cache.data.tables`), in ``DIR``,
           ``DIR/data`` or one folder per split; or one table of any name
mvsa       raw MVSA-Single or -Multiple: ``labelResultAll.txt``, at most two folders deep; pairs
pairs      pairs without a label file: the split test, unlabelled
classes    one folder per class, in ``DIR`` or in one folder per split; pairs in them
=========  =============================================================================

Pairs are ``GUID.txt`` and ``GUID.jpg`` in ``DIR/pairs``, ``DIR/data`` or ``DIR``, or in separate
folders such as ``texts`` and ``images``. `listing.Listing` streams the rows; problems are collected
by cause, with the first lines of each, before anything raises.
"""
