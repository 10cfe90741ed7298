"""Analysis of a trained model: surprisal by character, and the labels that its units track."""
