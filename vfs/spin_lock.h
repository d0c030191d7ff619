// SpinLock: stands in front of a mutex that is never held for long, so that threads do not fall
// asleep for it.
//
// Not needed for correctness: who does not get it soon goes on without it. So it cannot lead to a
// deadlock, whatever its owner does or waits for.
#ifndef GROUPCOMMIT_SPIN_LOCK_H_
#define GROUPCOMMIT_SPIN_LOCK_H_

#include <atomic>
#include <thread>

namespace groupcommit {

class SpinLock {
 public:
  SpinLock() = default;
  SpinLock(const SpinLock&) = delete;
  SpinLock& operator=(const SpinLock&) = delete;

  // True if the lock is the caller's; false after some 50 us, as a rule. Any thread.
  bool LockSoon() {
    constexpr int kSpins = 100;   // for an owner that runs
    constexpr int kYields = 100;  // for one that does not
    for (int tries = 0; tries < kSpins + kYields; tries++) {
      // Acquire: pairs with the release in Unlock().
      if (!taken_.load(std::memory_order_relaxed) &&
          !taken_.exchange(true, std::memory_order_acquire)) {
        return true;
      }
      if (tries < kSpins) {
        Pause();
      } else {
        std::this_thread::yield();
      }
    }
    return false;
  }

  // REQUIRES: the lock is the caller's.
  void Unlock() { taken_.store(false, std::memory_order_release); }

 private:
  static void Pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");
#endif
  }

  std::atomic<bool> taken_{false};
};

// Has the lock from its construction to its destruction, if that is to be had soon.
class SpinGuard {
 public:
  explicit SpinGuard(SpinLock* lock) : lock_(lock->LockSoon() ? lock : nullptr) {}
  ~SpinGuard() {
    if (lock_ != nullptr) lock_->Unlock();
  }
  SpinGuard(const SpinGuard&) = delete;
  SpinGuard& operator=(const SpinGuard&) = delete;

 private:
  SpinLock* const lock_;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_SPIN_LOCK_H_
