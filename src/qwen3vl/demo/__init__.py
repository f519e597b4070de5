"""The demo's drawn library: scenes, files with them, and questions about them."""
