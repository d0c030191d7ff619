// Coordinator: lets committers that wait for the log to become durable share its syncs.
//
// It knows numbers of commits and a log that can be synced, nothing of files or of SQLite. A commit
// whose bytes are all in the log gets an LSN (Append); its owner then waits until the durable tail
// has reached that LSN (WaitDurable). The leader notes how far the log has been appended, syncs
// once without holding any lock, and moves the durable tail. The others are followers. Commits that
// are appended while a sync runs are not covered by it; they form the next batch, and one of them
// is handed the leadership when the sync ends: or, where the device serves several syncs at a time,
// begins the next one beside it (sync_overlap.h).
//
// If the flush policy wants more company for a sync than is there, the first one to wait keeps a
// window open. Who makes the company complete takes the lead, so that the sync begins in a thread
// that is running; if nobody does, the keeper leads when its time is up.
#ifndef GROUPCOMMIT_COORDINATOR_H_
#define GROUPCOMMIT_COORDINATOR_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "clock.h"
#include "flush_policy.h"
#include "mutex.h"
#include "statistics.h"
#include "sync_overlap.h"

namespace groupcommit {

// The number of a commit in the order of the log. It only grows, for as long as the database is
// open in this process; 0 is before every commit. Not a file offset: those fall back when the log
// restarts, when a transaction that spilled is rolled back and when a commit fails after its bytes
// were written, and each time an old sync would seem to have covered a commit that nobody synced.
using Lsn = uint64_t;

// How far the log is. A tail tells of a commit and of all that come before it.
struct LogTails {
  std::atomic<Lsn> appended{0};       // all of their bytes are in the log
  std::atomic<Lsn> durable{0};        // they survive a power cut, or have failed
  std::atomic<Lsn> failed{0};         // the newest commit that has failed; 0 if none ever did
  std::atomic<uint64_t> failures{0};  // how many syncs have failed
  // `appended` and `durable` in the numbers of CountWritten(), which commits of every kind have,
  // those included for which nobody waits.
  std::atomic<Lsn> written{0};
  std::atomic<Lsn> synced{0};
};

class Coordinator {
 public:
  // The log, as the thread that calls can reach it.
  class Log {
   public:
    // Makes durable all that was written to the log before the call. `from` and `through` tell for
    // which commits: those after `from`, up to `through`. Returns 0, or an error code. Called
    // without a lock.
    virtual int Sync(Lsn from, Lsn through) = 0;

    // The number of a sync, see SyncsBegun(). If one that began after it loses bytes, each Sync()
    // of this log that overlaps it fails, too, even if the loss has been told to another log.
    // kSeesNone: no such thing is known.
    virtual uint64_t SeesFailuresAfter() const { return kSeesNone; }
    static constexpr uint64_t kSeesNone = UINT64_MAX;

   protected:
    ~Log() = default;
  };

  // `clock` and `stats` must outlive the coordinator. `overlap` decides how many syncs are under
  // way at a time under the policy auto; with the others, waiting commits have one.
  Coordinator(Clock* clock, Statistics* stats, const SyncOverlap& overlap = {});
  ~Coordinator();
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  // Takes effect at once, for a leader that is waiting for company too. Any thread.
  void SetPolicy(const FlushPolicy& policy) EXCLUDES(mutex_);

  // Makes room for `waiters` threads to wait at a time without allocating. May throw
  // std::bad_alloc.
  void Reserve(size_t waiters) EXCLUDES(mutex_);

  // Numbers a commit. `failures_before` is failures() from before its first byte was written;
  // returns 0 if a sync has failed since, as some of the bytes may be lost: the commit has to fail.
  // REQUIRES: all of its bytes have been written to the log, and no other thread appends at the
  // same time (SQLite's write lock).
  Lsn Append(uint64_t failures_before) EXCLUDES(mutex_);

  // The number of the newest sync. A log that is opened before the call may see the failures of
  // those that begin after it.
  uint64_t SyncsBegun() const EXCLUDES(mutex_);

  // Returns 0 once `target` is durable, or the error code of the failed sync that took it away.
  // Takes no lock and makes no system call when it is durable already. Ends, because a sync does.
  // May call log->Sync() in this thread. Any thread. REQUIRES: target <= appended().
  // `at_once`: a sync for it does not wait for company. So do those whom others wait for meanwhile.
  int WaitDurable(Lsn target, Log* log, bool at_once = false) EXCLUDES(mutex_);

