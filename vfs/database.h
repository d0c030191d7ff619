// Database: what the connections of this process to one database file share.
//
// Found by the path that SQLite passes to xOpen (full, symbolic links resolved), created by the
// first connection and dropped with the last. After fork() the child starts with none.
#ifndef GROUPCOMMIT_DATABASE_H_
#define GROUPCOMMIT_DATABASE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint_gate.h"
#include "clock.h"
#include "commit_log.h"
#include "coordinator.h"
#include "fence.h"
#include "flush_policy.h"
#include "flusher.h"
#include "frame_buffer.h"
#include "frame_cache.h"
#include "mutex.h"
#include "process.h"
#include "spin_lock.h"
#include "sqlite.h"
#include "statistics.h"
#include "wal_format.h"
#include "write_queue.h"

namespace groupcommit {

class Database final : private Coordinator::Log {
 public:
  // Joins the database `path` of the VFS `base`, which `file` (opened through `base`) has just
  // opened. `from_uri` is the policy of the connection's URI, if it names one; `fallback` that of
  // its VFS. Returns SQLITE_OK and *database, to be given back to Leave(); SQLITE_MISUSE and *error
  // if another connection's URI says otherwise; SQLITE_NOMEM. Any thread.
  static int Join(sqlite3_vfs* base, const char* path, sqlite3_file* file,
                  const std::optional<FlushPolicy>& from_uri, const FlushPolicy& fallback,
                  Database** database, std::string* error);
  void Leave(sqlite3_file* file);

  struct Info {
    std::string path;
    FlushPolicy policy;
    groupcommit_statistics stats;
  };
  // All that are open in this process.
  static std::vector<Info> List();

  sqlite3_vfs* base() const { return base_; }
  const std::string& path() const { return path_; }
  Coordinator& coordinator() { return coordinator_; }
  CommitLog& commits() { return commits_; }
  FrameCache& frames() { return frames_; }
  FrameMemory& frame_memory() { return frame_memory_; }
  Fence& fence() { return fence_; }
  Statistics& stats() { return stats_; }
  Clock& clock() { return *clock_; }
  CheckpointGate& gate() { return gate_; }
  // For those who ask the base VFS for a lock of the shared memory.
  SpinLock& shm_lock() { return shm_lock_; }
  const std::shared_ptr<WriteQueue>& write_queue() { return write_queue_; }

  FlushPolicy policy() const EXCLUDES(mutex_);
  // By PRAGMA: outranks what URIs say, those of later connections too.
  void SetPolicy(const FlushPolicy& policy) EXCLUDES(mutex_);
  bool syncs_on_each_flush() const { return each_flush_.load(std::memory_order_relaxed); }
  // With the policy interval: how long a commit may stay undurable, ns. Negative: another policy.
  int64_t max_delay_nanos() const { return max_delay_nanos_.load(std::memory_order_relaxed); }

  // Makes sure that the flusher runs, if there is a log. Returns SQLITE_OK or an error. It stops
  // when the last log is removed. Any thread.
  int StartFlusher() EXCLUDES(flusher_mutex_, logs_mutex_);
  Flusher& flusher() { return flusher_; }

  // Syncs for the commits after `from`, up to `through`, as strong as `strength` at least. It does
  // so through the handle that has been open for the longest time, whichever connection's: that one
  // is told of an error even if another process has been told before, and a later one is not.
  // Nothing if nobody has the log open.
  std::optional<int> SyncOpenLog(Lsn from, Lsn through, int strength) EXCLUDES(logs_mutex_);

  // See loss_reports.h; false before anybody has asked. Asks `log`, whose file is `path`, unless
  // the answer is recent: a disk may change beneath a file. REQUIRES: the write lock.
  void AskForLossReports(sqlite3_file* log, const char* path);
  bool each_handle_is_told() const { return each_handle_is_told_.load(std::memory_order_relaxed); }

  // What a commit that nobody waits for asks of the sync that makes it durable, flags of xSync.
  void AskForSync(int flags);
  // The flags of a sync for the commits after `from`, up to `through`, for such ones, and for
  // somebody who asks for `strength`.
  int SyncFlags(Lsn from, Lsn through, int strength) const;

