"""``mmsa bench``: speed and memory, measured on the user's machine."""
