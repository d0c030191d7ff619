// FakeClock: time stands still until the test moves the hands.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_FAKE_CLOCK_H_
#define GROUPCOMMIT_TESTS_SUPPORT_FAKE_CLOCK_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "clock.h"
#include "support/patience.h"

namespace groupcommit::testing {

class FakeClock final : public Clock {
 public:
  int64_t NowNanos() override {
    std::lock_guard lock(mutex_);
    return now_;
  }

  void Yield() override {
    yields_.fetch_add(1);
    if (while_yielding_) while_yielding_();
    std::this_thread::yield();
  }
  // What happens whenever a thread gives way, in that thread. REQUIRES: none does yet.
  void SetWhileYielding(std::function<void()> what) { while_yielding_ = std::move(what); }
  bool TooShortToPark(int64_t nanos) override {
    if (auto meanwhile = TakeMeanwhile()) meanwhile();
    return nanos < too_short_.load();
  }
  void SetTooShortToPark(int64_t nanos) { too_short_.store(nanos); }
  // What happens while the next thread asks that, in that thread.
  void SetMeanwhile(std::function<void()> meanwhile) {
    std::lock_guard lock(mutex_);
    meanwhile_ = std::move(meanwhile);
  }

  void WaitUntil(CondVar& cond, Mutex& mutex, int64_t deadline_nanos) override REQUIRES(mutex) {
    uint64_t id;
    {
      std::unique_lock lock(mutex_);
      waits_++;
      if (stalling_) {
        stalled_ = true;
        changed_.notify_all();
        changed_.wait(lock, [this] { return !stalling_; });
        stalled_ = false;
      }
      if (running_free_) now_ = std::max(now_, deadline_nanos);
      if (deadline_nanos <= now_) return;
      id = next_id_++;
      sleepers_.push_back({id, &cond, &mutex, deadline_nanos});
      changed_.notify_all();
    }
    const auto begin = std::chrono::steady_clock::now();
    cond.WaitFor(mutex, kHangs);
    std::lock_guard lock(mutex_);
    std::erase_if(sleepers_, [id](const Sleeper& sleeper) { return sleeper.id == id; });
    if (std::chrono::steady_clock::now() - begin >= kHangs) {
      ADD_FAILURE() << "somebody waits for the time, which stands still";
      running_free_ = true;
    }
  }

  void ParkUntil(CondVar& cond, Mutex& mutex, int64_t deadline_nanos) override REQUIRES(mutex) {
    WaitUntil(cond, mutex, deadline_nanos);
  }

  // Moves the hands and wakes those, and only those, whose deadline has come.
  void Advance(int64_t nanos) {
    std::vector<Sleeper> due;
    {
      std::lock_guard lock(mutex_);
      now_ += nanos;
      for (const Sleeper& sleeper : sleepers_) {
        if (sleeper.deadline <= now_) due.push_back(sleeper);
      }
      std::erase_if(sleepers_, [this](const Sleeper& sleeper) { return sleeper.deadline <= now_; });
    }
    WakeUp(due);
  }

  // Wakes the sleepers before their time, as WaitUntil() may.
  void WakeEarly() {
    std::vector<Sleeper> woken;
    {
      std::lock_guard lock(mutex_);
      woken = std::exchange(sleepers_, {});
    }
    WakeUp(woken);
  }

  // From now on a wait is over at once, and the time is its deadline.
  void RunFree() {
    {
      std::lock_guard lock(mutex_);
      running_free_ = true;
      stalling_ = false;
      changed_.notify_all();
    }
    WakeEarly();
  }

  // The next to wait keeps the mutex, until EndStall().
  void StallNextWait() {
    std::lock_guard lock(mutex_);
    stalling_ = true;
  }
  bool AwaitStalled() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [this] { return stalled_; });
  }
  void EndStall() {
    std::lock_guard lock(mutex_);
    stalling_ = false;
    changed_.notify_all();
  }

  // Returns when somebody, or as many as `n`, wait for the time; false if they do not. Their
  // mutexes are free by then: whoever comes next does not sleep for one, which would pass for
  // parked.
  bool AwaitSleeper() { return AwaitSleepers(1); }
  bool AwaitSleepers(size_t n) {
    std::vector<Sleeper> asleep;
    {
      std::unique_lock lock(mutex_);
      const auto are_there = [this, n] { return sleepers_.size() >= n; };
      if (!changed_.wait_for(lock, kPatience, are_there)) return false;
      asleep = sleepers_;
    }
    for (const Sleeper& sleeper : asleep) MutexLock lock(*sleeper.mutex);
    return true;
  }
  // How long the first sleeper is going to wait. REQUIRES: there is one.
  int64_t NanosLeft() {
    std::lock_guard lock(mutex_);
    return sleepers_.at(0).deadline - now_;
  }
  // How often anybody has given way.
  int64_t yields() const { return yields_.load(); }
  // How often anybody has waited.
  int waits() {
    std::lock_guard lock(mutex_);
    return waits_;
  }

 private:
  struct Sleeper {
    uint64_t id;
    CondVar* cond;
    Mutex* mutex;
    int64_t deadline;
  };

  std::function<void()> TakeMeanwhile() {
    std::lock_guard lock(mutex_);
    return std::exchange(meanwhile_, nullptr);
  }

  // A sleeper holds its mutex from before it is in the list until it waits, so that no signal is
  // lost.
  static void WakeUp(const std::vector<Sleeper>& sleepers) {
    for (const Sleeper& sleeper : sleepers) {
      MutexLock lock(*sleeper.mutex);
      sleeper.cond->SignalAll();
    }
  }

  std::atomic<int64_t> yields_{0};
  std::function<void()> while_yielding_;
  std::atomic<int64_t> too_short_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t now_ = 1'000'000'000;
  std::vector<Sleeper> sleepers_;
  uint64_t next_id_ = 0;
  int waits_ = 0;
  bool running_free_ = false;
  std::function<void()> meanwhile_;
  bool stalling_ = false;  // the next wait keeps its mutex
  bool stalled_ = false;   // somebody does
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_FAKE_CLOCK_H_
