#include "workload.h"

#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <latch>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <thread>

#include "groupcommit.h"
#include "latency_histogram.h"

namespace groupcommit::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct CloseConnection {
  void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
};
using Connection = std::unique_ptr<sqlite3, CloseConnection>;

struct FinalizeStatement {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, FinalizeStatement>;

[[noreturn]] void ThrowError(sqlite3* db, const std::string& what) {
  throw std::runtime_error(what + ": " + sqlite3_errmsg(db));
}

Connection Open(const std::string& file, int flags) {
  sqlite3* db = nullptr;
  const int rc =
      sqlite3_open_v2(file.c_str(), &db, flags | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, nullptr);
  Connection connection(db);
  if (rc != SQLITE_OK) ThrowError(db, "cannot open " + file);
  return connection;
}

void Execute(sqlite3* db, const std::string& sql) {
  if (sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) ThrowError(db, sql);
}

Statement Prepare(sqlite3* db, const char* sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(db, sql, -1, &statement, nullptr) != SQLITE_OK) ThrowError(db, sql);
  return Statement(statement);
}

std::string UriOf(const std::string& path) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string uri = "file://";
  for (const char c : path) {
    if (c == '%' || c == '?' || c == '#') {
      const auto byte = static_cast<unsigned char>(c);
      uri += {'%', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      uri += c;
    }
  }
  return uri;
}

std::string UriOf(const WorkloadOptions& options) {
  std::string parameters = options.uri_parameters;
  if (!options.vfs.empty()) {
    parameters = "vfs=" + options.vfs + (parameters.empty() ? "" : "&") + parameters;
  }
  return UriOf(options.path) + (parameters.empty() ? "" : "?" + parameters);
}

using Payload = std::array<unsigned char, 100>;

// A different content for each row, so that a page in the wrong place cannot go unnoticed.
Payload PayloadOf(int64_t writer, int64_t seq) {
  Payload payload;
  auto state = (static_cast<uint64_t>(writer) << 40) ^ static_cast<uint64_t>(seq);
  for (size_t i = 0; i < payload.size(); i += sizeof(state)) {
    // SplitMix64.
    state += 0x9e3779b97f4a7c15;
    uint64_t mixed = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    mixed ^= mixed >> 31;
    std::memcpy(&payload[i], &mixed, std::min(sizeof(mixed), payload.size() - i));
  }
  return payload;
}

// One connection and what it did. Used by one thread at a time, but for live_commits().
class alignas(64) Writer {
 public:
  Writer(const WorkloadOptions& options, int id)
      : id_(id),
        db_(Open(UriOf(options), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)),
        insert_(PrepareInsert(options)) {}

  // Commits rows until `deadline`, *cancel or an error.
  void Run(Clock::time_point deadline, const std::atomic<bool>* cancel) {
    const auto is_over = [=] { return Clock::now() >= deadline || (cancel != nullptr && *cancel); };
    while (!is_over()) {
      const auto start = Clock::now();
      const bool committed = CommitRow(is_over);
      const auto end = Clock::now();
      latencies_.Record(end - start);
      if (end > deadline) late_ = end - start;
      if (!committed) return;
      ++acknowledged_;
      if (end <= deadline) live_commits_.store(acknowledged_, std::memory_order_relaxed);
    }
  }

  // Commits acknowledged before the deadline. Any thread, also while Run() is going on.
  int64_t live_commits() const { return live_commits_.load(std::memory_order_relaxed); }

  sqlite3* db() const { return db_.get(); }
  int64_t acknowledged() const { return acknowledged_; }
  int64_t busy_errors() const { return busy_errors_; }
  const LatencyHistogram& latencies() const { return latencies_; }

  // How long the commit took that was still going on at the deadline; 0 if none was.
  std::chrono::nanoseconds late() const { return late_; }

  const std::string& error() const { return error_; }

 private:
  Statement PrepareInsert(const WorkloadOptions& options) {
    sqlite3_busy_timeout(db(), options.busy_timeout_ms);
    if (id_ == 0) {
      Execute(db(), "PRAGMA journal_mode=WAL");
      Execute(db(),
              "CREATE TABLE t(writer INTEGER, seq INTEGER, payload BLOB,"
              " PRIMARY KEY(writer, seq)) WITHOUT ROWID");
    }
    Execute(db(), "PRAGMA synchronous=" + options.synchronous);
    return Prepare(db(), "INSERT INTO t VALUES(?1, ?2, ?3)");
  }