  // A connection has opened the log, as the base VFS's file `log`, which has `size` bytes. If no
  // other has it open and there are frames, nobody here knows whether they are durable: they count
  // as one pending commit.
  void AddLog(sqlite3_file* log, int64_t size)
      EXCLUDES(flusher_mutex_, logs_mutex_, fence_.mutex());
  // It is about to close it. True if none stays that has the log open: those that are about to
  // close it, too, do not count.
  bool LeaveLog(const sqlite3_file* log) EXCLUDES(logs_mutex_);
  void RemoveLog(sqlite3_file* log) EXCLUDES(flusher_mutex_, logs_mutex_);

  // The kernel tells each handle that was open when a sync failed of that, once. Lets it tell them
  // all now, so that none is told during a later sync. Before that it waits for the syncs that are
  // under way: after Coordinator::Resume() what they are told would pass for another failure. (They
  // need no fence to end, which the caller may hold.) REQUIRES: Coordinator::failure() != 0, and
  // nothing is relied on that is in the log now and not durable.
  void DrainSyncErrors() EXCLUDES(logs_mutex_);

  // What connections of this process have made of the wal-index header, to find out whether another
  // process committed in between. Both REQUIRE the write lock.
  void OnWriteLocked(const WalIndexHeader& header) EXCLUDES(published_mutex_);
  // `is_ours`: a commit of ours has made it, or we have put it back.
  void OnWriteUnlocking(const WalIndexHeader& header, bool is_ours) EXCLUDES(published_mutex_);
  // Our connections that have the write lock of the base VFS, or ask for it just now; and those
  // that do for the checkpoint lock.
  std::atomic<int>& write_holders() { return write_holders_; }
  std::atomic<int>& checkpoint_holders() { return checkpoint_holders_; }
  // Those that have the write lock for certain.
  std::atomic<int>& writing() { return writing_; }
  // How often one of them has begun or ceased to keep checkpoints out, to start the log over. Odd
  // while one does.
  std::atomic<uint64_t>& starts_over() { return starts_over_; }
  // The header when one of them has last released the write lock; zeros if none has.
  WalIndexHeader published() const EXCLUDES(published_mutex_);
  // The header that we have made last. Another process may take back what lies beyond.
  WalIndexHeader committed() const EXCLUDES(published_mutex_);
  // Are all commits after `tail` ours, and does `header` show the log as we have left it? What was
  // there when we first took the write lock does not count.
  bool IsOurs(Lsn tail, const WalIndexHeader& header) const EXCLUDES(published_mutex_);
  // All our commits after `lsn` have been taken out of sight, by a header whose change counter is
  // `change`.
  void OnPutBack(Lsn lsn, uint32_t change) EXCLUDES(published_mutex_);
  // The newest commit of ours, up to `appended`, that a snapshot of `header` may include.
  Lsn LastInSight(Lsn appended, const WalIndexHeader& header) const EXCLUDES(published_mutex_);
  // A sync that began under the write lock has succeeded: for all that other processes have left,
  // too. REQUIRES: the lock is still held.
  void OnSyncedUnderWriteLock() EXCLUDES(published_mutex_);
  // If the commit `lsn`, of ours, and all before it are durable, are those of other processes, too?
  bool IsOnTop(Lsn lsn) const EXCLUDES(published_mutex_);

  // The newest commit of ours in sight, by the number of Coordinator::CountWritten(). (What has got
  // a later one has failed, or is the moment of a flush.)
  Lsn newest_commit() const { return newest_commit_.load(std::memory_order_relaxed); }
  // REQUIRES: the write lock, or exclusive locking mode.
  void OnCommitted(Lsn number) { newest_commit_.store(number, std::memory_order_relaxed); }

  // Has the log been closed by all connections since it got its hole? Then nobody's commits are to
  // be taken back.
  bool IsReopened() const { return reopened_.load(std::memory_order_relaxed); }
  // The hole is closed: the next failure is one of ours.
  void EndReopened() { reopened_.store(false, std::memory_order_relaxed); }

  groupcommit_statistics ReadStatistics() const EXCLUDES(mutex_);

