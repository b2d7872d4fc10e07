"""``mmsa cache push`` and ``pull``: a store as a data set repository of the Hugging Face hub."""
