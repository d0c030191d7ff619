#!/usr/bin/tclsh
# Group commit with Tcl's sqlite3 and Thread packages.
#
# Eight threads, each with a connection of its own, commit 50 rows each. Every Tcl thread is an
# interpreter of its own in one process, so they do commit at the same time and share syncs.
#
#   examples/tcl_app.tcl          a new database in a temporary directory, removed at the end
#   examples/tcl_app.tcl FILE     a new database FILE, which is kept

package require sqlite3
package require Thread

set threads 8

set extension [file join [file dirname [file normalize [info script]]] .. build groupcommit.so]
if {[info exists env(GROUPCOMMIT_EXTENSION)]} {set extension $env(GROUPCOMMIT_EXTENSION)}

# Registers the VFS "groupcommit" for the whole process; once is enough.
sqlite3 loader :memory:
loader enable_load_extension 1
loader eval {SELECT load_extension($extension)}
loader close ;# the VFS stays

# What each interpreter needs, to be evaluated in all of them.
set common {
  package require sqlite3

  proc open_database {path} {
    # The same as: sqlite3 db file:$path?vfs=groupcommit -uri 1
    sqlite3 db $path -vfs groupcommit
    db timeout 30000 ;# writers still take turns
    db eval {PRAGMA journal_mode=WAL}
    db eval {PRAGMA synchronous=FULL} ;# a setting of each connection
  }

  proc commit_rows {path writer} {
    open_database $path
    for {set i 0} {$i < 50} {incr i} {
      # Outside a transaction, each statement commits by itself.
      db eval {INSERT INTO entry(writer) VALUES($writer)}
    }
    db close
  }
}
eval $common

set directory ""
if {$argc > 0} {
  set path [file normalize [lindex $argv 0]]
} else {
  set directory [exec mktemp -d]
  set path $directory/app.db
}

# This connection stays open to the end: the statistics of a database are counted from its first
# connection until its last one closes.
open_database $path
db eval {CREATE TABLE IF NOT EXISTS entry(id INTEGER PRIMARY KEY, writer INTEGER NOT NULL)}

# A thread's result, or its error, arrives in a variable of ours.
for {set writer 0} {$writer < $threads} {incr writer} {
  thread::send -async [thread::create] "$common; commit_rows [list $path] $writer" result($writer)
}
for {set writer 0} {$writer < $threads} {incr writer} {
  if {![info exists result($writer)]} {vwait result($writer)}
  if {$result($writer) ne ""} {error "writer $writer: $result($writer)"}
}

puts "rows     [db eval {SELECT count(*) FROM entry}]"
db eval {SELECT commits, syncs FROM groupcommit_stats} {
  puts "commits  $commits"
  puts "syncs    $syncs"
}
db close
if {$directory ne ""} {file delete -force $directory}
