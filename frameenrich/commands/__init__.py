"""The commands, a module for each panel of ``frameenrich --help``; `cli` puts them together."""
