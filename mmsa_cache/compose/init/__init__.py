"""``mmsa init``: what a data set is like, and the settings that it needs."""
