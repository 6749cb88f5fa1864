"""Heads that draft one depth each (Medusa, Hydra): their sizes, and their checkpoints."""
