"""The target model and what surrounds it: masks, checks, checkpoints, and the embedded weights."""
