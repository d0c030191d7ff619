/* The commit protocol as a Promela model, for spin to check in every interleaving.
 *
 *   make model                or tests/model/run: all configurations and all broken variants
 *   tests/model/run --quick   fewer configurations, all broken variants
 *
 * What is modelled
 *   Writers    one commit after another: WRITE, a frame, the deferred sync (an LSN), the header
 *              published, WRITE released, the wait in COMMIT_PHASETWO. A writer may instead sync at
 *              once (a schema change, on_each_flush) or not at all (synchronous=NORMAL).
 *   Reader     takes a snapshot, waits for the commit whose frame it reads, returns the row.
 *   Checkpointer  syncs the log and copies what no snapshot forbids; then the next writer restarts
 *              the log.
 *   Storage    a sync makes durable what was written before it began. When one fails (at most
 *              FAULTS times, anywhere) all dirty pages of the log are dropped, and later syncs
 *              succeed without them. As in Linux each handle that is open then reports the failure
 *              once; or, with TOLD_ONCE, only the sync that failed.
 *   Failure    the roll-back, under WRITE and CKPT: the header put back before any failed commit
 *              returns, the failed frames zeroed, the undurable frames beneath them rewritten, a
 *              sync of both that succeeds, Coordinator::Resume().
 *
 * What is checked, by assertions with these names
 *   ACK        a commit is acknowledged only when it and all beneath it survive a power cut
 *   KEEP       what was acknowledged or read is never overwritten, rolled back or restarted away
 *   TAIL       the durable tail only grows
 *   READ       no row is read that a power cut could take away, or that is not of the snapshot
 *   COPY       a checkpoint copies only frames that survive a power cut
 *   FAILED     when a commit returns an error, nobody sees it and no recovery brings it back, then
 *              and at the end; no sync that counted had covered it, and some fault explains it
 *   END        at the end nothing is held, queued or broken
 * and by spin itself: no deadlock, no waiter whom nobody wakes (invalid end states). Each turn of
 * each loop uses up a commit, a read, a checkpoint or a fault, so that every run ends.
 *
 * What is not: weak memory (steps are sequentially consistent here; ThreadSanitizer is for that),
 * commits of several frames, torn frames and half a restart on the disk (the power-cut tests are
 * for that), the write queue, other processes, the fence where it stays up, time. Whether a waiter
 * leads at once or keeps a window open for company, when the company is complete and when the window
 * is over: all that may happen at any time here, more than a policy allows.
 *
 * A configuration is a set of -D macros; `run` has the list. Each BUG_... makes a broken variant,
 * explained where it is. spin must find every one of them.
 */

/* ---- The configuration --------------------------------------------------------------------- */

#define DEFERRED 0 /* Connection::DeferSync() */
#define AT_ONCE 1  /* Coordinator::SyncNow() in Connection::SyncLog() */
#define NO_SYNC 2  /* synchronous=NORMAL: SQLite does not call xSync */

/* How many commits each writer tries, and of what kind; 0: there is no such writer. */
#ifndef COMMITS0
#define COMMITS0 1
#endif
#ifndef COMMITS1
#define COMMITS1 1
#endif
#ifndef COMMITS2
#define COMMITS2 1
#endif
#ifndef KIND0
#define KIND0 DEFERRED
#endif
#ifndef READS
#define READS 0
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 0
#endif
#ifndef FAULTS
#define FAULTS 0
#endif
#ifndef ABORTS /* how many commits fail past their deferred sync: wal.c, walIndexAppend() */
#define ABORTS 0
#endif
#ifndef LEADERS /* how many may sync at a time; more than one only with OVERLAP */
#define LEADERS 1
#endif
/* TOLD_ONCE: see "Storage" above.
 * OVERLAP: SyncNow() does not wait for a sync that is under way, nor the leader for SyncNow().
 * LATE_OPEN: writer 0 opens its log when it starts, which may be late.
 * SYNCHRONOUS_OFF: so the checkpointer has it, and does not sync the log.
 * ONLY_PENDING: a failed sync matters to its caller alone if no LSN is pending. It overlooks
 * commits with synchronous=NORMAL, and leaves it to failures() to tell who wrote before it. */

/* Writers that do the same are numbered in the order in which they first take WRITE: each other
 * order is one of these with the names exchanged. */
#if COMMITS0 == COMMITS1 && (COMMITS1 == COMMITS2 || COMMITS2 == 0) && KIND0 == DEFERRED && \
    !defined(LATE_OPEN)
