"""Name rows and requests: keys, hashes, duplicates, fingerprints."""