  // Counts a commit of any kind, whether anybody is going to wait for it or not; or a point in time
  // that is to lie after all such commits. Returns its number, which is another one than
  // Append()'s. REQUIRES: all bytes of the commit have been written to the log.
  Lsn CountWritten() { return tails_.written.fetch_add(1, std::memory_order_seq_cst) + 1; }
  Lsn written() const { return tails_.written.load(std::memory_order_seq_cst); }
  // Up to here, a sync has succeeded that began after the commit was written.
  Lsn synced() const { return tails_.synced.load(std::memory_order_acquire); }

  // Returns 0 once synced() has reached `target`, or the error of a failed sync if there has been
  // one meanwhile and the log has not been made safe yet (failure()): then nothing is known of the
  // commit. Shares its sync as WaitDurable() does, but waits for no company: what that is counted
  // by is appended commits. Any thread. REQUIRES: target <= written().
  int WaitSynced(Lsn target, Log* log) EXCLUDES(mutex_);

  // The same, but leaves the syncing to others, and waits until `deadline_nanos` of the clock at
  // the latest: nothing then. An error also if a sync has failed since failures() was
  // `failures_before`, which was before the others were asked to.
  std::optional<int> WaitSyncedUntil(Lsn target, uint64_t failures_before, int64_t deadline_nanos)
      EXCLUDES(mutex_);

  // Syncs in this thread, without waiting for others to begin, also while leaders are at work; what
  // was appended before the call is durable when it returns 0. `failures_before` is failures() from
  // before the first of the bytes that the caller wants to be durable was written: if a sync has
  // failed since, they may be lost, and the call fails. Any thread.
  int SyncNow(Log* log, uint64_t failures_before) EXCLUDES(mutex_);

  Lsn appended() const { return tails_.appended.load(std::memory_order_acquire); }
  Lsn durable() const { return tails_.durable.load(std::memory_order_acquire); }

  // Is this commit durable? False for one that failed. No lock.
  bool IsDurable(Lsn target) const {
    // Acquire: pairs with the releases in AdvanceTails() and Resume(); `failed` is stored before
    // `durable` moves past it.
    return durable() >= target && tails_.failed.load(std::memory_order_relaxed) < target;
  }
  bool AllDurable() const { return durable() >= appended(); }

  // How many threads are in WaitDurable() and have found their commit not yet durable.
  int waiting() const { return waiting_.load(std::memory_order_relaxed); }

  // How many of them give way to other threads rather than sleep. For tests.
  int yielding() const { return yielding_.load(std::memory_order_relaxed); }

  // How long a sync for waiting commits has taken lately, ns; 0 before the first one. Any thread.
  int64_t SyncNanos() const EXCLUDES(mutex_);

  // Does it matter now whether logs see each other's failures? See SyncOverlap::is_wanted().
  bool overlap_is_wanted() const { return overlap_is_wanted_.load(std::memory_order_relaxed); }

  // Counts failed syncs. Bytes that were written to the log before a sync of it failed may be lost
  // although a later sync succeeds.
  uint64_t failures() const { return tails_.failures.load(std::memory_order_acquire); }

  // Was this commit taken away by a failed sync? Takes a lock only if that is possible. Any thread.
  bool HasFailed(Lsn target) const EXCLUDES(mutex_) {
    // In this order: Resume() stores `failed` before it clears failure().
    if (failure() == 0 && tails_.failed.load(std::memory_order_acquire) < target) return false;
    return FindFailure(target);
  }

  // The error of the failed sync after which nothing more is acknowledged, until Resume(); else 0.
  // Every failed sync leads here, also one that nobody waited for: bytes that somebody appended
  // without waiting may be lost, and lie beneath whatever comes next.
  int failure() const { return failure_.load(std::memory_order_seq_cst); }

  // Returns when no sync is under way. Ends, as syncs do and none begins in the state of failure.
  // REQUIRES: failure() != 0, and whoever ends a sync needs no lock that the caller holds.
  void AwaitSyncs() EXCLUDES(mutex_);

  // Ends the state of failure: what had been appended but was not durable stays failed for ever,
  // what is appended from now on is judged anew. REQUIRES: nobody appends meanwhile, and the caller
  // has made the log safe to build on.
  // False, and no change, if memory is lacking.
  bool Resume() EXCLUDES(mutex_);