byte next_writer = 0;
#define IN_TURN (next_writer >= me)
#elif COMMITS1 == COMMITS2
byte next_writer = 1;
#define IN_TURN (me == 0 || next_writer >= me)
#else
byte next_writer = 15;
#define IN_TURN true
#endif

#define COMMITS (COMMITS0 + COMMITS1 + COMMITS2) /* at most 7: a byte holds a set of positions */

/* The connections. Each has a handle of its own on the log. */
#define READER 3
#define CHECKPOINTER 4
#define CONNECTIONS 5

/* Sets are bits. */
#define BIT(n) (1 << (n))
#define UP_TO(n) (BIT((n) + 1) - 1)

/* ---- SQLite's shared memory ---------------------------------------------------------------- */

byte mx_frame;   /* of the published wal-index header */
byte backfill;   /* nBackfill: the frames that are in the database file */
byte write_lock; /* 1 + who holds WRITE; 0: nobody */
bit ckpt_lock;

/* The read lock of each connection: the last frame of its snapshot, or one of these. Nobody shares
 * a slot here, so that a checkpoint may do more than SQLite ever lets it. */
#define NO_MARK 15
#define SLOT_0 14 /* the snapshot is in the database file: slot 0, which holds up no restart */
byte mark[CONNECTIONS] = NO_MARK;

/* ---- The log and its storage --------------------------------------------------------------- */

/* Position 0 is the header of the log; a commit has one frame. */
byte log[COMMITS + 1];     /* whose frame is at a position; 0: none, or zeroed */
byte dirty;                /* positions written and not yet on their way to the disk */
byte on_disk = 1;          /* positions where the disk has what the log has */
byte syncing[CONNECTIONS]; /* positions that the connection's sync, if one runs, puts on the disk */
byte faults;
byte untold;               /* handles that have not yet reported a fault */
#ifdef LATE_OPEN
byte opened = UP_TO(CONNECTIONS - 1) & ~1;
#else
#define opened UP_TO(CONNECTIONS - 1)
#endif

#define SURVIVES(position) ((on_disk & UP_TO(position)) == UP_TO(position))

/* ---- Coordinator --------------------------------------------------------------------------- */

byte appended; /* LogTails */
byte durable;
byte failed;
byte failures;

bit failure;    /* failure_ */
bit mutex;      /* mutex_, where it is held over several steps */
bit sync_mutex; /* one sync at a time, from the reading of the tail until its outcome is known */
byte running;             /* running_: whose syncs are under way, or wait for others, */
byte covers[CONNECTIONS]; /* through which LSN, */
byte since[CONNECTIONS];  /* and failures when they began */
#ifdef OVERLAP
byte ended;                 /* which of them have ended */
byte overlaps[CONNECTIONS]; /* those that the connection's sync, which has ended, waits for */
#endif
#ifdef LATE_OPEN
byte unseen; /* those that were under way when writer 0 opened its log: Log::SeesFailuresAfter() */
#endif
byte leaders;   /* leaders_ */
bit appointed;  /* appointed_ */
byte keeper;    /* 1 + keeper_, who is in the queue too; 0: nobody */
byte queue;     /* the followers; the model lets any of them be the oldest */
short history;  /* history_: the LSNs that failed syncs took away */

#define FOLLOWING 0 /* Waiter::State */
#define KEEPING 1
#define LEADING 2
#define SETTLED 3
#define SETTLED_FAILED 4
byte waiter[CONNECTIONS];
byte target[CONNECTIONS];

/* CommitLog, by LSN: the position of the frame, and the header to go back to if it fails. */
byte first[COMMITS + 2];
byte header_before[COMMITS + 2];
byte lowest = NO_MARK; /* the lowest header that a roll-back has put back in this log */

/* ---- For the assertions only --------------------------------------------------------------- */

byte commits;  /* numbers the frames that are written */
byte aborts;
byte explained; /* faults that have become failures */
byte blamed;    /* the last frame that was there when one did */
byte kept;     /* the last position that has to stay as it is */
short covered; /* LSNs that a sync that counted has covered */
short dead;    /* commits that were published and returned an error */

hidden byte i; /* within a d_step only */
hidden byte set;
hidden byte is_settled;
hidden byte is_failed;

/* What every connection has for itself; `me` is its number. */
#define LOCALS \
  byte lsn; byte through; byte before; byte at_lock; byte tail; bit rc; bit over

