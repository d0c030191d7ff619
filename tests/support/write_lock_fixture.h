// WriteLockTest: a fixture for connections that wait for the write lock, with busy handlers of
// every kind.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_WRITE_LOCK_FIXTURE_H_
#define GROUPCOMMIT_TESTS_SUPPORT_WRITE_LOCK_FIXTURE_H_

#include <sqlite3.h>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/queue_of.h"
#include "support/shim_test.h"

namespace groupcommit::testing {

class WriteLockTest : public ShimTest {
 protected:
  using milliseconds = std::chrono::milliseconds;
  using Handler = std::function<bool(int)>;

  // As busy handler; it outlives the connection.
  void SetHandler(Db& db, Handler handler) {
    handlers_.push_back(std::make_unique<Handler>(std::move(handler)));
    sqlite3_busy_handler(
        db.get(), [](void* f, int n) { return static_cast<int>((*static_cast<Handler*>(f))(n)); },
        handlers_.back().get());
  }

  // Sleeps as SQLite's own handler does, but for longer.
  static bool SleepInLine(int) {
    constexpr int kMinute = 60'000'000;
    SleepInShim(kMinute);
    return true;
  }

  // Sleeps three times, and gives up then.
  static constexpr milliseconds kEachSleep{50};
  static bool SleepThreeTimes(int count) {
    if (count < 3) SleepInShim(static_cast<int>(std::chrono::microseconds(kEachSleep).count()));
    return count < 3;
  }

  // (For a moment, as it parks, a thread is not counted.)
  static void AwaitWaiting(const WriteQueue& queue, int n) {
    while (queue.waiting() < n) std::this_thread::yield();
  }

  // A commit of `db` in a thread of its own, which waits in the queue for the lock when this
  // returns. REQUIRES: somebody holds it; nobody leaves the queue.
  std::future<int> StartWaiting(Db& db, const std::string& sql) {
    const WriteQueue& queue = QueueOf(db);
    const int before = queue.waiting();
    SetHandler(db, SleepInLine);
    std::future<int> result = ExecAsync(db, sql);
    AwaitWaiting(queue, before + 1);
    return result;
  }

  std::vector<std::unique_ptr<Handler>> handlers_;
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_WRITE_LOCK_FIXTURE_H_
