"""Traces: what each step of a generation drafted, accepted and took, and a page that shows it."""
