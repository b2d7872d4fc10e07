"""The page of ``mmsa serve``: a trained model to try in a browser."""
