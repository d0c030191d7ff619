// std::mutex and std::condition_variable with the annotations that clang's -Wthread-safety checks.
#ifndef GROUPCOMMIT_MUTEX_H_
#define GROUPCOMMIT_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define GC_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define GC_THREAD_ANNOTATION(x)
#endif

#define CAPABILITY(x) GC_THREAD_ANNOTATION(capability(x))
#define SCOPED_CAPABILITY GC_THREAD_ANNOTATION(scoped_lockable)
#define GUARDED_BY(x) GC_THREAD_ANNOTATION(guarded_by(x))
#define REQUIRES(...) GC_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) GC_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) GC_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) GC_THREAD_ANNOTATION(try_acquire_capability(__VA_ARGS__))
#define RELEASE(...) GC_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define RETURN_CAPABILITY(x) GC_THREAD_ANNOTATION(lock_returned(x))
#define NO_THREAD_SAFETY_ANALYSIS GC_THREAD_ANNOTATION(no_thread_safety_analysis)

namespace groupcommit {

class CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ACQUIRE() { mutex_.lock(); }
  bool TryLock() TRY_ACQUIRE(true) { return mutex_.try_lock(); }
  void Unlock() RELEASE() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.Lock(); }
  ~MutexLock() RELEASE() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

class CondVar {
 public:
  void Wait(Mutex& mutex) REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    cond_.wait(lock);
    lock.release();
  }

  // Returns after a signal, after `limit`, or for no reason at all.
  void WaitFor(Mutex& mutex, std::chrono::nanoseconds limit) REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    cond_.wait_for(lock, limit);
    lock.release();
  }

  void SignalAll() { cond_.notify_all(); }

 private:
  std::condition_variable cond_;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_MUTEX_H_