/* ---- Storage ------------------------------------------------------------------------------- */

/* xWrite of `positions`. A sync that is under way may have it or not; that does not count. */
inline write_log(positions) {
  dirty = dirty | (positions);
  on_disk = on_disk & ~(positions);
  for (i : 0 .. CONNECTIONS - 1) {
    syncing[i] = syncing[i] & ~(positions)
  }
}

/* The second half of xSync, of which the first is `syncing[me] = dirty`. To rc. */
inline end_sync() {
  if
  :: d_step {
      true ->
      on_disk = on_disk | syncing[me];
      dirty = dirty & ~syncing[me];
      syncing[me] = 0;
      rc = (untold >> me) & 1;
      untold = untold & ~BIT(me)
    }
  :: d_step {
      faults < FAULTS ->
      faults++;
      dirty = 0;
      for (i : 0 .. CONNECTIONS - 1) {
        syncing[i] = 0
      }
      rc = 1;
#ifndef TOLD_ONCE
      untold = opened & ~BIT(me)
#endif
    }
  fi
}

/* ---- Coordinator --------------------------------------------------------------------------- */
/* What the code does under mutex_ is one step, unless others see parts of it without the mutex. */

/* Settled(), to is_settled and is_failed. */
inline settled(lsn_) {
  if
  :: durable >= lsn_ -> is_settled = 1; is_failed = (history >> lsn_) & 1
  :: else -> is_settled = failure; is_failed = failure
  fi
#ifdef BUG_FAILURE_BEFORE_TAIL /* a commit that was durable is failed with those that were not */
  ;
  if
  :: failure -> is_settled = 1; is_failed = 1
  :: else
  fi
#endif
}

/* TakeSettled() and WakeAll(). */
inline take_settled() {
  for (i : 0 .. CONNECTIONS - 1) {
    if
    :: queue & BIT(i) ->
      settled(target[i]);
      if
      :: is_settled ->
        queue = queue & ~BIT(i);
        target[i] = 0;
        waiter[i] = SETTLED + is_failed;
        if
        :: keeper == i + 1 -> keeper = 0
        :: else
        fi
      :: else
      fi
    :: else
    fi
  }
}

/* IsUnderWay(). */
#define SETTLES(c, lsn_) (((running >> (c)) & 1) && since[c] == failures && covers[c] >= (lsn_))
#define UNDER_WAY(lsn_)                                                                   \
  (SETTLES(0, lsn_) || SETTLES(1, lsn_) || SETTLES(2, lsn_) || SETTLES(READER, lsn_) || \
   SETTLES(CHECKPOINTER, lsn_))

#define MAY_LEAD (!appointed && leaders < LEADERS)

/* AppointSuccessor(): the oldest that no sync covers leads, or keeps the window. */
#define LEFT(c) ((queue & BIT(c)) && !UNDER_WAY(target[c]))
#define HAND_TO(c)                                                                              \
  !keeper && MAY_LEAD && LEFT(c) -> d_step { appointed = 1; queue = queue & ~BIT(c); target[c] = 0; waiter[c] = LEADING } \
  :: !keeper && MAY_LEAD && LEFT(c) -> d_step { keeper = c + 1; waiter[c] = KEEPING }
inline hand_over() {
#ifdef BUG_NO_HANDOVER /* who came while the sync ran is left to sleep */
  skip
#else
  if
  :: keeper || !MAY_LEAD || !(LEFT(0) || LEFT(1) || LEFT(2) || LEFT(READER))
  :: HAND_TO(0)
  :: HAND_TO(1)
  :: HAND_TO(2)
  :: HAND_TO(READER)
  fi
#endif
}

/* AdvanceTail(). */
inline advance_tail() {
  for (i : 1 .. COMMITS) {
    if
    :: durable < i && i <= through -> covered = covered | BIT(i)
    :: else
    fi
  };
  set = durable;
#ifdef BUG_TAIL_NOT_MAX /* a sync that began before another one and ends after it sets it back */
  durable = through;
#else
  if
  :: through > durable -> durable = through
  :: else
  fi;
#endif
  assert(durable >= set) /* TAIL */
}

#ifdef OVERLAP
#define SYNC_FREE true
#else
#define SYNC_FREE (sync_mutex == 0)
#endif

/* A sync begins, in Lead() or SyncNow(): it covers what is in the log now. */
inline begin_sync() {
  sync_mutex = 1;
  before = failures;
  through = appended;
  running = running | BIT(me);
  covers[me] = through;
  since[me] = before;
  syncing[me] = dirty
}

