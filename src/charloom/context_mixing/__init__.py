"""Context mixing: many contexts predict the next character, and learned weights mix them."""
