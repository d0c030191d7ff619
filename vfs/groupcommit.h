/*
** groupcommit.h -- group commit for stock SQLite, as a VFS shim.
**
** In WAL mode with "PRAGMA synchronous=FULL", stock SQLite syncs the log at
** every COMMIT while it holds the write lock, so any number of connections
** commits at the rate of one.  This library registers a VFS that wraps
** another one, lets go of the write lock first, and lets every connection of
** the process that is committing at that moment share one sync.  COMMIT still
** returns only once the commit is durable.  The file is an ordinary SQLite
** database.
**
** Three ways to use it:
**
**   1. From C or C++, linked with libgroupcommit.a:
**
**          groupcommit_register(NULL, NULL, 0, NULL);
**          sqlite3_open_v2("app.db", &db,
**              SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "groupcommit");
**          sqlite3_exec(db, "PRAGMA busy_timeout=10000; "
**              "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL", 0, 0, 0);
**
**   2. As a loadable extension (groupcommit.so), from the sqlite3 shell or any
**      driver that can load extensions:
**
**          .load ./groupcommit
**          .open file:app.db?vfs=groupcommit
**
**      The VFS is registered for the whole process and stays after the
**      connection that loaded it is closed.  Loading with the entry point
**      sqlite3_groupcommit_default_init also makes it the default VFS.
**
**   3. By URI: file:app.db?vfs=groupcommit&flush_policy=group&max_wait_us=500
**
** URI PARAMETERS (of a main or attached database opened with this VFS)
**
**   flush_policy=NAME   on_each_flush, group, auto or interval; see
**                       groupcommit_policy.
**   max_wait_us=N       0 to 10000000 microseconds, 1000 if not given.  Only
**                       with group, and implies it when flush_policy is not
**                       given.
**   max_batch=N         0 to 1000000 commits, 64 if not given; 0 counts as 1.
**                       As max_wait_us.
**   max_delay_us=N      0 to 10000000 microseconds, 10000 if not given.  Only
**                       with interval, and implies it when flush_policy is not
**                       given.
**
**   The policy is that of the database, for all connections of the process and
**   until the last one closes: the first URI that names one sets it, unless the
**   pragma has set one before.  A later URI that names another one makes the
**   open fail with SQLITE_MISUSE.  So does interval where it would come to
**   connections that are open under another policy: they count on their
**   commits.  And so does a value that is unknown, empty, negative, not a
**   number or out of range.  The reason goes to sqlite3_log(); the file is not
**   touched.  flush_policy takes a name alone, in small letters or capitals.  As
**   with SQLite's own parameters, the name of a parameter is in small letters, the
**   first of several values counts, and a parameter of another name is ignored.
**
** PRAGMAS
**
**   PRAGMA [schema.]groupcommit_policy;
**       The policy in force, as text: on_each_flush, auto,
**       group(max_wait_us=500,max_batch=8) or interval(max_delay_us=10000).
**   PRAGMA [schema.]groupcommit_policy = 'TEXT';
**       Sets it for the database: all connections of this process, at once and
**       until the last of them closes.  Returns the new policy.  SQLITE_ERROR
**       with a message, and no change, if TEXT is not a policy.  It acts when the
**       statement is prepared, as groupcommit_flush does.
**   PRAGMA [schema.]groupcommit_stats;
**       One JSON object; the members are those of struct
**       groupcommit_statistics.
**   PRAGMA [schema.]groupcommit_flush;
**       Returns when everything that was committed on the database before is
**       durable; see groupcommit_flush().  Like all pragmas of a VFS it runs
**       when the statement is prepared: with sqlite3_exec(), or a driver's
**       execute(), that is no matter; a statement that is prepared once and
**       stepped later flushes at the preparation, and again at each step but
**       the first.  The result is a row with the LSN up to which all is durable.
**
**   Another pragma whose name begins with groupcommit_ is an SQLITE_ERROR here, so
**   that a misspelled flush does not pass for one.  Where the database is not open
**   through this VFS they are all unknown to SQLite, which ignores such: no row.
**
**   The policy comes from the first of: pragma, URI, registration, the
**   environment variable GROUPCOMMIT_POLICY (read when the extension is
**   loaded, and by groupcommit_extra_init()), the built-in default "auto".
**
** TABLE groupcommit_stats (the extension, or groupcommit_stats_table())
**
**   An eponymous table with a row for each database that this process has open
**   through the VFS: its path, its policy, and the members of
**   struct groupcommit_statistics.  It knows the databases of its own copy of the
**   library; the extension adds none where the VFS is another copy's.
**
** THREADS
**
**   Every function may be called from any thread at any time.  A connection is
**   subject to SQLite's own rules, nothing more.  After fork() the child may
**   open databases of its own; connections it inherited must not be used,
**   as with SQLite itself.
*/
#ifndef GROUPCOMMIT_H
#define GROUPCOMMIT_H