/* A sync has returned, and its failure is counted in the same step. */
inline tell_end() {
#ifdef OVERLAP
  ended = ended | BIT(me);
  for (i : 0 .. CONNECTIONS - 1) {
    overlaps[i] = overlaps[i] & ~BIT(me)
  };
#endif
#ifdef LATE_OPEN
  unseen = unseen & ~BIT(me);
#endif
  skip
}

inline end_running() {
  tell_end();
#ifdef OVERLAP
  ended = ended & ~BIT(me);
#endif
  running = running & ~BIT(me);
  covers[me] = 0;
  since[me] = 0
}

/* Of whose failure might the sync of `me` not have been told? */
#if defined(TOLD_ONCE)
#define CONCEALED (running & ~ended)
#elif defined(LATE_OPEN) && !defined(BUG_LATE_LOG_TRUSTED)
#define CONCEALED (me == 0 -> running & ~ended & unseen : 0)
#else
#define CONCEALED 0
#endif

#if defined(OVERLAP) && !defined(BUG_OVERLAP_NOT_AWAITED)
#define ALONE (overlaps[me] == 0) /* AwaitOverlapping() is over */
#else
#define ALONE true
#endif

inline explain() {
  if
  :: explained < faults -> explained = faults; blamed = commits
  :: else
  fi
}

/* Finish() and the rest of Lead() or SyncNow(). To rc: in Lead() the outcome of `lsn`, in SyncNow()
 * that of the sync. */
inline finish_sync(leads) {
#ifdef OVERLAP
  if
  :: rc == 0 -> d_step { mutex == 0 -> tell_end(); overlaps[me] = CONCEALED }
  :: else
  fi;
#endif
  if
  :: atomic {
      mutex == 0 && rc == 0 && ALONE && failures == before ->
      d_step {
#ifdef BUG_SAMPLE_TAIL_AFTER_SYNC /* commits written while the sync ran are taken for synced */
        through = appended;
#endif
        end_running();
        advance_tail();
        settle_all(leads)
      };
      end_lead(leads)
    }
  :: atomic { /* Append() looks at failures, and many at failure_, without the mutex. */
      mutex == 0 && (rc || (ALONE && failures != before)) ->
      mutex = 1;
      d_step { end_running(); failures = failures + rc }
    };
    atomic {
      d_step {
        settled(through);
        if
        :: rc == 0 && is_settled -> rc = is_failed /* no news: an earlier failure has settled it */
        :: else ->
          rc = 1;
          explain();
#ifdef ONLY_PENDING
          failure = failure | (durable < appended)
#else
          failure = 1
#endif
        fi;
        settle_all(leads);
        mutex = 0
      };
      end_lead(leads)
    }
  fi
}

inline settle_all(leads) {
  if
  :: leads ->
    settled(lsn);
    assert(is_settled); /* ACK: lsn <= through */
    rc = is_failed
  :: else
  fi;
  take_settled();
  sync_mutex = 0;
  before = 0;
  through = 0
}

/* A SyncNow() may have served who kept the window. */
inline end_lead(leads) {
  leaders = leaders - leads;
#ifdef BUG_SERVED_KEEPER_NOT_REPLACED
  if
  :: leads -> hand_over()
  :: else
  fi
#else
  hand_over()
#endif
}

inline enqueue() {
  waiter[me] = FOLLOWING;
  target[me] = lsn;
  queue = queue | BIT(me)
}

