"""From a data folder to labelled rows, whatever its layout; no text file or picture is read here.

=========  ============================================================  ==========
layout     content of ``DIR``                                            splits
=========  ============================================================  ==========
report     ``train.txt``, ``test*.txt``: rows ``guid,tag``; pairs        both
tables     ``train`` and ``test`` as ``.csv``, ``.tsv`` or ``.jsonl``    both
mvsa       raw MVSA-Single or -Multiple: ``labelResultAll.txt``; pairs   train only
pairs      no label file, only pairs                                     test only
=========  ============================================================  ==========

Pairs are ``GUID.txt`` and ``GUID.jpg`` in ``DIR/pairs``, ``DIR/data`` or ``DIR``. Every problem is
noted with its line before anything raises.
"""
