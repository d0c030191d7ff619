// A coordinator on a fake clock and a fake log, and calls of it in threads of their own.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_COORDINATOR_FIXTURE_H_
#define GROUPCOMMIT_TESTS_SUPPORT_COORDINATOR_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <utility>

#include "coordinator.h"
#include "statistics.h"
#include "support/fake_clock.h"
#include "support/fake_log.h"

namespace groupcommit::testing {

// A call in a thread of its own.
class BackgroundCall {
 public:
  explicit BackgroundCall(std::function<int()> call)
      : result_(promise_.get_future().share()), thread_([this, call = std::move(call)] {
          thread_id_ = static_cast<int>(syscall(SYS_gettid));
          promise_.set_value(call());
        }) {}
  ~BackgroundCall() {
    if (result_.wait_for(kPatience) != std::future_status::ready) {
      std::fputs("A call never returned, although nothing is held.\n", stderr);
      std::abort();  // its thread can be neither joined nor left behind
    }
    thread_.join();
  }
  BackgroundCall(const BackgroundCall&) = delete;
  BackgroundCall& operator=(const BackgroundCall&) = delete;

  static constexpr int kNeverReturned = -1;
  int Result() {
    return result_.wait_for(kPatience) == std::future_status::ready ? result_.get()
                                                                    : kNeverReturned;
  }
  bool returned() { return result_.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }
  std::thread::id thread_id() const { return thread_.get_id(); }

  // Returns when the thread sleeps: with nobody else at work, it waits for what the call waits for.
  // It makes races come out the way that is of interest; few tests rely on it to pass. False if the
  // thread does not sleep.
  bool AwaitParked() {
    for (int turns = 0; turns < 100'000 && !returned(); turns++) {
      if (thread_id_ != 0 && IsAsleep(thread_id_)) return true;
      std::this_thread::yield();
    }
    return false;
  }

 private:
  static bool IsAsleep(int thread_id) {
    std::ifstream file("/proc/self/task/" + std::to_string(thread_id) + "/stat");
    std::string stat;
    std::getline(file, stat);
    // The state follows the name, which is in parentheses.
    const size_t name_end = stat.rfind(')');
    return name_end != std::string::npos && stat.substr(name_end, 3) == ") S";
  }

  std::promise<int> promise_;
  std::shared_future<int> result_;
  std::atomic<int> thread_id_{0};
  std::thread thread_;
};

class CoordinatorFixture : public ::testing::Test {
 protected:
  ~CoordinatorFixture() override {
    log_.ReleaseAll();
    clock_.RunFree();
    calls_.clear();
  }

  // Writes a commit and numbers it.
  Lsn Commit() {
    log_.Write();
    const Lsn lsn = coordinator_.Append(coordinator_.failures());
    EXPECT_EQ(lsn, coordinator_.appended());
    return lsn;
  }

  // Waits for a commit in this thread; no acknowledgement goes unchecked.
  int Wait(Lsn lsn) {
    const int error = coordinator_.WaitDurable(lsn, &log_);
    if (error == 0) {
      EXPECT_TRUE(log_.Survives(lsn)) << lsn << " was acknowledged and is not durable";
    }
    return error;
  }
  int SyncNow() {
    const Lsn appended = coordinator_.appended();
    const int error = coordinator_.SyncNow(&log_, coordinator_.failures());
    if (error == 0) {
      EXPECT_TRUE(log_.AllSurviveThrough(appended)) << appended << " and before are not durable";
    }
    return error;
  }

  // The same in a thread of its own.
  BackgroundCall& StartWait(Lsn lsn) {
    return calls_.emplace_back([this, lsn] { return Wait(lsn); });
  }
  BackgroundCall& StartSyncNow() {
    return calls_.emplace_back([this] { return SyncNow(); });
  }

  // Returns when so many syncs have returned and the thread of `call`, whose sync is the last one
  // of them, waits for those that it overlapped.
  void AwaitOverlapping(BackgroundCall& call, int64_t returned) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (stats_.syncs.Get() < returned && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::yield();
    }
    call.AwaitParked();
  }

  // What whoever holds the write lock does after a failure.
  void Recover() {
    EXPECT_TRUE(log_.RollBack(coordinator_.durable())) << "the durable tail is not durable";
    EXPECT_TRUE(coordinator_.Resume());
  }

  // A leader waits for company and, asked to look again, goes on waiting.
  bool KeepsWaiting() {
    if (!clock_.AwaitSleeper()) return false;
    clock_.WakeEarly();
    return clock_.AwaitSleeper();
  }

  FakeClock clock_;
  Statistics stats_;
  FakeLog log_;
  Coordinator coordinator_{&clock_, &stats_};
  std::deque<BackgroundCall> calls_;
};

inline constexpr int64_t kMicrosecond = 1'000;
inline constexpr int64_t kMillisecond = 1'000'000;

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_COORDINATOR_FIXTURE_H_