/* WaitDurable(lsn), Follow() and Lead(). To rc. */
inline wait_durable() {
  /* IsDurable(): two loads, in this order. */
  tail = durable;
  if
  :: atomic { tail >= lsn && failed < lsn -> rc = 0; over = 1 }
  :: atomic { !(tail >= lsn && failed < lsn) -> over = 0 }
  fi;
  tail = 0;
  if
  :: over
  :: else ->
#ifdef BUG_LOST_WAKEUP /* lets go of the mutex between the look and the queue */
    d_step { mutex == 0 -> settled(lsn); over = is_settled || MAY_LEAD };
    if
    :: over
    :: else -> d_step { enqueue() }; goto waiting
    fi;
#endif
    atomic {
      mutex == 0 ->
      d_step { settled(lsn); over = is_settled; rc = is_failed };
      if
      :: over -> waiter[me] = SETTLED + rc
      :: !over && !UNDER_WAY(lsn) && (keeper || MAY_LEAD) -> /* the company is complete */
        d_step {
          if
          :: keeper -> /* TakeOver() */
            waiter[keeper - 1] = FOLLOWING;
#ifdef BUG_KEEPER_FORGOTTEN /* leaves nobody to wake it */
            queue = queue & ~BIT(keeper - 1);
#endif
            keeper = 0
          :: else
          fi;
          appointed = 1;
          waiter[me] = LEADING
        }
      :: !over && !UNDER_WAY(lsn) && !keeper && MAY_LEAD -> /* OpenWindow() */
        d_step { enqueue(); keeper = me + 1; waiter[me] = KEEPING }
      :: !over && (UNDER_WAY(lsn) || keeper || !MAY_LEAD) -> d_step { enqueue() }
      fi
    };
waiting:
    do /* Follow() */
    :: d_step { /* KeepWindow(), EndWindow() */
        waiter[me] == KEEPING && mutex == 0 ->
        keeper = 0;
        appointed = 1;
        queue = queue & ~BIT(me);
        target[me] = 0;
        waiter[me] = LEADING
      }
    :: atomic {
        waiter[me] >= LEADING ->
        rc = (waiter[me] == SETTLED_FAILED);
        over = (waiter[me] != LEADING);
        break
      }
    od;
    if
    :: over
    :: else -> lead()
    fi
  fi;
  waiter[me] = FOLLOWING;
  over = 0
}

/* Lead(). A SyncNow() may have settled the commit since the leader was appointed. */
inline lead() {
  atomic {
    mutex == 0 && SYNC_FREE ->
    d_step {
      appointed = 0;
      settled(lsn);
      over = is_settled;
      rc = is_failed;
      if
      :: is_settled -> take_settled()
      :: else -> leaders++; begin_sync()
      fi
    };
    if
    :: over -> hand_over()
    :: else
    fi
  };
  if
  :: over
  :: else ->
    end_sync();
    finish_sync(1)
  fi
}

/* SyncNow(). A failure since `at_lock` counts: bytes written since may have been lost. To rc. */
inline sync_now() {
#ifdef BUG_FAILURES_COUNTED_LATE /* looks at at_lock, and only then samples failures() */
  over = (failure || failures != at_lock);
#define LOST_SINCE_LOCK over
#else
#define LOST_SINCE_LOCK (failures != at_lock)
#endif
  d_step {
    mutex == 0 && SYNC_FREE ->
    over = (failure || LOST_SINCE_LOCK);
    rc = over;
    if
    :: over
    :: else -> begin_sync()
    fi
  };
  if
  :: over
  :: else ->
    end_sync();
    finish_sync(0)
  fi;
  over = 0
}

/* ---- The roll-back ------------------------------------------------------------------------- */

/* By whoever holds WRITE while failure() is set. */
inline roll_back() {
#ifndef BUG_CKPT_FREE /* a checkpoint goes on with the header that it has read before */
  atomic { ckpt_lock == 0 -> ckpt_lock = 1 };
#endif
#ifndef BUG_RESUME_WITHOUT_ROLLBACK /* "just starts the next cycle afresh" */
  d_step {
    set = (durable < appended -> header_before[durable + 1] : mx_frame); /* oldest failed commit */
#ifndef BUG_HEADER_FROM_BEFORE_RESTART /* of the log that was there when it took WRITE */
    if
    :: set > mx_frame -> set = mx_frame
    :: else
    fi;
#endif
    assert(set >= kept && set >= backfill); /* KEEP */
    for (i : 1 .. COMMITS) {
      assert(i > set || log[i]) /* KEEP: a header of this log */
    };
    mx_frame = set;
    if
    :: lowest > set -> lowest = set
    :: else
    fi
  };
  do
  :: atomic {
#ifdef BUG_OLD_SYNCS_LEFT_BEHIND /* they tell of the failure once more, after Resume() */
      SYNC_FREE ->
#else
      SYNC_FREE && !running -> /* AwaitSyncs() */
#endif
      sync_mutex = 1;
      d_step {
#ifndef BUG_HANDLES_NOT_DRAINED /* each handle reports an old failure once: let it be now */
        untold = 0;
#endif
        set = 0;
#ifndef BUG_FRAMES_NOT_ZEROED /* a recovery brings failed commits back */
        for (i : 1 .. COMMITS) {
          if
          :: i > mx_frame && log[i] -> log[i] = 0; set = set | BIT(i)
          :: else
          fi
        };
        write_log(set);
#endif
#ifndef BUG_NOT_REWRITTEN /* undurable frames beneath: commits with synchronous=NORMAL */
        dirty = dirty | (UP_TO(mx_frame) & ~on_disk);
#endif
        syncing[me] = dirty
      }
    };
    end_sync();
    d_step { sync_mutex = 0; failures = failures + rc; explain() };
#ifdef BUG_REPAIR_SYNC_UNCHECKED /* discards the result of the sync that has to count */
    break
#else
    if
    :: rc == 0 -> break
    :: else
    fi
#endif
  od;
#endif
  resume()
}

