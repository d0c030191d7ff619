// Commits per second, and how long they take: stock SQLite, the policies of groupcommit, and what
// people use instead, on the plain disk and on ones whose syncs take longer. BenchHelp() has the
// arguments, README.md what the figures mean.
//
// Repetitions of all variants are interleaved at random, so that a ratio compares figures from the
// same minutes. Each result is one run of the commit workload; its counters say more than its time.

#include <benchmark/benchmark.h>
#include <sqlite3.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench_options.h"
#include "delay_vfs.h"
#include "disk.h"
#include "grid.h"
#include "groupcommit.h"
#include "workload.h"

namespace groupcommit::bench {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

// Set by Ctrl-C: the runs that are left end at once, and the databases are removed.
std::atomic<bool> interrupted{false};

// Google Benchmark's exit status does not tell of a run that failed.
std::atomic<bool> failed{false};

// A storage to compare on: a base VFS, and groupcommit over it.
struct Disk {
  explicit Disk(const Storage& storage)
      : base(std::string("bench-") + storage.name, storage.delay, storage.kind),
        shim(std::string("groupcommit-") + storage.name) {
    if (groupcommit_register(shim.c_str(), base.name().c_str(), 0, nullptr) != SQLITE_OK) {
      throw std::runtime_error("cannot register the VFS " + shim);
    }
  }
  ~Disk() { groupcommit_unregister(shim.c_str()); }
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  DelayVfs base;
  const std::string shim;
};

using Disks = std::map<const Storage*, std::unique_ptr<Disk>>;

void SetCounters(benchmark::State& state, const WorkloadResult& result) {
  const auto set = [&state](const char* name, double value) { state.counters[name] = value; };
  set("commits_per_s", result.commits_per_second);
  if (result.syncs_per_commit) set("syncs_per_commit", *result.syncs_per_commit);
  set("p50_us", result.p50_us);
  set("p99_us", result.p99_us);
  set("p999_us", result.p999_us);
  set("max_us", result.max_us);
  set("max_was_cut", result.max_was_cut ? 1 : 0);
  set("least_served", result.least_to_most_served());
  set("cpu_us_per_commit", result.cpu_us_per_commit);
  set("switches_per_commit", result.context_switches_per_commit);
  set("wal_mb", static_cast<double>(result.largest_wal_bytes) / 1e6);
  set("busy", static_cast<double>(result.busy_errors));
  if (result.reads == 0) return;
  set("reads", static_cast<double>(result.reads));
  set("read_p50_us", result.read_p50_us);
  set("read_p99_us", result.read_p99_us);
  set("read_max_us", result.read_max_us);
}

void Fail(benchmark::State& state, const std::string& problem) {
  failed = true;
  state.SkipWithError(problem.c_str());
}

void Commit(benchmark::State& state, const Variant& variant, WorkloadOptions options,
            const std::filesystem::path& parent) {
  if (interrupted) {
    state.SkipWithError("interrupted");
    return;
  }
  const TemporaryDirectory directory(parent, "run-");
  options.path = (directory.path() / "bench.db").string();
  WorkloadResult result;
  for ([[maybe_unused]] auto _ : state) {
    result = RunWorkload(options);
    state.SetIterationTime(std::chrono::duration<double>(options.duration).count());
  }
  if (interrupted) {
    state.SkipWithError("interrupted");
    return;
  }
  const Verification verification = variant.verify(options.path, result.acknowledged, options.mix);
  if (!result.error.empty()) Fail(state, result.error);
  if (!verification.ok()) Fail(state, verification.problem);
  SetCounters(state, result);
}

void Register(const Point& point, Disk* disk, const std::filesystem::path& directory,
              double seconds) {
  const Variant& variant = *point.variant;
  WorkloadOptions options;
  options.engine = variant.engine;
  options.mix = point.mix;
  options.vfs = variant.shim ? disk->shim : disk->base.name();
  options.uri_parameters = variant.uri_parameters;
  if (variant.full_batch) {
    options.uri_parameters += "&max_batch=" + std::to_string(point.connections);
  }
  options.synchronous = variant.synchronous;
  options.connections = point.connections;
  options.duration = std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
  options.busy_timeout_ms = 60'000;
  options.disk = &disk->base;
  options.cancel = &interrupted;
  benchmark::RegisterBenchmark(NameOf(point).c_str(),
                               [&variant, options, directory](benchmark::State& state) {
                                 Commit(state, variant, options, directory);
                               })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
}

void InitializeBenchmark(const std::vector<std::string>& arguments) {
  // Google Benchmark keeps the pointers.
  static std::vector<std::string> texts;
  static std::vector<char*> pointers;
  texts = {"commit_bench"};
  texts.insert(texts.end(), arguments.begin(), arguments.end());
  pointers.reserve(texts.size());
  for (std::string& text : texts) pointers.push_back(text.data());
  int count = static_cast<int>(pointers.size());
  benchmark::Initialize(&count, pointers.data());
  if (count > 1) throw UsageError(std::string("unknown argument '") + pointers[1] + "'");
}

void CheckDirectory(const BenchOptions& options) {
  if (!std::filesystem::is_directory(options.directory)) {
    throw UsageError("--dir '" + options.directory + "': expected a directory");
  }
  if (options.extent != Extent::kQuick && IsMemoryFilesystem(options.directory)) {
    throw UsageError("--dir '" + options.directory +
                     "': it is in memory, a sync costs nothing; expected a directory on a disk");
  }
}

void HandleSignals() {
  std::signal(SIGINT, [](int number) {
    interrupted = true;
    std::signal(number, SIG_DFL);
  });
  std::signal(SIGPIPE, [](int) { interrupted = true; });
}

int RunAll(const BenchOptions& options) {
  CheckDirectory(options);
  const TemporaryDirectory directory(options.directory, "commit-bench-");
  Disks disks;
  for (const Storage& storage : Storages()) disks[&storage] = std::make_unique<Disk>(storage);
  for (const Point& point : PointsOf(options.extent)) {
    Register(point, disks.at(point.storage).get(), directory.path(), options.seconds);
  }
#ifndef GROUPCOMMIT_BENCH_ROCKSDB
  std::cerr << "commit_bench: built without RocksDB as a peer (Debian: librocksdb-dev)\n";
#endif
  HandleSignals();
  if (benchmark::RunSpecifiedBenchmarks() == 0) throw UsageError("there is no such benchmark");
  benchmark::Shutdown();
  return interrupted || failed ? kExitFailed : EXIT_SUCCESS;
}

int Main(const std::vector<std::string>& arguments) {
  try {
    const BenchOptions options = ParseBenchOptions(arguments);
    if (options.help) {
      std::cout << BenchHelp() << std::flush;
      InitializeBenchmark({"--help"});
    }
    InitializeBenchmark(options.rest);
    return RunAll(options);
  } catch (const UsageError& e) {
    std::cerr << "commit_bench: " << e.what() << "\nTry commit_bench --help.\n";
    return kExitUsage;
  } catch (const std::exception& e) {
    std::cerr << "commit_bench: " << e.what() << "\n";
    return kExitFailed;
  }
}

}  // namespace
}  // namespace groupcommit::bench

int main(int argc, char** argv) {
  return groupcommit::bench::Main(std::vector<std::string>(argv + 1, argv + argc));
}
