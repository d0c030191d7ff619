#include "process.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <thread>

#if __has_include(<pthread.h>)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace groupcommit {
namespace {

std::atomic<uint64_t> fork_generation{0};

#if __has_include(<pthread.h>)
void BeforeFork() NO_THREAD_SAFETY_ANALYSIS { ProcessMutex().Lock(); }
void ParentAfterFork() NO_THREAD_SAFETY_ANALYSIS { ProcessMutex().Unlock(); }
void ChildAfterFork() NO_THREAD_SAFETY_ANALYSIS {
  fork_generation.fetch_add(1, std::memory_order_relaxed);
  ProcessMutex().Unlock();
}
#endif

Mutex* NewProcessMutex() noexcept {
#if __has_include(<pthread.h>)
  pthread_atfork(BeforeFork, ParentAfterFork, ChildAfterFork);
#endif
  // Never destroyed: connections may be closed by static destructors.
  alignas(Mutex) static unsigned char space[sizeof(Mutex)];
  return new (space) Mutex;
}

}  // namespace

Mutex& ProcessMutex() noexcept {
  static Mutex* const mutex = NewProcessMutex();
  return *mutex;
}

uint64_t ForkGeneration() { return fork_generation.load(std::memory_order_relaxed); }

int ProcessorCount() {
  static const int count = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return count;
}

namespace {

// When the library is loaded: a child of fork() would wait for ever for a thread of its parent that
// has just begun to make it.
[[maybe_unused]] const Mutex& made_beforehand = ProcessMutex();

}  // namespace

int CurrentProcessor() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return kUnknownProcessor;
#endif
}

}  // namespace groupcommit
