"""``mmsa check``: what is wrong with a data folder, and what it is like."""
