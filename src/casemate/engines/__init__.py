"""One small module per engine: from an attested session to settings, environment and files."""
