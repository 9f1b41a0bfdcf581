"""Pages for people: the report page and the notebook card."""
