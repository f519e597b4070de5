"""What the framework integrations share: model settings and registry, media references in metadata, loaders."""
