"""An app that has handlers, and a tracking plan."""