  // True once the next row is committed; false after an error, or when the time is over and the
  // row could not be committed yet.
  template <typename IsOver>
  bool CommitRow(const IsOver& is_over) {
    const Payload payload = PayloadOf(id_, acknowledged_);
    sqlite3_bind_int64(insert_.get(), 1, id_);
    sqlite3_bind_int64(insert_.get(), 2, acknowledged_);
    sqlite3_bind_blob(insert_.get(), 3, payload.data(), static_cast<int>(payload.size()),
                      SQLITE_STATIC);
    for (;;) {
      sqlite3_step(insert_.get());
      const int rc = sqlite3_reset(insert_.get());
      if (rc == SQLITE_OK) return true;
      if ((rc & 0xff) != SQLITE_BUSY) {
        error_ = "writer " + std::to_string(id_) + ": " + sqlite3_errmsg(db());
        return false;
      }
      if (is_over()) return false;
      ++busy_errors_;
    }
  }

  const int id_;
  Connection db_;
  Statement insert_;
  std::atomic<int64_t> live_commits_{0};  // A statistic: orders nothing.
  int64_t acknowledged_ = 0;
  int64_t busy_errors_ = 0;
  LatencyHistogram latencies_;
  std::chrono::nanoseconds late_{0};
  std::string error_;
};

using Writers = std::vector<std::unique_ptr<Writer>>;

Writers OpenWriters(const WorkloadOptions& options) {
  Writers writers;
  for (int id = 0; id < options.connections; ++id) {
    writers.push_back(std::make_unique<Writer>(options, id));
  }
  return writers;
}

// The threads of a run, held at the start until Start(). Joined when the object goes, and never
// left waiting for a Start() that did not come because one of them could not be created.
class Threads {
 public:
  Threads(const Writers& writers, const std::atomic<bool>* cancel)
      : ready_(static_cast<ptrdiff_t>(writers.size())) {
    try {
      for (const auto& writer : writers) {
        threads_.emplace_back([this, cancel, w = writer.get()] {
          ready_.count_down();
          go_.wait();
          w->Run(deadline_, cancel);
        });
      }
    } catch (...) {
      go_.count_down();  // With a deadline in the past.
      Join();
      throw;
    }
  }
  ~Threads() { Join(); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  // Waits until all threads are there and lets them go. To be called once.
  Clock::time_point Start(std::chrono::nanoseconds duration) {
    ready_.wait();
    const auto start = Clock::now();
    deadline_ = start + duration;
    go_.count_down();
    return start;
  }

  // Ends although writers may sleep in the busy handler: nobody begins another commit, so each gets
  // the lock in the end. They sleep in step, though, 100 ms at a time, and few get it each time.
  void Join() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  std::latch ready_;
  std::latch go_{1};
  Clock::time_point deadline_ = Clock::time_point::min();
  std::vector<std::thread> threads_;
};

int64_t LiveCommits(const Writers& writers) {
  int64_t sum = 0;
  for (const auto& writer : writers) sum += writer->live_commits();
  return sum;
}

void ReportUntil(Clock::time_point start, Clock::time_point deadline, const Writers& writers,
                 const WorkloadOptions& options) {
  for (auto now = Clock::now(); now < deadline; now = Clock::now()) {
    if (options.cancel != nullptr && *options.cancel) return;
    if (options.on_progress) {
      options.on_progress(
          {std::chrono::duration<double>(now - start).count(), LiveCommits(writers)});
    }
    std::this_thread::sleep_until(std::min(deadline, now + std::chrono::milliseconds(100)));
  }
}

std::optional<int64_t> CountSyncs(const WorkloadOptions& options, sqlite3* db) {
  if (options.disk != nullptr) return options.disk->wal_syncs();
  groupcommit_statistics statistics{};
  if (groupcommit_stats(db, nullptr, &statistics, sizeof(statistics)) != SQLITE_OK) return {};
  return statistics.syncs;
}

// A WAL never shrinks while a connection is open, unless told to: its size now is its largest.
int64_t WalSize(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path + "-wal", error);
  return error ? 0 : static_cast<int64_t>(size);
}

