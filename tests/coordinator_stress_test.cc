// Random schedules of the coordinator in real threads, on a device that checks what is promised.
//
// Environment: GROUPCOMMIT_TEST_SCALE multiplies the number of schedules (default 1.0, some
// seconds), GROUPCOMMIT_TEST_SEED sets the first seed. A seed fixes what each thread does, not how
// the threads meet.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "clock.h"
#include "coordinator.h"
#include "statistics.h"
#include "support/fake_log.h"
#include "support/scale.h"

namespace groupcommit::testing {
namespace {

using Random = std::mt19937_64;

bool Chance(Random& random, double probability) {
  return std::uniform_real_distribution<double>(0, 1)(random) < probability;
}

void Dawdle(Random& random) {
  if (Chance(random, 0.5)) return;
  for (uint64_t turns = random() % 16; turns > 0; turns--) std::this_thread::yield();
}

// Ends the program if a schedule does not end.
class Watchdog {
 public:
  Watchdog() : thread_([this] { Watch(); }) {}
  ~Watchdog() {
    {
      std::lock_guard lock(mutex_);
      done_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // A schedule begins.
  void Feed(uint64_t seed) {
    std::lock_guard lock(mutex_);
    seed_ = seed;
    fed_++;
    changed_.notify_all();
  }

 private:
  void Watch() {
    std::unique_lock lock(mutex_);
    while (!done_) {
      const uint64_t fed = fed_;
      if (changed_.wait_for(lock, std::chrono::seconds(60), [&] { return done_ || fed_ != fed; })) {
        continue;
      }
      std::fprintf(stderr, "hangs: GROUPCOMMIT_TEST_SEED=%llu\n",
                   static_cast<unsigned long long>(seed_));
      std::abort();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t seed_ = 0;
  uint64_t fed_ = 0;
  bool done_ = false;
  std::thread thread_;
};

// One log that several threads reach, each through a handle of its own. A failed sync is told once
// to every handle, as Linux does, or only to the one through which it was asked for.
class Device {
 public:
  Device(double failure_rate, bool tells_all)
      : failure_rate_(failure_rate), tells_all_(tells_all) {}

  class Handle final : public Coordinator::Log {
   public:
    Handle(Device* device, uint64_t seed) : device_(device), random_(seed) {}
    int Sync(Lsn from, Lsn through) override { return device_->Sync(this, from, through); }
    uint64_t SeesFailuresAfter() const override {
      return device_->tells_all_ ? sees_after_ : kSeesNone;
    }
    void set_sees_after(uint64_t sync) { sees_after_ = sync; }

   private:
    friend class Device;
    Device* const device_;
    Random random_;
    const std::thread::id owner_ = std::this_thread::get_id();
    uint64_t errors_told_ = 0;  // guarded by device_->mutex_
    uint64_t sees_after_ = 0;
  };

  // By the thread that is going to sync through it. Also closes it and opens it again.
  void Open(Handle* handle) {
    std::lock_guard lock(mutex_);
    handle->errors_told_ = errors_;
    std::erase(handles_, handle);
    handles_.push_back(handle);
  }
  void Close(Handle* handle) {
    std::lock_guard lock(mutex_);
    std::erase(handles_, handle);
  }

  void Write() {
    std::lock_guard lock(mutex_);
    model_.Write();
    written_++;
  }
  // Puts the log back to the commit `last`, which the coordinator calls durable.
  void RollBack(Lsn last) {
    std::lock_guard lock(mutex_);
    EXPECT_TRUE(model_.RollBack(last)) << "not all through " << last << " was durable";
  }
  // The commit is given up by its writer, who holds the write lock.
  void RollBackOne(Lsn lsn) {
    std::lock_guard lock(mutex_);
    model_.RollBackOne(lsn);
  }
  // Every handle is told of the failures up to now.
  void TellAll() {
    std::lock_guard lock(mutex_);
    for (Handle* handle : handles_) handle->errors_told_ = errors_;
  }
  bool Survives(Lsn lsn) {
    std::lock_guard lock(mutex_);
    return model_.Survives(lsn);
  }
  bool AllSurviveThrough(Lsn lsn) {
    std::lock_guard lock(mutex_);
    return model_.AllSurviveThrough(lsn);
  }
  void StopFailing() {
    TellAll();
    std::lock_guard lock(mutex_);
    failure_rate_ = 0;
  }

 private:
  int Sync(Handle* handle, Lsn from, Lsn through) {
    EXPECT_EQ(std::this_thread::get_id(), handle->owner_) << "somebody else's handle";
    EXPECT_LE(from, through);
    size_t begin;
    {
      std::lock_guard lock(mutex_);
      EXPECT_LE(through, written_);
      begin = model_.BeginSync();
    }
    Dawdle(handle->random_);
    const int error = EndSync(handle, begin);
    Dawdle(handle->random_);  // what has happened need not be known at once
    return error;
  }

  int EndSync(Handle* handle, size_t begin) {
    std::lock_guard lock(mutex_);
    const bool fails = Chance(handle->random_, failure_rate_);
    if (fails) errors_++;
    const bool ok = handle->errors_told_ == errors_;
    handle->errors_told_ = errors_;
    // What is told late was lost before, and nothing more is.
    if (ok || fails) model_.EndSync(begin, ok);
    for (Handle* other : handles_) {
      if (fails && !tells_all_) other->errors_told_ = errors_;
    }
    return ok ? 0 : static_cast<int>(errors_);
  }

  std::mutex mutex_;
  DurabilityModel model_;
  double failure_rate_;
  const bool tells_all_;
  Lsn written_ = 0;
  uint64_t errors_ = 0;
  std::vector<Handle*> handles_;
};

// One database, its writers and readers.
class Schedule {
 public:
  explicit Schedule(uint64_t seed)
      : seed_(seed),
        random_(seed),
        device_(Chance(random_, 0.5) ? 0 : 0.1 * Uniform(), Chance(random_, 0.5)) {
    coordinator_.SetPolicy(RandomPolicy(random_));
    if (Chance(random_, 0.5)) coordinator_.Reserve(random_() % 40);
    threads_ = 2 + (Chance(random_, 0.3) ? random_() % 31 : random_() % 7);
    steps_ = 5 + random_() % 40;
    unruly_ = Chance(random_, 0.2) ? 0.1 : 0.02;
  }

  void Run() {
    std::vector<std::thread> threads;
    for (uint64_t i = 0; i < threads_; i++) {
      threads.emplace_back([this, i] { Thread(seed_ * 1000 + i); });
    }
    for (std::thread& thread : threads) thread.join();
    CheckEnd();
  }

  int64_t failed_syncs() const { return stats_.failed_syncs.Get(); }
  int64_t overlapped_syncs() const { return stats_.overlapped_syncs.Get(); }
  int64_t commits() const { return static_cast<int64_t>(coordinator_.appended()); }

 private:
  static constexpr int kUnknown = -1;
  struct Commit {
    uint64_t failures_before = 0;  // those of before the last Resume() beneath it
    std::atomic<int> outcome{kUnknown};
    std::atomic<bool> stillborn{false};  // Append() refused it
  };
  static constexpr size_t kMostCommits = 33 * 45 * 3 + 2;

  double Uniform() { return std::uniform_real_distribution<double>(0, 1)(random_); }

  static FlushPolicy RandomPolicy(Random& random) {
    switch (random() % 4) {
      case 0:
        return FlushPolicy{};
      case 1:
        return FlushPolicy::Group(static_cast<uint32_t>(random() % 100),
                                  static_cast<uint32_t>(random() % 10));
      default:
        return FlushPolicy::Auto();
    }
  }

  void Open(Device::Handle* handle) {
    device_.Open(handle);
    handle->set_sees_after(coordinator_.SyncsBegun());
  }

  void Thread(uint64_t seed) {
    Random random(seed);
    Device::Handle handle(&device_, seed + 500);
    Open(&handle);
    for (uint64_t step = 0; step < steps_; step++) {
      if (Chance(random, unruly_)) Open(&handle);
      if (Chance(random, unruly_)) {
        coordinator_.SetPolicy(RandomPolicy(random));
      } else if (Chance(random, unruly_)) {
        SyncNow(&handle);
      } else if (Chance(random, 0.2)) {
        AskForAny(random, &handle);
      } else {
        WriteAndWait(random, &handle);
      }
    }
    device_.Close(&handle);
  }

  void WriteAndWait(Random& random, Coordinator::Log* log) {
    Lsn target = 0;
    for (uint64_t commits = Chance(random, 0.1) ? 3 : 1; commits > 0; commits--) {
      const Lsn lsn = Write(random);
      if (lsn != 0) target = lsn;
    }
    if (target == 0 || Chance(random, 0.05)) return;  // nobody has to wait
    Dawdle(random);
    Ask(target, log);
  }

  // Returns 0 if the commit failed already.
  Lsn Write(Random& random) {
    std::lock_guard lock(write_lock_);
    // As often as not, the writer does not look, or looks too early.
    if (coordinator_.failure() != 0 && Chance(random, 0.5)) Recover(random);
    const Lsn next = coordinator_.appended() + 1;
    commits_[next].failures_before = failures_before_resume_;
    const uint64_t failures_before = coordinator_.failures();
    device_.Write();
    Dawdle(random);
    const Lsn lsn = coordinator_.Append(failures_before);
    if (lsn == 0) {
      commits_[next].stillborn = true;
      device_.RollBackOne(next);
    } else {
      EXPECT_EQ(lsn, next);
    }
    complete_.store(next);
    return lsn;
  }

  // REQUIRES: write_lock_ is held.
  void Recover(Random& random) {
    device_.RollBack(coordinator_.durable());
    if (Chance(random, 0.7)) device_.TellAll();
    failures_before_resume_ = coordinator_.failures();
    EXPECT_TRUE(coordinator_.Resume());
  }

  // A reader asks for whatever it has seen.
  void AskForAny(Random& random, Coordinator::Log* log) {
    const Lsn newest = complete_.load();
    if (newest == 0) return;
    const Lsn lsn = Chance(random, 0.5) ? newest : 1 + random() % newest;
    if (commits_[lsn].stillborn) return;
    if (coordinator_.IsDurable(lsn)) {
      EXPECT_TRUE(device_.Survives(lsn)) << lsn << " was called durable";
      NoteOutcome(lsn, 0);
    }
    if (Chance(random, 0.7)) Ask(lsn, log);
  }

  void Ask(Lsn lsn, Coordinator::Log* log) {
    const int outcome = coordinator_.WaitDurable(lsn, log);
    if (outcome == 0) {
      EXPECT_TRUE(device_.Survives(lsn)) << lsn << " was acknowledged and is not durable";
    } else {
      EXPECT_GT(coordinator_.failures(), commits_[lsn].failures_before)
          << lsn << " failed with " << outcome << " although no sync did";
      EXPECT_FALSE(coordinator_.IsDurable(lsn)) << lsn;
    }
    NoteOutcome(lsn, outcome);
  }

  // However often and whoever asks, the answer is the same.
  void NoteOutcome(Lsn lsn, int outcome) {
    int known = kUnknown;
    if (!commits_[lsn].outcome.compare_exchange_strong(known, outcome)) {
      EXPECT_EQ(outcome, known) << lsn << " has two outcomes";
    }
  }

  void SyncNow(Coordinator::Log* log) {
    const Lsn complete = complete_.load();
    if (coordinator_.SyncNow(log, coordinator_.failures()) == 0) {
      EXPECT_TRUE(device_.AllSurviveThrough(complete)) << complete << " and before are not durable";
    }
  }

  // All threads have gone: nothing is left behind, and life goes on.
  void CheckEnd() {
    Device::Handle handle(&device_, seed_ + 1);
    Open(&handle);
    device_.StopFailing();
    if (coordinator_.failure() != 0) Recover(random_);
    const Lsn lsn = Write(random_);
    ASSERT_NE(lsn, 0u);
    Ask(lsn, &handle);
    EXPECT_EQ(commits_[lsn].outcome, 0);
    EXPECT_TRUE(coordinator_.AllDurable());
    for (Lsn old = 1; old <= lsn; old++) {
      if (!commits_[old].stillborn) Ask(old, &handle);
    }
  }

  const uint64_t seed_;
  Random random_;
  Device device_;
  uint64_t threads_;
  uint64_t steps_;
  double unruly_;  // how often a thread does something unusual

  SteadyClock clock_;
  Statistics stats_;
  Coordinator coordinator_{&clock_, &stats_,
                           Chance(random_, 0.7) ? SyncOverlap::Always() : SyncOverlap()};

  std::mutex write_lock_;
  uint64_t failures_before_resume_ = 0;       // guarded by write_lock_
  std::array<Commit, kMostCommits> commits_;  // by LSN
  std::atomic<Lsn> complete_{0};              // the newest commit of which it is known what it is
};

uint64_t FirstSeed() {
  const char* seed = std::getenv("GROUPCOMMIT_TEST_SEED");
  return seed == nullptr ? std::random_device()() : std::strtoull(seed, nullptr, 10);
}

TEST(CoordinatorStress, RandomSchedules) {
  const uint64_t first_seed = FirstSeed();
  const int schedules = Scaled(1500);
  std::printf("%d schedules, GROUPCOMMIT_TEST_SEED=%llu\n", schedules,
              static_cast<unsigned long long>(first_seed));
  Watchdog watchdog;
  int64_t commits = 0;
  int64_t failed_syncs = 0;
  int64_t overlapped_syncs = 0;
  for (int i = 0; i < schedules && !::testing::Test::HasFailure(); i++) {
    const uint64_t seed = first_seed + static_cast<uint64_t>(i);
    SCOPED_TRACE("GROUPCOMMIT_TEST_SEED=" + std::to_string(seed));
    watchdog.Feed(seed);
    const auto schedule = std::make_unique<Schedule>(seed);
    schedule->Run();
    commits += schedule->commits();
    failed_syncs += schedule->failed_syncs();
    overlapped_syncs += schedule->overlapped_syncs();
    if (::testing::Test::HasFailure()) {
      std::fprintf(stderr, "failed: GROUPCOMMIT_TEST_SEED=%llu\n",
                   static_cast<unsigned long long>(seed));
    }
  }
  EXPECT_GT(overlapped_syncs, 0);
  std::printf("%lld commits, %lld failed syncs, %lld overlapped ones\n",
              static_cast<long long>(commits), static_cast<long long>(failed_syncs),
              static_cast<long long>(overlapped_syncs));
}

}  // namespace
}  // namespace groupcommit::testing