/* Returns once the header is back, whoever has put it back. */
inline see_to_roll_back() {
  do
  :: failure == 0 -> break
  :: atomic { failure && write_lock == 0 -> write_lock = me + 1 };
    if
    :: failure -> roll_back()
    :: else
    fi;
    write_lock = 0
  od;
  skip
}

/* Resume(). WRITE is held, so that nobody appends. */
inline resume() {
  d_step {
    mutex == 0 ->
    mutex = 1;
    for (i : 1 .. COMMITS) {
      if
      :: durable < i && i <= appended -> history = history | BIT(i)
      :: else
      fi
    };
#ifndef BUG_FAILED_AFTER_DURABLE /* IsDurable() is true for failed commits for a moment */
    failed = appended
#endif
  };
  durable = appended;
#ifdef BUG_FAILED_AFTER_DURABLE
  failed = appended;
#endif
  d_step { failure = 0; mutex = 0; rc = 0 };
#ifndef BUG_CKPT_FREE
  ckpt_lock = 0
#endif
}

/* ---- Connections --------------------------------------------------------------------------- */

/* BeforeLock(WRITE) and BeforeLock(CKPT): nobody builds on a hole. There may be no failed commit to
 * close it: one whose Append() saw the failure is gone, and its LSN is pending nevertheless. */
inline before_lock() {
#ifdef BUG_COMMITTERS_ONLY /* waits for a failed committer, who may not exist */
  failure == 0
#else
  see_to_roll_back()
#endif
}

/* A writer takes WRITE with a fresh snapshot: an older one is BUSY_SNAPSHOT and tries again. Where
 * all is in the database file and nobody reads the log, it restarts it: wal.c, walRestartLog(). */
inline restart_or_mark() {
  is_settled = (mx_frame > 0 && mx_frame == backfill);
  for (i : 0 .. CONNECTIONS - 1) {
    is_settled = is_settled && (mark[i] == NO_MARK || mark[i] == SLOT_0)
  };
  if
  :: is_settled ->
    assert(kept <= backfill); /* KEEP */
    kept = 0;
    mx_frame = 0;
    backfill = 0;
    lowest = NO_MARK;
    for (i : 1 .. COMMITS) {
      log[i] = 0
    };
    dirty = 0;
    on_disk = 0;
    for (i : 0 .. CONNECTIONS - 1) {
      syncing[i] = 0
    }
  :: else
  fi;
  mark[me] = mx_frame
}

