// SpinLock: stands in front of a mutex that is never held for long, so that threads do not fall
// asleep for it.
//
// Not needed for correctness: who does not get it soon goes on without it. So it cannot lead to a
// deadlock, whatever its owner does or waits for.
#ifndef GROUPCOMMIT_SPIN_LOCK_H_
#define GROUPCOMMIT_SPIN_LOCK_H_

#include <atomic>
#include <chrono>
#include <thread>

namespace groupcommit {

class SpinLock {
 public:
  SpinLock() = default;
  SpinLock(const SpinLock&) = delete;
  SpinLock& operator=(const SpinLock&) = delete;

  // True if the lock is the caller's; false after some 50 us, or when somebody else has had the
  // processor meanwhile. Any thread.
  bool LockSoon() {
    constexpr int kSpins = 100;
    for (int i = 0; i < kSpins; i++) {
      if (TryLock()) return true;
      Pause();
    }
    // The owner does not run, perhaps.
    constexpr std::chrono::microseconds kPatience(50);
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    do {
      std::this_thread::yield();
      if (TryLock()) return true;
    } while (std::chrono::steady_clock::now() < deadline);
    return false;
  }

  // REQUIRES: the lock is the caller's.
  void Unlock() { taken_.store(false, std::memory_order_release); }

 private:
  bool TryLock() {
    // Acquire: pairs with the release in Unlock().
    return !taken_.load(std::memory_order_relaxed) &&
           !taken_.exchange(true, std::memory_order_acquire);
  }

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
