// One connection that commits on before its earlier commits are durable: the policy interval, and
// groupcommit_wait() for the commit that is DEPTH commits old. A depth of 1 waits for each commit
// before the next one. For comparison: stock SQLite, whose depth is 1 for ever.
//
//   --dir=DIR   where files are created; on a disk. Default: the current directory
//
// and Google Benchmark's options. Names: pipeline/STORAGE/VARIANT.

#include <benchmark/benchmark.h>
#include <sqlite3.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "delay_vfs.h"
#include "directory_main.h"
#include "disk.h"
#include "groupcommit.h"
#include "mix.h"
#include "sqlite_handle.h"

namespace groupcommit::bench {
namespace {

std::filesystem::path directory;  // Set before the first benchmark begins.

struct Storage {
  const char* name;
  std::chrono::microseconds delay;
};
constexpr Storage kStorages[] = {{"disk", std::chrono::microseconds{0}},
                                 {"plus_1ms", std::chrono::microseconds{1000}},
                                 {"plus_5ms", std::chrono::microseconds{5000}}};
constexpr int kDepths[] = {1, 2, 4, 8, 16, 32, 64};
constexpr int kStock = 0;  // A depth that stands for SQLite without the shim.

void Check(int rc, const char* what) {
  if (rc != SQLITE_OK) throw std::runtime_error(std::string(what) + ": " + sqlite3_errstr(rc));
}

// Waits for the commit that is `depth` commits old; with 0 for none, with 1 for the last one.
class Window {
 public:
  Window(sqlite3* db, size_t depth) : db_(db), depth_(depth) {}

  void Committed() {
    if (depth_ == kStock) return;
    sqlite3_int64 lsn = 0;
    Check(groupcommit_commit_lsn(db_, nullptr, &lsn), "groupcommit_commit_lsn");
    outstanding_.push_back(lsn);
    if (outstanding_.size() < depth_) return;
    Check(groupcommit_wait(db_, nullptr, outstanding_.front(), -1), "groupcommit_wait");
    outstanding_.pop_front();
  }

 private:
  sqlite3* const db_;
  const size_t depth_;
  std::deque<sqlite3_int64> outstanding_;
};

void Commit(benchmark::State& state, const Storage& storage, int depth) {
  const DelayVfs disk("pipeline-disk", storage.delay);
  constexpr const char* kShim = "pipeline-shim";
  // Whoever waits syncs for all that are outstanding by then, and sooner than the interval ends.
  constexpr groupcommit_policy kInterval = {GROUPCOMMIT_INTERVAL, 0, 0,
                                            GROUPCOMMIT_MAX_DELAY_US_DEFAULT};
  Check(groupcommit_register(kShim, disk.name().c_str(), 0, &kInterval), "groupcommit_register");
  const TemporaryDirectory files(directory, "pipeline-");
  const std::string path = (files.path() / "pipeline.db").string();
  int64_t rows = 0;
  {
    const Connection db = Open(UriOf(path, depth == kStock ? disk.name() : kShim),
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    Execute(db.get(), "PRAGMA journal_mode=WAL");
    Execute(db.get(), "PRAGMA synchronous=FULL");
    CreateTables(Mix::kInsert, db.get(), 1);
    Transaction transaction(Mix::kInsert, db.get());
    Window window(db.get(), static_cast<size_t>(depth));
    std::array<unsigned char, 100> payload{};
    const int64_t syncs = disk.wal_syncs();
    for ([[maybe_unused]] auto _ : state) {
      Check(transaction.Commit({0, rows++, payload}), "COMMIT");
      window.Committed();
    }
    state.SetItemsProcessed(rows);
    state.counters["syncs_per_commit"] =
        static_cast<double>(disk.wal_syncs() - syncs) / static_cast<double>(rows);
  }
  Check(groupcommit_unregister(kShim), "groupcommit_unregister");
  const Connection stock = Open(UriOf(path), SQLITE_OPEN_READONLY);
  const Statement count = Prepare(stock.get(), "SELECT count(*) FROM t");
  if (sqlite3_step(count.get()) != SQLITE_ROW || sqlite3_column_int64(count.get(), 0) != rows) {
    state.SkipWithError("rows are missing");
  }
}

void Register() {
  for (const Storage& storage : kStorages) {
    const auto add = [&storage](const std::string& variant, int depth) {
      const std::string name = std::string("pipeline/") + storage.name + "/" + variant;
      benchmark::RegisterBenchmark(name.c_str(), [&storage, depth](benchmark::State& state) {
        Commit(state, storage, depth);
      })->UseRealTime();
    };
    add("stock_full", kStock);
    for (const int depth : kDepths) add("depth:" + std::to_string(depth), depth);
  }
}

}  // namespace
}  // namespace groupcommit::bench

int main(int argc, char** argv) {
  groupcommit::bench::Register();
  return groupcommit::bench::RunInDirectory(argc, argv, "pipeline_bench",
                                            &groupcommit::bench::directory);
}