proctype Writer(byte me; byte kind; byte todo) {
  byte position;
  byte commit;
  byte locked_mx;
  bit published;
  LOCALS;

#ifdef LATE_OPEN
  opened = opened | BIT(me);
  if
  :: me == 0 -> unseen = running
  :: else
  fi;
#endif
  do
  :: todo == 0 -> break
  :: else ->
    todo--;

    before_lock();
    d_step { /* OnLocked(WRITE) */
      write_lock == 0 && IN_TURN ->
      write_lock = me + 1;
      if
      :: next_writer == me -> next_writer++
      :: else
      fi;
      at_lock = failures;
#ifdef BUG_HEADER_FROM_BEFORE_RESTART
      locked_mx = mx_frame;
#endif
      restart_or_mark();
      position = mx_frame + 1
    };

    /* The header of a new log, synced before any frame: wal.c, walFrames(), syncHeader. */
    if
    :: position == 1 && !(on_disk & 1) ->
      d_step { write_log(1) };
      sync_now();
      if
      :: rc -> goto unlock
      :: else
      fi
    :: else
    fi;

    d_step { /* BeforeLogWrite(), xWrite; whatever fails from here on is seen by SyncLog() */
      assert(position > kept); /* KEEP */
      commits++;
      commit = commits;
      log[position] = commit;
      set = BIT(position);
      write_log(set)
    };

    /* SyncLog() */
    if
    :: kind == DEFERRED ->
      /* DeferSync(): Append() is two steps, so that either it or FinishSync() sees the other. */
      d_step {
        rc = (failure || failures != at_lock);
#ifdef BUG_DROPPED_BEFORE_APPEND /* syncs after a failure vouch for bytes from before it */
        rc = failure;
#endif
        if
        :: rc
        :: else ->
#ifdef BUG_OFFSET_INSTEAD_OF_LSN /* falls back when the log restarts, and the tail does not */
          appended = position;
#else
          appended++;
#endif
          lsn = appended;
          first[lsn] = position;
#ifdef BUG_HEADER_FROM_BEFORE_RESTART
          header_before[lsn] = locked_mx;
#else
          header_before[lsn] = position - 1;
#endif
        fi
      };
#ifndef BUG_DROPPED_BEFORE_APPEND
      if
      :: rc == 0 && failures != at_lock -> rc = 1
      :: else
      fi
#endif
    :: kind == AT_ONCE -> sync_now()
    :: kind == NO_SYNC -> rc = failure
    fi;
    if
    :: rc -> goto unlock
    :: rc == 0 && kind == DEFERRED && aborts < ABORTS -> /* the commit fails further on */
      aborts++;
      rc = 1;
      goto unlock
    :: rc == 0
    fi;

    d_step { mx_frame = position; published = 1 };

unlock:
    skip;
    /* BeforeUnlock(WRITE) */
    d_step {
      if
      :: !published -> lsn = 0
      :: published && kind != DEFERRED ->
        /* Goes with what is beneath it, if that is pending. */
        lsn = (durable < appended -> appended : 0);
#ifdef BUG_WAITS_FOR_FAILED /* also when the newest LSN is one that failed long ago */
        lsn = appended;
#endif
#ifdef BUG_NO_SYNC_DOES_NOT_WAIT
        lsn = 0
#endif
      :: else
      fi
    };
    if
    :: failure ->
      over = rc;
      roll_back();
#ifdef BUG_LOOKS_AFTER_ROLLBACK /* finds the header unchanged since it took WRITE: drops its LSN */
      lsn = 0;
#endif
      rc = over;
      over = 0
    :: else
    fi;
    write_lock = 0;

    if
    :: !published -> /* as with stock SQLite: never visible */
      d_step {
        assert(faults || aborts); /* FAILED */
        mark[me] = NO_MARK
      }
    :: else ->
      /* WaitForCommit() */
      if
      :: lsn -> wait_durable()
      :: else -> rc = 0
      fi;
#ifndef BUG_RETURN_BEFORE_ROLLBACK /* the error is returned before the header is back */
      if
      :: rc ->
#ifdef BUG_MARK_RELEASED_FIRST /* the read lock of a failed commit goes before the header is back */
        mark[me] = NO_MARK;
#endif
        see_to_roll_back();
        rc = 1
      :: else
      fi;
#endif
      d_step { /* COMMIT returns */
        if
        :: rc ->
          assert(mx_frame < position || log[position] != commit); /* FAILED */
          assert(lsn && !((covered >> lsn) & 1));                 /* FAILED */
          assert(((history >> lsn) & 1) && commit <= blamed);     /* FAILED */
          dead = dead | BIT(commit)
        :: else ->
          assert(mx_frame >= position && log[position] == commit); /* ACK */
          assert(kind == NO_SYNC || SURVIVES(position));           /* ACK */
          if
          :: kept < position -> kept = position
          :: else
          fi
        fi;
        mark[me] = NO_MARK
      }
    fi;
    d_step {
      lsn = 0; position = 0; commit = 0; published = 0; at_lock = 0; rc = 0; locked_mx = 0
    }
  od
}

/* What tells a reader of a roll-back since its snapshot. */
#ifdef BUG_EPOCH_IS_FAILURES /* misses a snapshot from between a failure and its roll-back */
#define EPOCH failures
#else
#define EPOCH failed
#endif

