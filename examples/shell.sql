-- shell.sql -- group commit in the sqlite3 shell. After "make", in the directory of the repository:
--
--   sqlite3 < examples/shell.sql

.bail on
.shell rm -f build/shell-example.db build/shell-example.db-wal build/shell-example.db-shm

-- Loading the extension registers the VFS for the whole process; the connection that happens to be
-- open now (to an in-memory database) is not changed by it. The entry point can be left out: SQLite
-- derives it from the file's name.
.load build/groupcommit sqlite3_groupcommit_init

-- A database uses the VFS when it is opened through it. The policy could be given here as well:
-- ?vfs=groupcommit&flush_policy=on_each_flush
.open file:build/shell-example.db?vfs=groupcommit
.print The VFS of this connection:
.vfsname

-- Group commit is for WAL databases that sync at every COMMIT; all others work as ever.
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;

-- Which policy is in force, and how to change it for all connections of this process.
PRAGMA groupcommit_policy;
PRAGMA groupcommit_policy='group(max_wait_us=500,max_batch=8)';
PRAGMA groupcommit_policy='auto';

CREATE TABLE entry(id INTEGER PRIMARY KEY, note TEXT);
INSERT INTO entry(note) VALUES('one');
INSERT INTO entry(note) VALUES('two');
INSERT INTO entry(note) VALUES('three');
SELECT 'rows', count(*) FROM entry;

-- The counters of this database as one JSON object, and those of all databases that the process has
-- open as a table. A connection that commits alone has no one to share with, so here each commit
-- did a sync of its own, and the new log file took one more; threads.py and cpp_app.cc show the
-- sharing.
.print Statistics:
PRAGMA groupcommit_stats;
.mode line
SELECT path, policy, commits, syncs FROM groupcommit_stats;

-- Closes the database, and removes it.
.open :memory:
.shell rm build/shell-example.db
