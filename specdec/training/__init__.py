"""Training of drafters for a target model: from text to a checkpoint that the engine takes.

:func:`specdec.training.pipeline.train` is the whole way; each other module is one part of it.
"""
