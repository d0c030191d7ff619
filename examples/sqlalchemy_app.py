#!/usr/bin/python3
"""Group commit with SQLAlchemy: its pool and its ORM.

Eight threads commit 50 transactions each, with sessions on the connections of one pool. Python's
sqlite3 module lets go of the interpreter lock while SQLite works, so they share syncs.

    examples/sqlalchemy_app.py          a new database in a temporary directory, removed at the end
    examples/sqlalchemy_app.py FILE     a new database FILE, which is kept
"""

import concurrent.futures
import os
import pathlib
import sqlite3
import sys
import tempfile

from sqlalchemy import Column, Integer, create_engine, event, func, select
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, declarative_base
from sqlalchemy.pool import QueuePool

THREADS = 8
COMMITS_PER_THREAD = 50
EXTENSION = pathlib.Path(__file__).resolve().parent.parent / "build" / "groupcommit.so"

Base = declarative_base()


class Entry(Base):
    __tablename__ = "entry"
    id = Column(Integer, primary_key=True)
    writer = Column(Integer, nullable=False)


def load_extension(extension):
    """Registers the VFS "groupcommit" for the whole process; once is enough."""
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(str(extension))
    loader.close()  # the VFS stays


def open_engine(path):
    # sqlite:///file:/path/to/app.db?timeout=30&uri=true&vfs=groupcommit: SQLAlchemy takes what
    # sqlite3.connect() knows, and leaves the rest to SQLite.
    options = {"uri": "true", "vfs": "groupcommit", "timeout": "30"}
    # SQLAlchemy 1.4 opens a file anew for each transaction unless it is told to pool.
    engine = create_engine(
        URL.create("sqlite", database=f"file:{path}", query=options),
        poolclass=QueuePool,
        pool_size=THREADS + 1,
        connect_args={"check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def set_up(connection, _record):
        connection.isolation_level = None  # no BEGIN from the sqlite3 module: it comes from below
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a setting of each connection

    @event.listens_for(engine, "begin")
    def begin(connection):
        # IMMEDIATE: a transaction that has read already cannot wait for the write lock, as its
        # snapshot would be too old by then ("database is locked").
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def commit_rows(engine, writer):
    for _ in range(COMMITS_PER_THREAD):
        with Session(engine) as session, session.begin():
            session.add(Entry(writer=writer))


def run(path):
    engine = open_engine(path)
    # The connections of the pool stay open, and with them the statistics: those of a database are
    # counted from its first connection until its last one closes.
    Base.metadata.create_all(engine)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as executor:
        for _ in executor.map(commit_rows, [engine] * THREADS, range(THREADS)):
            pass  # or raises what the thread has raised

    with Session(engine) as session:
        rows = session.scalar(select(func.count()).select_from(Entry))
    with engine.connect() as connection:
        query = "SELECT commits, syncs FROM groupcommit_stats"
        commits, syncs = connection.exec_driver_sql(query).one()
    engine.dispose()
    print(f"rows     {rows}")
    print(f"commits  {commits}")
    print(f"syncs    {syncs}")


def main():
    load_extension(os.environ.get("GROUPCOMMIT_EXTENSION", EXTENSION))
    if len(sys.argv) > 1:
        run(pathlib.Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory(prefix="groupcommit-") as directory:
            run(pathlib.Path(directory) / "app.db")


if __name__ == "__main__":
    main()
