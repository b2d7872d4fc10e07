"""The content and the maintenance of stores: ``mmsa cache``."""
