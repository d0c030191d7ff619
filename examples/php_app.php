#!/usr/bin/php
<?php
// Group commit with PHP's SQLite3 and PDO, as far as it goes.
//
// PHP has no threads: under php-fpm or mod_php each request is served by a process of its own, and
// processes share no syncs. All is well, but each commit takes a sync of its own.
//
//   php -d sqlite3.extension_dir=$PWD/build examples/php_app.php [FILE]
//
// Without FILE the database is a temporary one, removed at the end.

const COMMITS = 400;

// Registers the VFS "groupcommit" for the whole process; once is enough, and again does no harm.
// PHP loads extensions of SQLite from the one directory that php.ini names (sqlite3.extension_dir).
$loader = new SQLite3(':memory:');
$loader->enableExceptions(true);
$loader->loadExtension('groupcommit.so');
$loader->close();  // the VFS stays

// PDO understands URIs. (The class SQLite3 takes "file:..." for a path; there, the database has to
// be attached: ATTACH 'file:app.db?vfs=groupcommit' AS app.)
function open_database(string $path): PDO {
    $db = new PDO("sqlite:file:$path?vfs=groupcommit");
    $db->setAttribute(PDO::ATTR_ERRMODE, PDO::ERRMODE_EXCEPTION);
    $db->setAttribute(PDO::ATTR_TIMEOUT, 30);  // seconds; writers take turns
    $db->exec('PRAGMA journal_mode=WAL');
    $db->exec('PRAGMA synchronous=FULL');  // a setting of each connection
    return $db;
}

$path = $argv[1] ?? tempnam(sys_get_temp_dir(), 'groupcommit-');
$db = open_database($path);
$db->exec('CREATE TABLE IF NOT EXISTS entry(id INTEGER PRIMARY KEY, writer INTEGER NOT NULL)');
$insert = $db->prepare('INSERT INTO entry(writer) VALUES(?)');
for ($i = 0; $i < COMMITS; $i++) {
    // PDO's own beginTransaction() is a plain BEGIN; a transaction that reads before it writes
    // should begin with exec('BEGIN IMMEDIATE').
    $db->beginTransaction();
    $insert->execute([getmypid()]);
    $db->commit();
}

echo 'rows     ', $db->query('SELECT count(*) FROM entry')->fetchColumn(), "\n";
[$commits, $syncs] = $db->query('SELECT commits, syncs FROM groupcommit_stats')->fetch();
echo "commits  $commits\nsyncs    $syncs\n";

$insert = $db = null;  // closes the database, which removes -wal and -shm
if (!isset($argv[1])) {
    unlink($path);
}
