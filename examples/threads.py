#!/usr/bin/env python3
"""Group commit with Python's own sqlite3 module.

Eight threads, each with a connection of its own, commit 100 rows each. The module lets go of the
interpreter lock while SQLite works, so the threads do commit at the same time and share syncs.

    examples/threads.py          a new database in a temporary directory, removed at the end
    examples/threads.py FILE     a new database FILE, which is kept
"""

import argparse
import json
import pathlib
import sqlite3
import sys
import tempfile
import threading
import urllib.parse

THREADS = 8
COMMITS_PER_THREAD = 100
EXTENSION = pathlib.Path(__file__).resolve().parent.parent / "build" / "groupcommit.so"


def load_extension(extension):
    """Registers the VFS "groupcommit" for the whole process; once is enough."""
    connection = sqlite3.connect(":memory:")
    if not hasattr(connection, "enable_load_extension"):
        sys.exit(
            f"threads.py: {sys.executable} was built without support for SQLite extensions "
            "(--enable-loadable-sqlite-extensions); try the Python of your system, /usr/bin/python3"
        )
    try:
        connection.enable_load_extension(True)
        connection.load_extension(str(extension))
    except sqlite3.OperationalError as error:
        sys.exit(f"threads.py: cannot load {extension}: {error} (run make first?)")
    finally:
        connection.close()  # the VFS stays


def connect(path):
    # quote(): in a URI the characters ? # % of a path have to be escaped.
    uri = f"file:{urllib.parse.quote(str(path))}?vfs=groupcommit"
    # isolation_level=None: every statement outside BEGIN ... COMMIT commits by itself.
    # timeout: writers still take turns for the write lock, so each needs some patience.
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")  # a setting of each connection
    return connection


def commit_rows(path, writer, errors):
    try:
        connection = connect(path)
        for _ in range(COMMITS_PER_THREAD):
            connection.execute("INSERT INTO entry(writer) VALUES(?)", (writer,))
        connection.close()
    except sqlite3.Error as error:  # an exception would end its thread only
        errors.append(f"writer {writer}: {error}")


def run(path):
    # This connection stays open to the end: the statistics of a database are counted from its
    # first connection until its last one closes.
    connection = connect(path)
    connection.execute("CREATE TABLE entry(id INTEGER PRIMARY KEY, writer INTEGER NOT NULL)")

    errors = []
    writers = [
        threading.Thread(target=commit_rows, args=(path, writer, errors))
        for writer in range(THREADS)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not errors, errors

    (rows,) = connection.execute("SELECT count(*) FROM entry").fetchone()
    (text,) = connection.execute("PRAGMA groupcommit_stats").fetchone()
    stats = json.loads(text)
    assert rows == THREADS * COMMITS_PER_THREAD, rows
    assert stats["commits"] >= rows, stats
    print(f"rows     {rows}")
    print(f"commits  {stats['commits']}")
    print(f"syncs    {stats['syncs']}")
    connection.close()


def main():
    parser = argparse.ArgumentParser(description="Group commit with Python's own sqlite3 module.")
    parser.add_argument("file", nargs="?", help="a new database, which is kept")
    parser.add_argument("--extension", default=EXTENSION, help="default: %(default)s")
    arguments = parser.parse_args()

    load_extension(arguments.extension)
    if arguments.file:
        run(pathlib.Path(arguments.file).resolve())
    else:
        with tempfile.TemporaryDirectory(prefix="groupcommit-") as directory:
            run(pathlib.Path(directory) / "app.db")


if __name__ == "__main__":
    main()
