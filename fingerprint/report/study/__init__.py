"""The page of a study: what generators trained on sets of growing size copy (paper 000)."""
