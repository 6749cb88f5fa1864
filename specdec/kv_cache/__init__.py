"""The key-value cache with per-row lengths."""