WorkloadResult Summarize(const Writers& writers, const WorkloadOptions& options) {
  WorkloadResult result;
  LatencyHistogram latencies;
  std::chrono::nanoseconds latest{0};
  result.least_served = writers.front()->live_commits();
  for (const auto& writer : writers) {
    result.commits += writer->live_commits();
    result.least_served = std::min(result.least_served, writer->live_commits());
    result.most_served = std::max(result.most_served, writer->live_commits());
    result.busy_errors += writer->busy_errors();
    result.acknowledged.push_back(writer->acknowledged());
    latencies.Merge(writer->latencies());
    latest = std::max(latest, writer->late());
    if (result.error.empty()) result.error = writer->error();
  }
  result.commits_per_second =
      static_cast<double>(result.commits) / std::chrono::duration<double>(options.duration).count();
  result.p50_us = latencies.QuantileUs(0.5);
  result.p99_us = latencies.QuantileUs(0.99);
  result.max_us = latencies.max_us();
  const double latest_us = std::chrono::duration<double, std::micro>(latest).count();
  result.max_was_cut = latest_us > 0 && latest_us >= result.max_us;
  result.largest_wal_bytes = WalSize(options.path);
  result.cancelled = options.cancel != nullptr && *options.cancel;
  return result;
}

// Steps through the rows in key order; throws std::runtime_error at the first that is wrong.
void VerifyRows(sqlite3* db, const std::vector<int64_t>& acknowledged, int64_t* found) {
  const Statement select = Prepare(db, "SELECT writer, seq, payload FROM t ORDER BY writer, seq");
  const auto name = [](size_t writer, int64_t seq) {
    return "row " + std::to_string(seq) + " of writer " + std::to_string(writer);
  };
  for (size_t writer = 0; writer < acknowledged.size(); ++writer) {
    for (int64_t seq = 0; seq < acknowledged[writer]; ++seq) {
      const int rc = sqlite3_step(select.get());
      if (rc != SQLITE_ROW && rc != SQLITE_DONE) ThrowError(db, "reading the rows");
      if (rc == SQLITE_DONE ||
          sqlite3_column_int64(select.get(), 0) != static_cast<int64_t>(writer) ||
          sqlite3_column_int64(select.get(), 1) != seq) {
        throw std::runtime_error(name(writer, seq) + " was acknowledged and is not there");
      }
      ++*found;
      const Payload expected = PayloadOf(static_cast<int64_t>(writer), seq);
      const void* payload = sqlite3_column_blob(select.get(), 2);
      if (sqlite3_column_bytes(select.get(), 2) != static_cast<int>(expected.size()) ||
          std::memcmp(payload, expected.data(), expected.size()) != 0) {
        throw std::runtime_error(name(writer, seq) + " has a content that was never written");
      }
    }
  }
  const int rc = sqlite3_step(select.get());
  if (rc == SQLITE_ROW) throw std::runtime_error("there is a row that was never acknowledged");
  if (rc != SQLITE_DONE) ThrowError(db, "reading the rows");
}

void VerifyIntegrity(sqlite3* db) {
  const Statement check = Prepare(db, "PRAGMA integrity_check");
  if (sqlite3_step(check.get()) != SQLITE_ROW) ThrowError(db, "integrity_check");
  const std::string answer = reinterpret_cast<const char*>(sqlite3_column_text(check.get(), 0));
  if (answer != "ok") throw std::runtime_error("integrity_check: " + answer);
}

}  // namespace

WorkloadResult RunWorkload(const WorkloadOptions& options) {
  const Writers writers = OpenWriters(options);
  sqlite3* const any = writers.front()->db();
  const std::optional<int64_t> syncs_before = CountSyncs(options, any);
  {
    Threads threads(writers, options.cancel);
    const auto start = threads.Start(options.duration);
    ReportUntil(start, start + options.duration, writers, options);
    if (options.disk != nullptr) options.disk->SetHurry(true);
    threads.Join();
    if (options.disk != nullptr) options.disk->SetHurry(false);
  }
  // Before the connections are closed: closing the last one checkpoints and removes the WAL.
  const std::optional<int64_t> syncs_after = CountSyncs(options, any);
  WorkloadResult result = Summarize(writers, options);
  int64_t acknowledged = 0;
  for (const int64_t n : result.acknowledged) acknowledged += n;
  if (syncs_before && syncs_after && acknowledged > 0) {
    result.syncs_per_commit =
        static_cast<double>(*syncs_after - *syncs_before) / static_cast<double>(acknowledged);
  }
  return result;
}

Verification VerifyDatabase(const std::string& path, const std::vector<int64_t>& acknowledged) {
  Verification result;
  for (const int64_t n : acknowledged) result.acknowledged += n;
  try {
    const Connection db = Open(UriOf(path), SQLITE_OPEN_READWRITE);
    VerifyRows(db.get(), acknowledged, &result.found);
    VerifyIntegrity(db.get());
  } catch (const std::runtime_error& e) {
    result.problem = e.what();
  }
  return result;
}

}  // namespace groupcommit::bench
