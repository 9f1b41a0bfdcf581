"""Read and write the table files of the command line."""