proctype Reader(byte me; byte todo) {
  byte position;
  byte commit;
  byte epoch;
  LOCALS;

  do
  :: todo == 0 -> break
  :: else ->
    todo--;

    /* NoteSnapshot(): `failed` from before the snapshot tells of a roll-back in between. */
#ifndef BUG_SNAPSHOT_FIRST
    epoch = EPOCH;
#endif
    d_step {
      position = mx_frame;
      commit = log[position];
      mark[me] = (position == backfill -> SLOT_0 : position)
    };
#ifdef BUG_SNAPSHOT_FIRST
    epoch = EPOCH;
#endif

    if
    :: mark[me] == SLOT_0 /* the database file, where COPY lets only durable rows in */
    :: else ->
      /* BeforeLogRead() */
#ifdef BUG_STALE_CHECK_FIRST /* a roll-back between the check and the tail goes unnoticed */
      over = (EPOCH != epoch && position > lowest);
#endif
      tail = durable;
      through = appended;
#ifndef BUG_STALE_CHECK_FIRST
      /* Whoever has seen the tail that Resume() moved sees its `failed` here. Read marks do not
       * tell: with all slots in use, SQLite takes one that is lower than the snapshot. */
      over = (EPOCH != epoch && position > lowest);
#endif
#ifdef BUG_SNAPSHOT_OUTLIVES_ROLLBACK
      over = 0;
#endif
      d_step { /* CommitLog::OwnerOf() */
        lsn = 0;
        for (i : 1 .. COMMITS) {
          if
          :: tail < i && i <= through && first[i] <= position -> lsn = i
          :: else
          fi
        };
        rc = over;
        over = 0;
        through = 0;
        tail = 0
#ifdef BUG_READER_DOES_NOT_WAIT
        ;
        lsn = 0
#endif
      };
      if
      :: rc == 0 && lsn -> wait_durable()
      :: else
      fi;
      d_step {
        if
        :: rc -> assert(faults) /* FAILED: the statement ends with an error */
        :: else ->
          assert(log[position] == commit && SURVIVES(position)); /* READ */
          assert(!((dead >> commit) & 1));                       /* READ */
          if
          :: kept < position -> kept = position
          :: else
          fi
        fi
      }
    fi;
    d_step { mark[me] = NO_MARK; lsn = 0; position = 0; commit = 0; epoch = 0; rc = 0 }
  od
}

/* wal.c: walCheckpoint(), PASSIVE: where it would have to wait, it does less. */
proctype Checkpointer(byte me; byte todo) {
  byte safe;
  LOCALS;

  do
  :: todo == 0 -> break
  :: else ->
    todo--;

    before_lock();
    atomic { ckpt_lock == 0 -> ckpt_lock = 1 };
    d_step { safe = mx_frame; over = (mx_frame <= backfill) };
    if
    :: over
    :: else ->
      d_step {
        for (i : 0 .. CONNECTIONS - 1) {
          if
          :: mark[i] < safe -> safe = mark[i]
          :: else
          fi
        }
      };
#ifndef SYNCHRONOUS_OFF
      at_lock = failures;
      sync_now();
#endif
      d_step {
        for (i : 0 .. CONNECTIONS - 1) {
          rc = rc || mark[i] == SLOT_0
        };
        if
        :: rc == 0 && safe > backfill ->
          assert(safe <= mx_frame && SURVIVES(safe)); /* COPY */
          for (i : 1 .. COMMITS) {
            assert(i > safe || (log[i] && !((dead >> log[i]) & 1))) /* COPY */
          };
          backfill = safe
        :: else
        fi
      }
    fi;
    d_step { ckpt_lock = 0; safe = 0; at_lock = 0; rc = 0; over = 0 }
  od
}

init {
  atomic {
#if COMMITS0 > 0
    run Writer(0, KIND0, COMMITS0);
#endif
#if COMMITS1 > 0
    run Writer(1, DEFERRED, COMMITS1);
#endif
#if COMMITS2 > 0
    run Writer(2, DEFERRED, COMMITS2);
#endif
#if READS > 0
    run Reader(READER, READS);
#endif
#if CHECKPOINTS > 0
    run Checkpointer(CHECKPOINTER, CHECKPOINTS);
#endif
    skip
  };
  atomic {
    _nr_pr == 1 ->
    d_step {
      assert(!write_lock && !ckpt_lock && !mutex && !sync_mutex && !leaders && !appointed && !running && !keeper && !queue); /* END */
      assert(!failure || durable == appended || header_before[durable + 1] >= mx_frame); /* END */
      assert(kept <= mx_frame);                                   /* KEEP */
      for (i : 1 .. COMMITS) {
        /* A recovery goes on from the header's last frame to whatever follows. */
        assert(i > mx_frame + 1 || !((dead >> log[i]) & 1)); /* FAILED */
        assert(i > kept || i <= backfill || log[i])         /* KEEP */
      }
    }
  }
}
