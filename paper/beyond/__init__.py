"""What the paper does not have: drawn by scripts of their own, counted and shown apart."""
