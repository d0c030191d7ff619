#!/usr/bin/ruby
# Group commit with Ruby's sqlite3 gem, as far as it goes.
#
# Eight threads, each with a connection of its own, commit 50 rows each. The gem keeps Ruby's global
# lock while SQLite works, so no two threads of a process are ever in COMMIT at the same time: all
# is well, but there is nothing to share, and each commit takes a sync of its own.
#
#   examples/ruby_app.rb          a new database in a temporary directory, removed at the end
#   examples/ruby_app.rb FILE     a new database FILE, which is kept
require "sqlite3"
require "tmpdir"

THREADS = 8
COMMITS_PER_THREAD = 50
EXTENSION = ENV.fetch("GROUPCOMMIT_EXTENSION", File.join(__dir__, "../build/groupcommit.so"))

# Registers the VFS "groupcommit" for the whole process; once is enough.
def load_extension
  SQLite3::Database.new(":memory:") do |loader|
    loader.enable_load_extension(true)
    loader.load_extension(EXTENSION)
  end # closes it; the VFS stays
end

def open_database(path)
  db = SQLite3::Database.new(path, {}, "groupcommit") # or: "file:#{path}?vfs=groupcommit"
  # Not busy_timeout(): that sleeps in SQLite with the global lock held, so that the thread it waits
  # for cannot go on. Ruby's own sleep lets go of it.
  db.busy_handler { |attempts| attempts < 30_000 && sleep(0.001) }
  db.execute("PRAGMA journal_mode=WAL")
  db.execute("PRAGMA synchronous=FULL") # a setting of each connection
  db
end

def commit_rows(path, writer)
  db = open_database(path)
  COMMITS_PER_THREAD.times do
    # IMMEDIATE: whoever waits for the write lock should do so before reading anything.
    db.transaction(:immediate) { db.execute("INSERT INTO entry(writer) VALUES(?)", [writer]) }
  end
  db.close
end

def run(path)
  # This connection stays open to the end: the statistics of a database are counted from its first
  # connection until its last one closes.
  db = open_database(path)
  db.execute("CREATE TABLE IF NOT EXISTS entry(id INTEGER PRIMARY KEY, writer INTEGER NOT NULL)")

  writers = THREADS.times.map { |writer| Thread.new { commit_rows(path, writer) } }
  writers.each(&:join) # raises what its thread has raised

  commits, syncs = db.get_first_row("SELECT commits, syncs FROM groupcommit_stats")
  puts "rows     #{db.get_first_value('SELECT count(*) FROM entry')}"
  puts "commits  #{commits}"
  puts "syncs    #{syncs}"
  db.close
end

load_extension
if ARGV.empty?
  Dir.mktmpdir("groupcommit-") { |directory| run(File.join(directory, "app.db")) }
else
  run(ARGV[0])
end
