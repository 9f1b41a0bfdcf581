"""Read answers: schemas, parsing, validation, and the columns they become."""
