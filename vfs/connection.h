// Connection: the commit protocol as one connection goes through it.
//
// The main file and the log of a connection report here what SQLite does to them, and ask what to
// do. In the order of a commit (design in README.md, "How it works"):
//
//   OnLocked(WRITE)      the write lock is ours (ShmLock)
//   WriteLog             frame headers and pages go to the log
//   SyncLog              SQLite asks for the sync: it is deferred here, or done at once
//   BeforeUnlock(WRITE)  the commit is visible to others now, and the next writer may start
//   WaitForCommit        SQLITE_FCNTL_COMMIT_PHASETWO: we wait here until the commit is durable
//   BeforeUnlock(READ)   the end of the transaction
//
// and BeforeLogRead() makes a reader wait for the commit whose page it is about to see.
//
// Used by one thread at a time, as SQLite uses a file.
#ifndef GROUPCOMMIT_CONNECTION_H_
#define GROUPCOMMIT_CONNECTION_H_

#include <chrono>
#include <cstdint>
#include <memory>

#include "coordinator.h"
#include "database.h"
#include "frame_buffer.h"
#include "log_writes.h"
#include "page1.h"
#include "sqlite.h"
#include "wal_format.h"
#include "write_queue.h"

namespace groupcommit {

class LogHandle;

// File controls of our own: WaitForBeneath().
inline constexpr int kFcntlWaitForBeneath = 0x47430007;
inline constexpr int kFcntlOnPragma = 0x47430008;  // OnPragma(), no argument

class Connection final : private Coordinator::Log {
 public:
  // `main` is the base VFS's main file, `name` what SQLite calls it. All outlive the connection.
  Connection(Database* database, sqlite3_file* main, const char* name);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  Database& database() { return *database_; }

  // What SQLite tells of itself. `db` is where the handle of the connection is found, `wal_index`
  // the first region of the shared memory or null, `log` the base VFS's log file or null.
  void SetDb(sqlite3** db) {
    // A connection that joins a shared cache tells the same once more, while other threads read it.
    if (db_ != db) db_ = db;
  }
  // A PRAGMA may be of all databases that are attached (wal_checkpoint), and is told to one.
  void OnPragma() { just_committed_ = false; }
  void OnPragmaOfAll();
  void SetBusyHandler(int (*handler)(void*), void* argument) {
    busy_handler_ = handler;
    busy_argument_ = argument;
  }
  // From now on a request for a lock waits so long in xShmLock(), in ms; negative: without end.
  // (SQLite built with SQLITE_ENABLE_SETLK_TIMEOUT, over a base VFS that was, too.)
  // Puts the former one into *timeout_ms. Returns SQLITE_OK or what the base VFS says.
  int SetLockTimeout(int* timeout_ms);
  void SetWalIndex(volatile void* wal_index, bool mapped);
  void SetLog(sqlite3_file* log, bool read_only);
  bool has_log() const { return log_ != nullptr; }
  bool is_sole_user() const { return sole_user_; }
  // Does SQLite have a lock of the database file?
  void SetHasFileLock(bool has) { has_file_lock_ = has; }
  // It does not ask for the write lock any more.
  void LeaveQueue() { database_->write_queue()->Disfavor(writer_); }

  // xShmLock(): the base VFS's, with what there is to do before and after. May refuse a lock.
  int ShmLock(int offset, int n, int flags);

  // The log. WriteLog() may only gather a frame, so that several are written by one call later.
  int WriteLog(const void* data, int size, int64_t offset);
  // Writes what has been gathered, before anything else is done to the log; before a read, only if
  // that is of something gathered.
  int WriteFrames();
  int WriteFramesBeneath(int size, int64_t offset);
  int SyncLog(int flags);
  // Returns SQLITE_OK or the error to report instead of reading.
  int BeforeLogRead(int size, int64_t offset);

  // Copies what of the log is in memory; false if it is not.
  bool ReadFromMemory(void* data, int size, int64_t offset) const;

  // Before any read, of the database file too. Returns SQLITE_OK or the error to report instead.
  int BeforeRead();

  // A page has been read from the log, or from the start of the main file.
  void OnPageRead(const void* data, int size);

  // Waits until all that this transaction committed, or read without waiting, is durable. Returns
  // SQLITE_OK or the error of the failed sync that took it away.
  int WaitForCommit();