#include <sqlite3.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header; groupcommit_libversion() tells the library's. */
#define GROUPCOMMIT_VERSION "0.1.0"
#define GROUPCOMMIT_VERSION_NUMBER 1000 /* major*1000000 + minor*1000 + patch */

/* The name under which groupcommit_register(NULL, ...) registers the VFS. */
#define GROUPCOMMIT_VFS_NAME "groupcommit"

/* Longest name that groupcommit_register() takes, in bytes. */
#define GROUPCOMMIT_MAX_NAME 63

/* Kinds of policy; see groupcommit_policy. */
#define GROUPCOMMIT_ON_EACH_FLUSH 0
#define GROUPCOMMIT_GROUP 1
#define GROUPCOMMIT_AUTO 2
#define GROUPCOMMIT_INTERVAL 3

/* Limits and defaults of the parameters of GROUPCOMMIT_GROUP and
** GROUPCOMMIT_INTERVAL. */
#define GROUPCOMMIT_MAX_WAIT_US_LIMIT 10000000u
#define GROUPCOMMIT_MAX_WAIT_US_DEFAULT 1000u
#define GROUPCOMMIT_MAX_BATCH_LIMIT 1000000u
#define GROUPCOMMIT_MAX_BATCH_DEFAULT 64u
#define GROUPCOMMIT_MAX_DELAY_US_LIMIT 10000000u
#define GROUPCOMMIT_MAX_DELAY_US_DEFAULT 10000u

/*
** When the log is synced for waiting commits.
**
**   GROUPCOMMIT_ON_EACH_FLUSH  Every commit does its own sync while it holds
**       the write lock, as stock SQLite does.  A zeroed struct is this policy.
**   GROUPCOMMIT_GROUP  The first commit that finds no sync running waits until
**       max_batch commits wait, at most max_wait_us, then syncs once for all.
**   GROUPCOMMIT_AUTO   The same without tuning: it waits for as many commits
**       as were in flight lately, at most for half the time that a sync takes (for
**       a single other writer who has just come in time, for four syncs, but no
**       longer than 0.4 ms), and never when a connection commits alone.  Where the disk
**       serves several syncs in the time of one, and has no volatile cache, up to
**       four are under way at a time.
**   GROUPCOMMIT_INTERVAL  COMMIT returns at once, and a thread of the library
**       makes the commits durable, each within max_delay_us of its COMMIT (or the
**       rest of a sync that is under way then, if that takes longer) and the time
**       that a sync takes.  A POWER CUT TAKES THE COMMITS OF THAT TIME,
**       as with synchronous=NORMAL, but of no longer time; a crash of the
**       process takes none.  Rows are readable before they are durable.
**       groupcommit_flush() waits for what is outstanding, and closing a
**       connection leaves none of its commits behind.  After a sync in the
**       background has failed, the next commit or flush of each connection that
**       was open then fails with SQLITE_IOERR_FSYNC, once, and the reason goes
**       to sqlite3_log(): commits that had returned may be lost if the power
**       fails before the log could be written again, which is tried at the next
**       commit.  It is for connections with synchronous=NORMAL as well.
**
** But for the last one, the policy decides when, never whether: COMMIT returns
** after the sync.
*/
typedef struct groupcommit_policy {
  int kind;                  /* GROUPCOMMIT_ON_EACH_FLUSH, _GROUP, _AUTO or _INTERVAL */
  unsigned int max_wait_us;  /* _GROUP: 0..GROUPCOMMIT_MAX_WAIT_US_LIMIT, in us */
  unsigned int max_batch;    /* _GROUP: 0..GROUPCOMMIT_MAX_BATCH_LIMIT; 0 is 1 */
  unsigned int max_delay_us; /* _INTERVAL: 0..GROUPCOMMIT_MAX_DELAY_US_LIMIT, in us */
} groupcommit_policy;

