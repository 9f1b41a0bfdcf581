"""From rows to request bodies: templates, images, encoding."""
