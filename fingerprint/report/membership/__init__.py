"""The page of a membership run: which real slices were used for training, how well it is told."""
