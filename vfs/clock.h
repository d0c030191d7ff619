// Time as the coordinator sees it, so that a test can hold the hands.
#ifndef GROUPCOMMIT_CLOCK_H_
#define GROUPCOMMIT_CLOCK_H_

#include <chrono>
#include <cstdint>
#include <thread>

#include "mutex.h"

namespace groupcommit {

class Clock {
 public:
  Clock() = default;
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  virtual ~Clock() = default;

  // Nanoseconds since a moment that does not change; never runs backwards.
  virtual int64_t NowNanos() = 0;

  // Gives way to other threads that want to run.
  virtual void Yield() = 0;

  // Would a thread that parks for so long come back too late?
  virtual bool TooShortToPark(int64_t nanos) = 0;

  // Waits on `cond` until it is signalled or until `deadline_nanos` has come; may return early.
  virtual void WaitUntil(CondVar& cond, Mutex& mutex, int64_t deadline_nanos) REQUIRES(mutex) = 0;
  // The same, but parks even if that is too short.
  virtual void ParkUntil(CondVar& cond, Mutex& mutex, int64_t deadline_nanos) REQUIRES(mutex) = 0;
};

class SteadyClock final : public Clock {
 public:
  // The one of this process. Never destroyed.
  static SteadyClock* Get() {
    static auto* const clock = new SteadyClock;
    return clock;
  }

  int64_t NowNanos() override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }

  void Yield() override { std::this_thread::yield(); }

  // Timers are late by some 50 us, and an idle CPU takes its time to wake up.
  bool TooShortToPark(int64_t nanos) override { return nanos < 200'000; }

  void WaitUntil(CondVar& cond, Mutex& mutex, int64_t deadline_nanos) override REQUIRES(mutex) {
    const int64_t left = deadline_nanos - NowNanos();
    if (left > 0 && TooShortToPark(left)) {
      mutex.Unlock();
      Yield();
      mutex.Lock();
    } else {
      ParkUntil(cond, mutex, deadline_nanos);
    }
  }

  void ParkUntil(CondVar& cond, Mutex& mutex, int64_t deadline_nanos) override REQUIRES(mutex) {
    const int64_t left = deadline_nanos - NowNanos();
    if (left > 0) cond.WaitFor(mutex, std::chrono::nanoseconds(left));
  }
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_CLOCK_H_