  // The transaction has written all that it has for this database, and is about to end. If it has
  // written to others, too, waits until all that it builds on is durable, by WaitForBeneath() of
  // each.
  int BeforePublishingSeveral();
  // If the transaction writes to this database, waits until all commits beneath it are durable.
  // Both return SQLITE_OK or the error of the failed sync that took some of them away.
  int WaitForBeneath();

  // All that was committed on the database before the call. Returns SQLITE_OK once it is durable,
  // or the error of a failed sync; SQLITE_ERROR if the database is not in WAL mode.
  int Flush();
  // The same for a commit that Coordinator::CountWritten() has given a number, `target`. Returns
  // SQLITE_BUSY after `timeout_ms`, unless that is negative; SQLITE_MISUSE if there is no such
  // commit.
  int WaitSynced(Lsn target, int timeout_ms);
  // The number of this connection's last commit; 0: there is none.
  Lsn last_commit() const { return last_commit_; }

  // The connection is about to be closed.
  void FlushAtClose();

  // The connection is about to let go of the shared memory.
  void LeaveFence();

  // SQLite holds the file lock SQLITE_LOCK_EXCLUSIVE, or no longer does.
  void SetSoleUser(bool sole);
  // Nothing that failed is left in the log that SQLite is about to close, or to write to alone.
  // Returns SQLITE_OK or the error to report instead of the lock. REQUIRES: SetSoleUser(true).
  int RepairForSoleUser();

 private:
  // The locks of the shared memory, a bit each; wal.c: WAL_WRITE_LOCK and its neighbours.
  static constexpr unsigned kWriteLock = Fence::kWriteLock;
  static constexpr unsigned kCheckpointLock = Fence::kCheckpointLock;
  static constexpr unsigned kRecoverLock = 1u << 2;
  static constexpr int kFirstReadLock = 3;
  static constexpr unsigned kLogReadLocks = ((1u << SQLITE_SHM_NLOCK) - 1) & ~0xfu;
  static constexpr unsigned kReadLocks = ((1u << SQLITE_SHM_NLOCK) - 1) & ~0x7u;

  static constexpr int kCommitFailed = SQLITE_IOERR_FSYNC;

  int Sync(Lsn from, Lsn through) override;
  uint64_t SeesFailuresAfter() const override;
  bool LogIsNewerThan(Lsn from) const;

  // Null until SQLite has told.
  sqlite3* Db() const { return db_ != nullptr ? *db_ : nullptr; }
  bool Holds(unsigned locks) const { return (exclusive_ & locks) != 0; }
  bool HoldsReadLock() const { return (shared_ & kReadLocks) != 0; }
  WalIndexHeader Header() const {
    return wal_index_ != nullptr ? WalIndexHeader::Load(wal_index_) : WalIndexHeader{};
  }

  // The locks; see locks.cc. These are the arguments of an xShmLock().
  struct LockRequest {
    int offset;
    int n;
    int flags;
    unsigned locks() const { return ((1u << n) - 1) << offset; }  // a bit each
    bool exclusive() const { return (flags & SQLITE_SHM_EXCLUSIVE) != 0; }
  };
  int Lock(const LockRequest& request);
  int Unlock(const LockRequest& request);
  int BeforeLock(unsigned locks, bool exclusive);
  void CountHolder(unsigned locks, int one);
  int RefuseAfterFailure(unsigned locks, bool exclusive);
  int AskBase(const LockRequest& request);
  int AskBaseUntilDeadline(const LockRequest& request);
  int64_t WaitsUntil(unsigned locks, bool exclusive) const;
  void OnLocked(unsigned locks, bool exclusive);
  void OnRefused(unsigned locks, bool exclusive);
  unsigned BeforeUnlock(unsigned locks, bool exclusive);
  void NoteHeaderAtLock();
  void OnWriteUnlocking();
  void OnPublished(const WalIndexHeader& header);
  void OnNothingPublished();
  bool HasOpenStatements() const;
  void AfterUnlock(unsigned locks, bool exclusive);

  // The write lock and its queue; see write_lock.cc.
  int TakeTurn();
  int AwaitTurn();
  void ReturnTurn();
  void LoseRace(bool elsewhere);
  void SleepOut();
  bool SleepOn();
  enum class Answer : uint8_t { kSleeps, kGivesUp, kAnotherStatement };
  Answer AskForSleeps();
  bool WaitsInLine();
  struct Called {
    bool waits;   // the handler does not give up
    bool sleeps;  // by our xSleep()
  };
  Called CallBusyHandler();
  bool IsUpgrade() const;