 private:
  Database(sqlite3_vfs* base, const char* path);
  void SetReopened() { reopened_.store(true, std::memory_order_relaxed); }
  int Sync(Lsn from, Lsn through) override;  // the flusher's
  size_t LogCount() EXCLUDES(logs_mutex_);
  void OnOpenedAfterFailure(sqlite3_file* log) EXCLUDES(fence_.mutex(), logs_mutex_);
  int AddConnection(sqlite3_file* file, const std::optional<FlushPolicy>& from_uri,
                    const FlushPolicy& fallback, std::string* error) EXCLUDES(mutex_);
  bool RemoveConnection(sqlite3_file* file) EXCLUDES(mutex_);
  bool IsTheOneAt(const sqlite3_vfs* base) const EXCLUDES(mutex_);
  void ApplyPolicy(const FlushPolicy& policy) REQUIRES(mutex_);

  sqlite3_vfs* const base_;
  const std::string path_;
  const uint64_t fork_generation_ = ForkGeneration();
  SteadyClock* const clock_ = SteadyClock::Get();
  Statistics stats_;
  Coordinator coordinator_;
  CommitLog commits_;
  FrameCache frames_;
  FrameMemory frame_memory_;
  Fence fence_;
  CheckpointGate gate_{clock_};
  SpinLock shm_lock_;
  Flusher flusher_{clock_, &coordinator_, this};
  // Shared with threads that sleep in it.
  const std::shared_ptr<WriteQueue> write_queue_ = std::make_shared<WriteQueue>(clock_);
  std::atomic<bool> each_flush_{false};
  std::atomic<int64_t> max_delay_nanos_{-1};
  std::atomic<int> strength_asked_{0};
  std::atomic<bool> reopened_{false};
  std::atomic<bool> each_handle_is_told_{false};
  std::atomic<int64_t> asked_at_{INT64_MIN};  // when, ns

  Mutex flusher_mutex_;  // held while the flusher starts or stops. Taken before logs_mutex_.
  Mutex logs_mutex_;     // guards the list, and holds it still while all of them are synced
  struct OpenLog {
    sqlite3_file* file;
    int syncs = 0;            // under way through it, of other threads than its owner's
    bool is_leaving = false;  // it is about to be closed
  };
  OpenLog& FindLog(const sqlite3_file* log) REQUIRES(logs_mutex_);
  void AwaitSyncsThrough(const sqlite3_file* log) REQUIRES(logs_mutex_);
  std::vector<OpenLog> logs_ GUARDED_BY(logs_mutex_);
  CondVar log_unused_;                               // syncs is 0 again
  bool log_opened_ GUARDED_BY(logs_mutex_) = false;  // what was found there is counted

  std::atomic<int> write_holders_{0};
  std::atomic<int> checkpoint_holders_{0};
  std::atomic<int> writing_{0};
  std::atomic<uint64_t> starts_over_{0};
  std::atomic<Lsn> newest_commit_{0};
  mutable Mutex published_mutex_;
  bool published_known_ GUARDED_BY(published_mutex_) = false;
  WalIndexHeader published_ GUARDED_BY(published_mutex_);
  WalIndexHeader committed_ GUARDED_BY(published_mutex_);
  // Another process committed on top of this one.
  Lsn foreign_after_ GUARDED_BY(published_mutex_) = 0;
  // Those up to this one were there before we first took the write lock.
  Lsn unknown_through_ GUARDED_BY(published_mutex_) = 0;
  bool others_are_synced_ GUARDED_BY(published_mutex_) = false;  // since, both of them
  // OnPutBack(); the commits are those up to `hidden_through_`.
  Lsn hidden_after_ GUARDED_BY(published_mutex_) = 0;
  Lsn hidden_through_ GUARDED_BY(published_mutex_) = 0;
  uint32_t hidden_by_ GUARDED_BY(published_mutex_) = 0;

  mutable Mutex mutex_;
  std::vector<sqlite3_file*> files_ GUARDED_BY(mutex_);  // the base VFS's main files
  FlushPolicy policy_ GUARDED_BY(mutex_);
  std::optional<FlushPolicy> uri_policy_ GUARDED_BY(mutex_);
  bool policy_by_pragma_ GUARDED_BY(mutex_) = false;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_DATABASE_H_
