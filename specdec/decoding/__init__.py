"""The algorithm: the loop, the four roles and what passes between them."""