  // Making room for a checkpoint; see checkpoint.cc.
  int BeginCheckpoint();
  void NoteCheckpointedLog();
  void NoteAttempt();
  bool IsLogStartedOver(const LockRequest& request) const;
  bool StartsLogOver(const LockRequest& request) const;
  int KeepCheckpointsOut();
  void LetCheckpointsIn();
  int AskBaseForCheckpoint(const LockRequest& request);
  void CloseGate();
  void OpenGate();

  // The log; see log_write.cc and log_read.cc.
  int BeforeLogWrite(int64_t offset);
  int GatherOrWrite(const void* data, int size, int64_t offset);
  void CacheFrames(const WalIndexHeader& before, const WalIndexHeader& after);
  void NoteSnapshot();
  void NoteFrames(const WalIndexHeader& snapshot);
  bool ReadCached(void* page, int size, int64_t offset) const;
  int WaitForReader(Lsn lsn);
  static FrameCache::State StateOf(const WalIndexHeader& header);

  // A commit.
  bool IsSyncOfCommit() const;
  bool MayDefer() const;
  bool WritesOneDatabase() const;
  bool HasAttached() const;
  int DeferSync(int flags);
  int FailCommit(int error);
  int WaitForDurable();
  static int AsIoError(int rc);

  // Commits that nobody waits for; see flush.cc.
  int PrepareFlusher();
  int TakeFlusherError();
  bool MayLeaveToFlusher() const;
  int LeaveToFlusher();
  void CountCommit();
  void EndCommit(bool success);
  bool IsWriting() const;
  void RepairIfPossible();
  int FailFlush(int error, std::chrono::milliseconds patience);
  int AwaitFlusher(Lsn target, int timeout_ms);
  int SyncWithoutLog(Lsn target);
  int OpenUnreadLog(std::unique_ptr<LogHandle>* log);

  // After a failed sync; see roll_back.cc.
  enum class RollBack : uint8_t { kDone, kNotYet, kNotSafe };
  // How long a connection tries to take back what failed. Bounded, as a thread may hold the write
  // lock through another connection, and wait for us.
  static constexpr std::chrono::milliseconds kPatience{1000};
  int Fail(int error, std::chrono::milliseconds patience = kPatience);
  void SayWhyNotYet();
  void SayWhyNever(const char* reason) REQUIRES(database_->fence().mutex());
  bool TakeFence() REQUIRES(database_->fence().mutex());
  bool KeepWriteLock();
  bool KeepReadLock(unsigned lock);
  RollBack TryRollBack();
  RollBack RollBackUnderFence() REQUIRES(database_->fence().mutex());
  bool HasNoWalIndex() REQUIRES(database_->fence().mutex());
  LogCommit OldestToUndo(Lsn* beneath = nullptr);  // `beneath`: the commit before it
  bool PutBackHeader() REQUIRES(database_->fence().mutex());
  const char* WhyNotPutBack(const LogCommit& oldest, Lsn last_to_stay, const WalIndexHeader& now)
      REQUIRES(database_->fence().mutex());
  void StoreHeader(const WalIndexHeader& header) REQUIRES(database_->fence().mutex());
  bool FailedIsInSight() const;
  void DropSnapshot();
  void DropSnapshotUnderFence() REQUIRES(database_->fence().mutex());
  void RollBackOrCloseHole();
  void ForgetAttempt();
  bool RepairAtClose();
  bool LeavesHole() REQUIRES(database_->fence().mutex());
  bool IsFenceForStrangers();
  bool IsStrangersCheckpoint() REQUIRES(database_->fence().mutex());
  bool AwaitStrangers();

  // The hole in the log; see hole.cc.
  RollBack CloseHoleForGood() REQUIRES(database_->fence().mutex());
  RollBack RewriteWholeLog(uint32_t last_frame) REQUIRES(database_->fence().mutex());
  RollBack EndFailure(int rc) REQUIRES(database_->fence().mutex());
  bool SomebodyReadsBeyond(uint32_t frame) REQUIRES(database_->fence().mutex());
  bool CloseHole(uint32_t last_frame) REQUIRES(database_->fence().mutex());
  void CloseHoleOfFence() REQUIRES(database_->fence().mutex());
  void CloseHoleBeneathStranger();
  unsigned ReadLocksInUse() REQUIRES(database_->fence().mutex());
  unsigned HoldLog() REQUIRES(database_->fence().mutex());
  void ReleaseReadLocks(unsigned locks) REQUIRES(database_->fence().mutex());

