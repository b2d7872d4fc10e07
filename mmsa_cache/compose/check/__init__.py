"""``mmsa check``: problems and statistics of a data folder."""
