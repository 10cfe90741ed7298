"""Look inside a trained model: surprisal by character, and what single units respond to."""
