"""What drafters and tree policies are built from."""
