"""Code blocks that are not run: (document, how it begins, why not). One that is gone has to go here."""

ILLUSTRATIONS = [
    ("examples/README.md", "rows     800", "output; the tests of the examples expect it"),
    ("vfs/README.md", "SQLite calls ", "a diagram"),
]
