// The commit workload: connections that do nothing but commit one small transaction at a time.
//
// Each connection has a thread of its own, waiting for nobody but the engine. What is measured is
// COMMIT.
#ifndef GROUPCOMMIT_BENCH_WORKLOAD_H_
#define GROUPCOMMIT_BENCH_WORKLOAD_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "delay_vfs.h"
#include "engine.h"
#include "mix.h"
#include "verification.h"

namespace groupcommit::bench {

struct WorkloadProgress {
  double elapsed_seconds;
  int64_t commits;  // So far, by all connections.
};

struct WorkloadOptions {
  EngineFactory engine = NewConnectionEngine;
  Mix mix = Mix::kInsert;
  std::string path;                  // Absolute; a new database is created there.
  std::string vfs;                   // A registered VFS; empty means the default one.
  std::string uri_parameters;        // For example "flush_policy=group&max_wait_us=500".
  std::string synchronous = "FULL";  // As in PRAGMA synchronous.
  int connections = 1;               // At least 1; how many of them write depends on the mix.
  std::chrono::nanoseconds duration = std::chrono::seconds(2);
  int busy_timeout_ms = 10'000;  // SQLite's own handler: sqlite3_busy_timeout().

  // What `vfs` is or wraps; not owned. It counts the syncs of the WAL and ends the run promptly.
  // Null: groupcommit_stats() is asked, and stock's connections may take seconds to stop.
  DelayVfs* disk = nullptr;

  // Called about ten times a second on the calling thread; may be empty.
  std::function<void(const WorkloadProgress&)> on_progress;

  // Ends the run early when it becomes true; not owned, may be null.
  const std::atomic<bool>* cancel = nullptr;
};

struct WorkloadResult {
  int64_t commits = 0;  // Acknowledged before the time was up.
  double commits_per_second = 0;

  // Of every commit that began in time, also if it ended later or was given up then: the longest
  // wait may well be the one that was still going on at the end. A commit that had to be repeated
  // after SQLITE_BUSY counts from its first attempt.
  double p50_us = 0;
  double p99_us = 0;
  double p999_us = 0;
  double max_us = 0;
  bool max_was_cut = false;  // It was still waiting at the end: it would have been longer.

  // Of the connections that only read.
  int64_t reads = 0;
  double read_p50_us = 0;
  double read_p99_us = 0;
  double read_max_us = 0;

  int64_t least_served = 0;  // Commits of the connection with the fewest.
  int64_t most_served = 0;
  std::optional<double> syncs_per_commit;  // Of the WAL; empty when nobody counted.
  double cpu_us_per_commit = 0;            // Of the whole process, readers included.
  double context_switches_per_commit = 0;
  int64_t busy_errors = 0;  // Attempts that ended with SQLITE_BUSY, and were repeated.
  int64_t largest_wal_bytes = 0;

  // Commits acknowledged to each writer, late ones included: writer w has made the transactions 0
  // to acknowledged[w] - 1.
  std::vector<int64_t> acknowledged;

  std::string error;  // The first error but SQLITE_BUSY; empty if there was none.
  bool cancelled = false;

  // 1 when all connections made the same number of commits, 0 when one made none.
  double least_to_most_served() const {
    return most_served == 0 ? 0
                            : static_cast<double>(least_served) / static_cast<double>(most_served);
  }
};

// Runs the workload. All threads start together once every connection is open; opening and closing
// are not counted. Throws std::runtime_error, with SQLite's message, if the database cannot be
// set up, std::system_error if a thread cannot be started.
WorkloadResult RunWorkload(const WorkloadOptions& options);

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_WORKLOAD_H_
