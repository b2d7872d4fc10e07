"""``mmsa init``: the profile of a data set, and an ``mmsa.toml`` for it."""