 private:
  // With fewer commits under way, the processor that would be idle serves the disk, and a thread
  // that waits does so asleep.
  static constexpr Lsn kFew = 3;

  // What a thread waits for: a commit that somebody may take away, or one of those that are only
  // counted.
  struct Goal {
    Lsn durable = 0;
    Lsn synced = 0;
    bool at_once = false;
  };
  // One thread in WaitDurable(). Waiters belong to the coordinator and are reused, never freed
  // before it: the thread that wakes one may touch it after the woken thread has gone on.
  struct Waiter {
    enum State : uint32_t {
      kFollowing,  // entered by its own thread, or from kKeeping when somebody else takes the lead;
                   // somebody leads, or keeps the window open
      kKeeping,    // keeps the window open and ends it when its time is up; entered by its own
                 // thread, or from kFollowing by the leader that retires; left with the mutex held
      kLeading,  // has to lead the next sync; entered from kFollowing by the leader that retires,
                 // or from kKeeping when the window ends
      kSettled,  // entered by whoever settled its commit; `error` is the outcome
    };
    std::atomic<uint32_t> state{kFollowing};
    Goal goal;
    int error = 0;
    int64_t yields_until = 0;  // ns; before that it gives way rather than parks
    bool dozes = false;        // on window_cond_. Guarded by the mutex
    Waiter* next = nullptr;

    // Pairs with the acquire in Follow(), so that `error` is seen. Sequentially consistent, because
    // notify_one() does nothing if it sees no waiter: it must not look before the store.
    void Set(State to) { state.store(to, std::memory_order_seq_cst); }
    void Notify() { state.notify_one(); }
  };

  // Commits after `after`, up to `through`, were taken away by a failed sync.
  struct Failure {
    Lsn after;
    Lsn through;
    int error;
  };

  // A sync that is under way.
  struct Running {
    uint64_t number = 0;
    Lsn through = 0;               // it covers the commits up to here
    Lsn written = 0;               // and the counted ones
    uint64_t failures_before = 0;  // failures() from before what it is to make durable was written
    uint64_t sees_after = 0;       // Log::SeesFailuresAfter()
    bool has_ended = false;        // and waits for others before it counts
    Lsn tail = 0;                  // durable() before it moved that
  };

  int WaitInLine(const Goal& goal, Log* log) EXCLUDES(mutex_);
  int LeadOrFollow(const Goal& goal, Log* log) EXCLUDES(mutex_);
  int Follow(Waiter* self, Log* log) EXCLUDES(mutex_);
  void GiveWayOrPark(const Waiter& self);
  int64_t GiveWay(int64_t now);
  bool MayGiveWay(int64_t now) const {
    return now >= no_yield_until_.load(std::memory_order_relaxed);
  }
  bool MayLead() const REQUIRES(mutex_);
  int Lead(const Goal& goal, Log* log) RELEASE(mutex_);
  Waiter* AppointSuccessor() REQUIRES(mutex_);

  // The window, and what `auto` learns for it; see company.cc.
  void OpenWindow(Waiter* keeper) REQUIRES(mutex_);
  void TakeOver() REQUIRES(mutex_);
  void EndWindow() REQUIRES(mutex_);
  void OnCompany() REQUIRES(mutex_);
  void KeepWindow(Waiter* self) EXCLUDES(mutex_);
  int64_t WindowEnds() const REQUIRES(mutex_);
  Lsn NextLook() const REQUIRES(mutex_);
  bool CompanyIsHere() const REQUIRES(mutex_);
  Lsn CompanyWanted() const REQUIRES(mutex_);
  bool PaysToWait() const REQUIRES(mutex_);
  int64_t WindowNanos() const REQUIRES(mutex_);
  bool IsForOneMore() const REQUIRES(mutex_);
  int64_t PatienceEnds() const REQUIRES(mutex_);
  int64_t YieldsUntil() const REQUIRES(mutex_);
  int MostLeaders() const REQUIRES(mutex_);
  Lsn GroupSize() const REQUIRES(mutex_);
  void LearnFrom(Lsn from, int64_t sync_nanos) REQUIRES(mutex_);
  void LearnOverlap(int leaders, int64_t sync_nanos, bool independent) REQUIRES(mutex_);
  void LearnPace(Lsn came) REQUIRES(mutex_);

