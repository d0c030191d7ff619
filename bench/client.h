// Client: a thread of the application that commits rows, one after the other.
#ifndef GROUPCOMMIT_BENCH_CLIENT_H_
#define GROUPCOMMIT_BENCH_CLIENT_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine.h"
#include "latency_histogram.h"
#include "mix.h"

namespace groupcommit::bench {

using Clock = std::chrono::steady_clock;

// When a run is over: at its deadline, or when it is cancelled.
struct End {
  Clock::time_point deadline;
  const std::atomic<bool>* cancel;  // May be null.

  bool IsHere() const { return Clock::now() >= deadline || (cancel != nullptr && *cancel); }
};

// Used by one thread at a time, but for live_commits().
class alignas(64) Client {
 public:
  Client(int id, Mix mix, std::unique_ptr<Committer> committer)
      : id_(id), mix_(mix), payload_(PayloadSizeOf(mix)), committer_(std::move(committer)) {}

  // Commits rows until the end or an error.
  void Run(const End& end) {
    const auto begin = Clock::now();
    while (!end.IsHere()) {
      const auto start = Clock::now();
      const bool committed = CommitRow(end);
      const auto now = Clock::now();
      latencies_.Record(now - start);
      if (now > end.deadline) late_ = now - start;
      if (!committed) return;
      ++acknowledged_;
      if (now <= end.deadline) live_commits_.store(acknowledged_, std::memory_order_release);
      const auto pause = PauseOf(mix_, id_, now - begin);
      if (pause.count() > 0) std::this_thread::sleep_for(pause);
    }
  }

  // Commits acknowledged before the deadline. Any thread, also while Run() is going on. Acquire:
  // what this many rows say may be expected of the database from now on.
  int64_t live_commits() const { return live_commits_.load(std::memory_order_acquire); }

  int64_t acknowledged() const { return acknowledged_; }
  int64_t busy_errors() const { return busy_errors_; }
  const LatencyHistogram& latencies() const { return latencies_; }

  // How long the commit took that was still going on at the deadline; 0 if none was.
  std::chrono::nanoseconds late() const { return late_; }

  const std::string& error() const { return error_; }

 private:
  // True once the next row is committed; false after an error, or when the time is over and the
  // row could not be committed yet.
  bool CommitRow(const End& end) {
    FillPayload(id_, acknowledged_, payload_);
    const Row row{id_, acknowledged_, payload_};
    for (;;) {
      const int rc = committer_->Commit(row);
      if (rc == SQLITE_OK) return true;
      if ((rc & 0xff) != SQLITE_BUSY) {
        error_ = "writer " + std::to_string(id_) + ": " + committer_->error();
        return false;
      }
      if (end.IsHere()) return false;
      ++busy_errors_;
    }
  }

  const int id_;
  const Mix mix_;
  std::vector<unsigned char> payload_;
  const std::unique_ptr<Committer> committer_;
  std::atomic<int64_t> live_commits_{0};
  int64_t acknowledged_ = 0;
  int64_t busy_errors_ = 0;
  LatencyHistogram latencies_;
  std::chrono::nanoseconds late_{0};
  std::string error_;
};

using Clients = std::vector<std::unique_ptr<Client>>;

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_CLIENT_H_