/*
** Registers a VFS that adds group commit to another VFS.
**
**   zName         Name of the new VFS; NULL means "groupcommit".  1 to
**                 GROUPCOMMIT_MAX_NAME bytes; copied.
**   zBase         Name of the VFS to wrap; NULL means the current default.
**                 It must stay registered for as long as this one is.  After a
**                 failed sync, under the policy interval, for groupcommit_wait()
**                 with a limit, and for the first commit of a new connection,
**                 xSync of a log file is called by one thread while another one
**                 may be using that file; the VFSes of SQLite itself allow that.
**                 A VFS of this library does not.  If zBase is one itself, what
**                 that wraps is wrapped instead.  If one lies deeper, or is that of
**                 another copy of the library, databases are left to it, with its
**                 policy and its statistics: this one only passes calls on.
**   makeDefault   Non-zero: becomes the default VFS.
**   pPolicy       Policy of databases opened through it for which neither URI
**                 nor pragma says otherwise; copied.  NULL means auto.  A database
**                 has one policy: where it is open through several such VFSes, that
**                 of the first; but if that is interval, and the second's is not,
**                 the second open fails with SQLITE_MISUSE.
**
** Returns SQLITE_OK;
** SQLITE_MISUSE  zName is empty or too long, or *pPolicy is out of range;
** SQLITE_ERROR   a VFS called zName is registered already, or SQLite is older
**                than 3.39.0;
** SQLITE_NOTFOUND  there is no VFS called zBase (or no default VFS);
** SQLITE_NOMEM.
** The reason for a failure goes to sqlite3_log(), and nothing is changed.
*/
int groupcommit_register(const char* zName, const char* zBase, int makeDefault,
                         const groupcommit_policy* pPolicy);

/*
** Unregisters the VFS zName (NULL: "groupcommit") that groupcommit_register()
** or groupcommit_extra_init() registered.  That of the extension stays for as
** long as the process.
**
** Returns SQLITE_OK; SQLITE_BUSY while a database file is open through it;
** SQLITE_NOTFOUND if zName is not registered, or not by this copy of the library.
*/
int groupcommit_unregister(const char* zName);

/*
** Switches group commit on by itself, in a program that compiles SQLite in:
**
**     cc -c -DSQLITE_EXTRA_INIT=groupcommit_extra_init sqlite3.c
**
** SQLite then calls this function when it has initialized itself, before the
** first database is opened.  It does for the process what the extension does
** when loaded with sqlite3_groupcommit_default_init: the VFS "groupcommit"
** becomes the default, with the policy that GROUPCOMMIT_POLICY names, and every
** connection has the table groupcommit_stats.  zUnused is not looked at.
**
** It may be called again, as SQLite does after sqlite3_shutdown(): the VFS is
** there then, and keeps its policy.  A thread
** that opens a database while another one initializes SQLite may be earlier
** than this function, and get the old default VFS; it is harmless, and a
** program with such threads calls sqlite3_initialize() before it starts them.
**
** Returns SQLITE_OK; SQLITE_ERROR if GROUPCOMMIT_POLICY is not a policy; or what
** groupcommit_register() returns.  Then nothing is changed, the reason goes to
** sqlite3_log(), and SQLite fails the call that made it initialize itself.
*/
int groupcommit_extra_init(const char* zUnused);

/*
** Reads a policy from text: "on_each_flush", "auto", "group",
** "group(max_wait_us=N,max_batch=N)" with either or both parameters, in any
** order, "interval", or "interval(max_delay_us=N)".  Case does not matter and
** spaces may stand between the parts.
**
** Returns SQLITE_OK and fills *pOut; or SQLITE_ERROR, leaves *pOut alone and,
** where pzErr is not NULL, sets *pzErr to a message that names the part at
** fault and what is allowed, to be released with sqlite3_free().  SQLITE_MISUSE
** if zText or pOut is NULL; SQLITE_NOMEM.  *pzErr is NULL where there is no
** message.
*/
int groupcommit_policy_parse(const char* zText, groupcommit_policy* pOut, char** pzErr);

/*
** Writes *pPolicy as text that groupcommit_policy_parse() reads back.  At most
** nBuf bytes go to zBuf, a terminating zero included; none, and zBuf may be NULL,
** if nBuf is not positive.
**
** Returns the length of the whole text without the zero, as snprintf() does
** (64 bytes are always enough); or -1 if pPolicy is NULL, *pPolicy is out of range,
** or there is no memory.
*/
int groupcommit_policy_format(const groupcommit_policy* pPolicy, char* zBuf, int nBuf);

/* A distribution of times.  Quantiles are at most 7 % above the true value. */
typedef struct groupcommit_latency {
  sqlite3_int64 count;
  sqlite3_int64 p50_us;
  sqlite3_int64 p99_us;
  sqlite3_int64 max_us; /* exact */
} groupcommit_latency;

