"""Requests: prompts, sampling settings, logits processors, stop rules and text."""
