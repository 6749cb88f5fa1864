"""The check at load: decoding's forwards must equal the model's own."""