/* Buckets of groupcommit_statistics.batch: 1, 2, 3-4, 5-8, 9-16, 17-32, 33-64
** and more than 64 commits made durable by one sync. */
#define GROUPCOMMIT_BATCH_BUCKETS 8

/*
** What happened to one database in this process since its first connection
** opened it.  Counters only grow.  They are read one by one, not as a
** snapshot.
*/
typedef struct groupcommit_statistics {
  sqlite3_int64 connections;                      /* open now, through this VFS */
  sqlite3_int64 commits;                          /* commits that asked for a sync of the log */
  sqlite3_int64 deferred;                         /* of these, the ones whose sync came after
                                                  ** the write lock was free, to be shared
                                                  ** (the others synced as stock: schema
                                                  ** changes, several databases, ...) */
  sqlite3_int64 syncs;                            /* syncs of the log passed to the base VFS */
  sqlite3_int64 failed_syncs;                     /* of these, the ones that failed */
  sqlite3_int64 batch[GROUPCOMMIT_BATCH_BUCKETS]; /* commits per shared sync */
  sqlite3_int64 windows_filled;                   /* leaders' waits that ended with a full batch*/
  sqlite3_int64 windows_expired;                  /* leaders' waits that ran out of time */
  sqlite3_int64 reader_waits;                     /* reads that waited for a commit's sync */
  sqlite3_int64 pending;                          /* of deferred, the ones not durable yet, now;
                                                  ** what the first connection finds in the
                                                  ** log counts as one */
  sqlite3_int64 waiting;                          /* commits, reads and flushes that wait for a
                                                  ** sync, now */
  sqlite3_int64 fenced;                           /* 1 while closed to writers after a failed
                                                  ** sync, else 0 */
  groupcommit_latency sync;                       /* one sync of the log */
  groupcommit_latency commit_wait;                /* one deferred commit's wait */
  groupcommit_latency lock_wait;                  /* first refusal of the write lock until it
                                                  ** was granted; 0 when granted at once */
  groupcommit_latency reader_wait;                /* one of reader_waits */
  sqlite3_int64 lsn;                              /* newest LSN; see groupcommit_commit_lsn().
                                                  ** A flush takes one, too */
  sqlite3_int64 durable_lsn;                      /* newest one known to be durable */
  sqlite3_int64 background_errors;                /* times that commits which nobody waited for
                                                  ** could not be made durable */
  sqlite3_int64 overlapped_syncs;                 /* of syncs, the ones for waiting commits that
                                                  ** began while another such one was under way:
                                                  ** policy auto, on disks that gain by it */
} groupcommit_statistics;

/*
** Reads the statistics of the database zSchema ("main", an attached name, or
** NULL for main) of the open connection db.
**
** At most nOut bytes are written; pass sizeof(*pOut).  Members are only ever
** added at the end, so a program built with an older header goes on working.
**
** Returns SQLITE_OK; SQLITE_NOTFOUND if that database is not open through this
** VFS; SQLITE_ERROR if there is no such schema; SQLITE_MISUSE if db or pOut is
** NULL.
*/
int groupcommit_stats(sqlite3* db, const char* zSchema, groupcommit_statistics* pOut, size_t nOut);

