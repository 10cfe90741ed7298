"""Search for the training options that suit a text best."""
