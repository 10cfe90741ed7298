"""N-gram models with Kneser-Ney smoothing, and their mixture with the network."""