/*
** A DURABILITY BARRIER, AND COMMITS THAT WAIT LATER
**
** A commit with synchronous=NORMAL, or under the policy interval, is not yet
** durable when COMMIT returns.  These functions let the application choose when
** to wait.  zSchema is "main", an attached name, or NULL for main.
**
** Each commit in WAL mode through this VFS has an LSN, a number that only grows
** for as long as the database is open in this process, and means nothing to
** other processes or later.  Commits with a smaller LSN are durable when one
** with a larger LSN is.  Commits in other journal modes have none.
**
** All of them return SQLITE_NOTFOUND if the database is not open through this
** VFS, SQLITE_ERROR if there is no such schema, and SQLITE_MISUSE if db or pLsn
** is NULL.  They may be called at any time, in a transaction too, and like every
** use of a connection they hold its mutex: to commit on in one thread while
** another one waits, wait through a second connection to the same database.
**
** groupcommit_flush()
**   Returns SQLITE_OK when everything that any connection, of other processes
**   too, committed on the database before the call is durable.  Connections
**   that flush or commit at the same time share the sync.  (With
**   synchronous=OFF a checkpoint may have copied commits without a sync: of
**   those nobody knows.)
**
** groupcommit_commit_lsn()
**   Sets *pLsn to the LSN of the last commit of this connection that succeeded,
**   0 if there was none.
**
** groupcommit_wait()
**   Returns SQLITE_OK when the commit iLsn, of whichever connection, is durable.
**   SQLITE_BUSY if it is not after msTimeout milliseconds, which may be 0 to
**   ask only; negative: no limit.  With a limit, the sync is done by a thread of
**   the library (but by this one, without a limit, while no connection of the
**   process has read anything of the database).  SQLITE_MISUSE if no commit has
**   this LSN yet, or iLsn is negative.
**
** groupcommit_durable_lsn()
**   Sets *pLsn to the LSN up to which all commits are known to be durable.
**   Neither syncs nor waits.
**
** Further errors of groupcommit_flush() and groupcommit_wait():
** SQLITE_IOERR_FSYNC or another SQLITE_IOERR   a sync has failed, as COMMIT
**                 reports it; nothing is known of the commit, and a later call
**                 may succeed.  (While no connection of the process has read
**                 anything of the database, nobody can write the log again, and
**                 all calls fail: read something first.)
** SQLITE_ERROR    the database is not in WAL mode.
** SQLITE_BUSY     this connection has read nothing yet, and another one has had
**                 the file for itself for a second.
** SQLITE_CANTOPEN, SQLITE_NOMEM  the log, or a thread, could not be had.
*/
int groupcommit_flush(sqlite3* db, const char* zSchema);
int groupcommit_commit_lsn(sqlite3* db, const char* zSchema, sqlite3_int64* pLsn);
int groupcommit_wait(sqlite3* db, const char* zSchema, sqlite3_int64 iLsn, int msTimeout);
int groupcommit_durable_lsn(sqlite3* db, const char* zSchema, sqlite3_int64* pLsn);

/*
** FOR AUTHORS OF A BASE VFS
**
** Under the policy auto several syncs of the log may be under way at a time, if
** the storage serves them faster than one after the other.  They have to be
** independent then: a sync that succeeds proves that all that was written to the
** file before it began, through whichever handle, is durable, also what another
** sync has begun to write and may be told to have lost.  A VFS under which that
** is so says so by this xFileControl() opcode on the log, whose argument points
** to an int: it sets it to 1 and returns SQLITE_OK.  One that hands syncs on to
** another VFS, but not each through a handle of its own, must not hand this on.
**
** It is asked when it begins to matter, and then every ten seconds at most.  With
** SQLITE_OK and another value, no two syncs of waiting commits are under way at a
** time.  With SQLITE_NOTFOUND, likewise, except over SQLite's own unix VFS, on
** Linux 5.0 or newer, on ext4 with a journal or XFS, where the kernel says that
** the disk has no volatile cache (queue/write_cache in sysfs is "write through").
**
** Whatever it says, a handle of a log may be synced by another thread than that of
** its connection, while that writes or reads through it.  Of a handle of a database
** file, others may call xFileControl() (SQLITE_FCNTL_HAS_MOVED) and xShmLock().
*/
#define GROUPCOMMIT_FCNTL_EACH_HANDLE_IS_TOLD 0x47430005

/*
** FOR AUTHORS OF A BASE VFS
**
** SQLite writes each frame of a log by two calls of xWrite, a header of 24 bytes
** and a page, and a base VFS may tell by their sizes what they are: one that
** encrypts, say.  Where it need not, because all bytes are the same to it, the
** frames of a transaction are written by one call, of up to 65920 bytes, and
** pages that were written a moment ago are not read back through it.  SQLite's
** own unix VFS is known to be such a one; another one says so by this
** xFileControl() opcode on the log, whose argument is not used: it returns
** SQLITE_OK.  It is asked once for each log that a connection opens.
*/
#define GROUPCOMMIT_FCNTL_WRITES_MAY_BE_JOINED 0x47430006

/*
** Adds the eponymous table groupcommit_stats, of this copy of the library, to
** the connection db.  The extension does this by itself, for every connection of
** the process.
**
** Returns what sqlite3_create_module_v2() returns; SQLITE_MISUSE if db is NULL.
*/
int groupcommit_stats_table(sqlite3* db);

/* GROUPCOMMIT_VERSION and GROUPCOMMIT_VERSION_NUMBER of the library. */
const char* groupcommit_libversion(void);
int groupcommit_libversion_number(void);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* GROUPCOMMIT_H */
