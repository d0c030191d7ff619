// Child processes of a test, and what they share with it.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_PROCESSES_H_
#define GROUPCOMMIT_TESTS_SUPPORT_PROCESSES_H_

#include <sys/mman.h>
#include <sys/types.h>

#include <functional>
#include <new>

#include "support/sqlite_helpers.h"

namespace groupcommit::testing {

// Runs `work` in a child process. It must leave nothing open; a failed expectation makes the child
// fail. A child that hangs is killed, so that the test fails instead of hanging, too; so is one
// whose parent ends first.
pid_t StartChild(const std::function<void()>& work);

// False once the child has ended. Whoever waits for a child to do something has to ask.
bool IsRunning(pid_t child);

// Waits for the child's end.
void ExpectSuccess(pid_t child);

// kill -9. The child must not have ended by itself. ExpectKilled() is for one that does it itself.
void Kill(pid_t child);
void ExpectKilled(pid_t child);

// SIGSTOP, and SIGCONT. Every thread of the child stands still when Stop() returns.
void Stop(pid_t child);
void Continue(pid_t child);

// Makes the connection wait for locks for a minute, as a busy timeout does. SQLite's own handler
// sleeps for up to 100 ms between two tries, and processes that never pause keep it out for as long
// as they like.
void TryLocksEachMillisecond(const Db& db);

// A T in memory that the process shares with the children that it starts from now on. T must do
// without pointers into it; atomics are fine.
template <class T>
class Shared {
 public:
  Shared() : value_(new (Map()) T()) {}
  ~Shared() { munmap(value_, sizeof(T)); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

  T& operator*() const { return *value_; }
  T* operator->() const { return value_; }

 private:
  static void* Map() {
    void* memory =
        mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return memory;
  }

  T* const value_;
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_PROCESSES_H_
