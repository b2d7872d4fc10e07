"""Mutants: one fault at a time is put into the core, and the tests have to see it.

``make test-mutants``; `EQUIVALENT` of `known` names those that nothing can tell from the code.
"""
