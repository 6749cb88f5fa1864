"""What a caller asks for: prompts, sampling settings, stop rules and text."""