  Database* const database_;
  sqlite3_file* const main_;
  const char* const name_;
  const WriteQueue::Writer writer_;  // what we are called in the write queue
  sqlite3_file* log_ = nullptr;
  bool log_is_read_only_ = false;
  bool writes_may_be_joined_ = false;
  uint64_t syncs_before_ = 0;  // Coordinator::SyncsBegun() when the log had been opened
  Lsn appended_before_ = 0;    // appended() then, and one that may have been about to be
  Lsn written_before_ = 0;     // written() then
  bool shm_is_open_ = false;
  sqlite3** db_ = nullptr;
  volatile void* wal_index_ = nullptr;

  unsigned exclusive_ = 0;  // shared-memory locks that SQLite holds, a bit each
  unsigned shared_ = 0;
  unsigned dropped_ = 0;  // of shared_: released in advance, see DropSnapshot()
  bool has_file_lock_ = false;
  bool sole_user_ = false;  // nobody else has the database open
  int (*busy_handler_)(void*) = nullptr;
  void* busy_argument_ = nullptr;
  int lock_timeout_ms_ = 0;
  int64_t lock_deadline_ = 0;   // when that is over for the present request, ns
  bool has_turn_ = false;       // the write queue's lock is ours
  bool waited_inside_ = false;  // lock_timeout_ms_ was not 0 when it was asked for
  bool let_through_ = false;    // without a turn: its time was up, and the lock kept, not held
  bool looks_again_ = false;    // SQLite does, at the log: its request for a snapshot has slept
  int64_t refused_since_ = 0;   // when the write lock was first refused, ns; 0: not waiting for it
  int64_t last_refused_ = 0;    // ns

  GateCounts counts_;
  CheckpointGate::Advice checkpoint_ = CheckpointGate::Advice::kAsStock;
  bool closed_gate_ = false;
  uint64_t checkpointed_log_ = 0;       // the generation of the log that our checkpoint goes by
  uint32_t attempted_before_ = 0;       // CheckpointInfo::attempted as it began
  bool keeps_checkpoints_out_ = false;  // by the checkpoint lock, of which SQLite does not know
  bool just_committed_ = false;  // and done nothing since: a checkpoint now is an automatic one
  int64_t committed_at_ = 0;     // when it was settled, ns

  // The write transaction, from OnLocked(WRITE) on.
  WalIndexHeader header_at_lock_;    // then: a commit changes it
  uint32_t change_at_snapshot_ = 0;  // WalIndexHeader::change() when the snapshot was taken
  uint64_t failures_at_lock_ = 0;    // Coordinator::failures() then
  LogWrites writes_;
  FrameBuffer frames_;  // of them, what has still to be written to the log, or has been last
  Page1 page1_;
  int requested_flags_ = 0;  // SyncLog()'s, while it syncs at once

  // What WaitForCommit() waits for.
  Lsn commit_ = 0;          // this transaction's commit, or the pending ones beneath it
  bool deferred_ = false;   // commit_ is our own, noted by DeferSync()
  Lsn undurable_read_ = 0;  // newest pending commit of which a page was read while we were writing
  int read_error_ = 0;      // what came of that, for COMMIT to report
  bool stale_cache_ = false;  // the page cache may hold pages of a failed commit

  // Numbers of Coordinator::CountWritten().
  Lsn counted_ = 0;               // the transaction's commit, until COMMIT returns
  bool left_to_flusher_ = false;  // SyncLog() has left the commit to it
  Lsn last_commit_ = 0;           // the newest one that succeeded
  uint64_t flusher_errors_;       // Flusher::errors() that this connection has been told of

  // The newest pending commit that the snapshot included when it was taken; 0: all of it was
  // durable.
  Lsn snapshot_ = 0;
  // The snapshot includes no commit after this one: they had been taken out of sight before.
  static constexpr Lsn kAllInSight = UINT64_MAX;
  Lsn in_sight_ = kAllInSight;

  // Which of its frames may be read from memory: none if chain_ is 0.
  FrameCache::Chain chain_ = 0;
  uint32_t cached_through_ = 0;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_CONNECTION_H_
