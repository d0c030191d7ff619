"""Code blocks that are not run: (document, how it begins, why not). One that is gone has to go here."""

ILLUSTRATIONS = [
    ("examples/README.md", "rows     800", "output; the tests of the examples expect it"),
    ("examples/README.md", "cc -c -DSQLITE_EXTRA_INIT", "no Debian package has sqlite3.c; the test"
     " example_embedded does it where there is one"),
    ("vfs/README.md", "SQLite calls ", "a diagram"),
]
