#include "flusher.h"

#if __has_include(<pthread.h>)
#include <pthread.h>
#include <signal.h>
#endif

namespace groupcommit {
namespace {

// Signals are the application's: none of them is to be handled by a thread of ours, which inherits
// the mask of the one that starts it.
class SignalsBlocked {
 public:
#if __has_include(<pthread.h>)
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
#endif
};

}  // namespace

void Flusher::Start() {
  {
    MutexLock lock(mutex_);
    stopping_ = false;
    due_.store(kNever, std::memory_order_seq_cst);
  }
  const SignalsBlocked blocked;
  thread_ = std::thread([this] { Run(); });
  running_.store(true, std::memory_order_release);
}

void Flusher::Stop() {
  if (!is_running()) return;
  running_.store(false, std::memory_order_release);
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_cond_.SignalAll();
  }
  thread_.join();
}

void Flusher::Schedule(int64_t delay_nanos) {
  const int64_t due = clock_->NowNanos() + delay_nanos;
  // Sequentially consistent, as in Run(): a commit that is counted after Run() has read the number
  // finds nothing due here.
  if (due_.load(std::memory_order_seq_cst) <= due) return;
  MutexLock lock(mutex_);
  if (due_.load(std::memory_order_relaxed) <= due) return;
  due_.store(due, std::memory_order_seq_cst);
  changed_cond_.SignalAll();
}

bool Flusher::SyncNow() {
  MutexLock lock(mutex_);
  if (stopping_) return false;
  awaited_ = true;
  changed_cond_.SignalAll();
  return true;
}

void Flusher::Run() {
  mutex_.Lock();
  while (!stopping_ || awaited_) {
    const int64_t due = due_.load(std::memory_order_relaxed);
    if (awaited_ || clock_->NowNanos() >= due) {
      SyncWhatIsDue();
    } else if (due == kNever) {
      changed_cond_.Wait(mutex_);
    } else {
      clock_->WaitUntil(changed_cond_, mutex_, due);
    }
  }
  mutex_.Unlock();
}

void Flusher::SyncWhatIsDue() {
  const bool is_due = due_.exchange(kNever, std::memory_order_seq_cst) != kNever;
  awaited_ = false;
  mutex_.Unlock();
  const int error = coordinator_->WaitSynced(coordinator_->written(), log_);
  // Once for each failure: nothing is committed before the log is whole again.
  const uint64_t failures = coordinator_->failures();
  if (error != 0 && is_due && failures != failures_counted_) {
    failures_counted_ = failures;
    errors_.fetch_add(1, std::memory_order_release);
  }
  mutex_.Lock();
}

}  // namespace groupcommit
