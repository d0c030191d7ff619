#!/usr/bin/perl
# Group commit with Perl's DBD::SQLite and threads.
#
# Eight threads, each with a handle of its own, commit 50 rows each. Perl's threads are interpreters
# of their own in one process, so they do commit at the same time and share syncs. Processes, as
# after fork(), would not share any.
#
#   examples/perl_app.pl          a new database in a temporary directory, removed at the end
#   examples/perl_app.pl FILE     a new database FILE, which is kept
use strict;
use warnings;
use threads;
use DBI;
use File::Temp qw(tempdir);
use FindBin;

use constant { THREADS => 8, COMMITS_PER_THREAD => 50 };

my $extension = $ENV{GROUPCOMMIT_EXTENSION} // "$FindBin::RealBin/../build/groupcommit.so";

# Registers the VFS "groupcommit" for the whole process; once is enough.
sub load_extension {
    my $loader = DBI->connect('dbi:SQLite::memory:', '', '', { RaiseError => 1 });
    $loader->sqlite_enable_load_extension(1);
    $loader->sqlite_load_extension($extension);
    $loader->disconnect;    # the VFS stays
}

# DBD::SQLite waits 30 s for the write lock unless told otherwise, and begin_work() asks for it at
# once (BEGIN IMMEDIATE), which is what writers that take turns need.
sub open_database {
    my ($path) = @_;
    my $dsn = "dbi:SQLite:uri=file:$path?vfs=groupcommit";
    my $dbh = DBI->connect($dsn, '', '', { RaiseError => 1 });
    $dbh->do('PRAGMA journal_mode=WAL');
    $dbh->do('PRAGMA synchronous=FULL');    # a setting of each handle
    return $dbh;
}

# A handle belongs to the thread that made it, so each thread connects for itself.
sub commit_rows {
    my ($path, $writer) = @_;
    my $dbh    = open_database($path);
    my $insert = $dbh->prepare('INSERT INTO entry(writer) VALUES(?)');
    for (1 .. COMMITS_PER_THREAD) {
        $dbh->begin_work;
        $insert->execute($writer);
        $dbh->commit;
    }
    $dbh->disconnect;
    return 'done';    # an error ends its thread only: join() then returns nothing
}

my $path = shift // tempdir(CLEANUP => 1) . '/app.db';
load_extension();
# This handle stays open to the end: the statistics of a database are counted from its first
# connection until its last one closes.
my $dbh = open_database($path);
$dbh->do('CREATE TABLE IF NOT EXISTS entry(id INTEGER PRIMARY KEY, writer INTEGER NOT NULL)');

my @writers =
    map { threads->create({ context => 'scalar' }, \&commit_rows, $path, $_) } 1 .. THREADS;
my $done = grep { defined $_->join } @writers;
die "a writer failed\n" if $done != THREADS;

printf "rows     %d\n", $dbh->selectrow_array('SELECT count(*) FROM entry');
printf "commits  %d\nsyncs    %d\n",
    $dbh->selectrow_array('SELECT commits, syncs FROM groupcommit_stats');
$dbh->disconnect;
