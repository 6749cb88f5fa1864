"""What plugins register, and how parts are chosen by name."""
