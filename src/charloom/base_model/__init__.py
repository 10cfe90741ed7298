"""The base model that the package carries: a network of English, from which short runs start."""
