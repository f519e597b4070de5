"""What the framework integrations share: models by their settings, media references in metadata, loaders."""
