"""The demonstration: real work on a real folder tree, one file as database, nothing else needed."""