  Running Begin(const Log& log, uint64_t failures_before) REQUIRES(mutex_);
  int64_t TimedSync(Log* log, Lsn from, Lsn through, int* error) EXCLUDES(mutex_);
  int Finish(Running* sync, int error) REQUIRES(mutex_);
  void AwaitOverlapping(const Running& sync) REQUIRES(mutex_);
  void AdvanceTails(const Running& sync) REQUIRES(mutex_);
  bool FindFailure(Lsn target) const EXCLUDES(mutex_);
  bool Settled(const Goal& goal, int* error) const REQUIRES(mutex_);
  bool IsUnderWay(const Goal& goal) const REQUIRES(mutex_);
  Lsn CoveredThrough() const REQUIRES(mutex_);
  void Enqueue(Waiter* waiter) REQUIRES(mutex_);
  void Dequeue(Waiter* waiter) REQUIRES(mutex_);
  Waiter* TakeSettled() REQUIRES(mutex_);
  Waiter* NewWaiter() REQUIRES(mutex_);
  void ReturnWaiter(Waiter* waiter);
  static void WakeAll(Waiter* list);

  Clock* const clock_;
  Statistics* const stats_;

  LogTails tails_;
  std::atomic<int> failure_{0};
  std::atomic<int> waiting_{0};
  std::atomic<int> yielding_{0};  // how many followers give way rather than park
  std::atomic<int64_t> no_yield_until_{0};
  std::atomic<bool> overlap_is_wanted_{false};

  mutable Mutex mutex_;
  FlushPolicy policy_ GUARDED_BY(mutex_);
  SyncOverlap overlap_ GUARDED_BY(mutex_);
  // Whoever waits is in the queue, but for the leaders. While no sync is under way that covers all
  // of them, somebody is appointed or keeps the window, or a leader is there that sees to it.
  int leaders_ GUARDED_BY(mutex_) = 0;                // whose syncs are under way
  bool appointed_ GUARDED_BY(mutex_) = false;         // somebody is to lead the next one
  bool somebody_hurries_ GUARDED_BY(mutex_) = false;  // of the queue: Goal::at_once
  Waiter* keeper_ GUARDED_BY(mutex_) = nullptr;       // of the window, which is open
  Waiter* oldest_ GUARDED_BY(mutex_) = nullptr;       // the queue, in order of arrival
  Waiter* newest_ GUARDED_BY(mutex_) = nullptr;
  Waiter* free_ GUARDED_BY(mutex_) = nullptr;  // waiters that nobody uses
  std::atomic<Waiter*> returned_{nullptr};     // more of them
  std::vector<std::unique_ptr<Waiter>> waiters_ GUARDED_BY(mutex_);
  std::vector<Failure> history_ GUARDED_BY(mutex_);  // ended by Resume()
  int last_error_ GUARDED_BY(mutex_) = 0;
  uint64_t begun_ GUARDED_BY(mutex_) = 0;            // number of the newest sync
  std::vector<Running> running_ GUARDED_BY(mutex_);  // the syncs under way: a few
  CondVar ended_cond_;                               // one of them has ended

  // The window.
  CondVar window_cond_;  // the keeper dozes on it
  Lsn window_full_at_ GUARDED_BY(mutex_) = 0;
  Lsn next_look_at_ GUARDED_BY(mutex_) = 0;
  int64_t window_begun_at_ GUARDED_BY(mutex_) = 0;
  bool company_came_ GUARDED_BY(mutex_) = false;  // into the last one, before its time was up
  std::atomic<int64_t> window_ends_at_{0};        // stored with the mutex held

  // What `auto` has learned.
  Lsn in_flight_ GUARDED_BY(mutex_) = 0;         // commits under way at the end of the last sync
  int64_t sync_nanos_ GUARDED_BY(mutex_) = 0;    // recent time of a sync, smoothed
  int64_t append_nanos_ GUARDED_BY(mutex_) = 0;  // and from one commit to the next, at most that
  int64_t ended_at_ GUARDED_BY(mutex_) = 0;      // when the last sync ended
  std::atomic<Lsn> first_since_{1};              // the first commit after that
  std::atomic<int64_t> first_append_at_{0};      // when it was appended
  std::atomic<int64_t> last_append_at_{0};
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_COORDINATOR_H_
