"""Extraction by many workers: processes, Ray actors, machines.

Correctness is the store's: shards are sealed whole, the first one wins, the index comes last. A
crew can only be slow.
"""
