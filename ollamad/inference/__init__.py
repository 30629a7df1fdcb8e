"""The services behind the API: lease → prompt → runner → parser → events."""
