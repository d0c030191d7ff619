// Flusher: a thread that makes durable, a little later, the commits for which nobody waits.
//
// It knows a log and when that is due. Commits ask for a sync within some time (Schedule); the
// first one to ask since the last sync began decides when.
#ifndef GROUPCOMMIT_FLUSHER_H_
#define GROUPCOMMIT_FLUSHER_H_

#include <atomic>
#include <cstdint>
#include <limits>
#include <thread>

#include "clock.h"
#include "coordinator.h"
#include "mutex.h"

namespace groupcommit {

class Flusher {
 public:
  // All must outlive the flusher.
  Flusher(Clock* clock, Coordinator* coordinator, Coordinator::Log* log)
      : clock_(clock), coordinator_(coordinator), log_(log) {}
  ~Flusher() { Stop(); }
  Flusher(const Flusher&) = delete;
  Flusher& operator=(const Flusher&) = delete;

  // Start() may throw std::system_error. REQUIRES: it does not run; no other thread starts or stops
  // it at the same time.
  void Start() EXCLUDES(mutex_);
  // Returns when the thread is gone. What is due then is not synced; what somebody waits for is.
  void Stop() EXCLUDES(mutex_);
  bool is_running() const { return running_.load(std::memory_order_acquire); }

  // All that has been counted by Coordinator::CountWritten() before the call is going to be synced,
  // or an error counted, within `delay_nanos` and the time that a sync takes. Takes a lock only for
  // the first such commit since a sync began. Any thread. REQUIRES: it runs.
  void Schedule(int64_t delay_nanos) EXCLUDES(mutex_);
  // The same at once, for somebody who waits for it (Coordinator::WaitSyncedUntil()), and so hears
  // of an error: it is not counted if nothing else is due. False if it does not run any more.
  [[nodiscard]] bool SyncNow() EXCLUDES(mutex_);

  // How often what was due could not be synced.
  uint64_t errors() const { return errors_.load(std::memory_order_acquire); }

 private:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  void Run() EXCLUDES(mutex_);
  void SyncWhatIsDue() REQUIRES(mutex_);

  Clock* const clock_;
  Coordinator* const coordinator_;
  Coordinator::Log* const log_;
  std::atomic<bool> running_{false};
  std::atomic<uint64_t> errors_{0};
  std::atomic<int64_t> due_{kNever};  // ns of the clock; moved forward under mutex_ only

  Mutex mutex_;
  CondVar changed_cond_;                     // due_, awaited_ or stopping_
  bool awaited_ GUARDED_BY(mutex_) = false;  // by a caller of SyncNow()
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
  uint64_t failures_counted_ = 0;  // of the thread: Coordinator::failures() at the last error
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_FLUSHER_H_
