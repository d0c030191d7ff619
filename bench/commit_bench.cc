// Commits per second: stock SQLite and the policies of groupcommit, on the plain disk and on one
// whose syncs take longer. Run with --help for Google Benchmark's options, and with
//
//   --dir=DIR      where the databases are created; on a disk. Default: the current directory
//   --seconds=N    length of each run. Default: 1, about six minutes in all
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
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "delay_vfs.h"
#include "disk.h"
#include "groupcommit.h"
#include "workload.h"

namespace groupcommit::bench {
namespace {

// Set by Ctrl-C: the runs that are left end at once, and the databases are removed.
std::atomic<bool> interrupted{false};

// A disk to compare on: a base VFS, and groupcommit over it.
struct Disk {
  Disk(const std::string& label, std::chrono::microseconds delay)
      : name(label), base("bench-" + label, delay), shim("groupcommit-" + label) {
    if (groupcommit_register(shim.c_str(), base.name().c_str(), 0, nullptr) != SQLITE_OK) {
      throw std::runtime_error("cannot register the VFS " + shim);
    }
  }
  ~Disk() { groupcommit_unregister(shim.c_str()); }
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  const std::string name;
  DelayVfs base;
  const std::string shim;
};

struct Variant {
  const char* name;
  bool shim;
  const char* uri_parameters;
  const char* synchronous;
};

// NORMAL does not sync at a commit: what a commit costs without durability.
constexpr Variant kVariants[] = {
    {"stock_full", false, "", "FULL"},
    {"stock_normal", false, "", "NORMAL"},
    {"on_each_flush", true, "flush_policy=on_each_flush", "FULL"},
    {"group", true, "flush_policy=group", "FULL"},
    {"auto", true, "flush_policy=auto", "FULL"},
};

void RemoveDatabase(const std::string& path) {
  std::error_code ignored;
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix, ignored);
}

void Commit(benchmark::State& state, const WorkloadOptions& options) {
  WorkloadResult result;
  if (interrupted) state.SkipWithError("interrupted");
  for ([[maybe_unused]] auto _ : state) {
    RemoveDatabase(options.path);
    result = RunWorkload(options);
    state.SetIterationTime(std::chrono::duration<double>(options.duration).count());
  }
  if (interrupted) return;
  const Verification verification = VerifyDatabase(options.path, result.acknowledged);
  RemoveDatabase(options.path);
  if (!result.error.empty()) state.SkipWithError(result.error.c_str());
  if (!verification.ok()) state.SkipWithError(verification.problem.c_str());
  state.counters["commits_per_s"] = result.commits_per_second;
  state.counters["syncs_per_commit"] = result.syncs_per_commit.value_or(0);
  state.counters["p50_us"] = result.p50_us;
  state.counters["p99_us"] = result.p99_us;
  state.counters["max_us"] = result.max_us;
  state.counters["least_served"] = result.least_to_most_served();
  state.counters["busy"] = static_cast<double>(result.busy_errors);
  state.counters["wal_mb"] = static_cast<double>(result.largest_wal_bytes) / 1e6;
}

void Register(Disk& disk, const Variant& variant, int connections,
              const std::filesystem::path& directory, double seconds) {
  WorkloadOptions options;
  options.path = (directory / "bench.db").string();
  options.vfs = variant.shim ? disk.shim : disk.base.name();
  options.uri_parameters = variant.uri_parameters;
  options.synchronous = variant.synchronous;
  options.connections = connections;
  options.duration = std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
  options.busy_timeout_ms = 60'000;
  options.disk = &disk.base;
  options.cancel = &interrupted;
  const std::string name =
      "commit/" + disk.name + "/" + variant.name + "/connections:" + std::to_string(connections);
  benchmark::RegisterBenchmark(name.c_str(), Commit, options)
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
}

struct Flags {
  std::string directory = ".";
  double seconds = 1;
  std::vector<char*> rest;  // For Google Benchmark; what comes later on the line wins.
};

Flags ParseFlags(int argc, char** argv) {
  static char repetitions[] = "--benchmark_repetitions=3";
  static char interleaving[] = "--benchmark_enable_random_interleaving=true";
  static char tabular[] = "--benchmark_counters_tabular=true";
  static char aggregates[] = "--benchmark_display_aggregates_only=true";
  Flags flags;
  flags.rest = {argv[0], repetitions, interleaving, tabular, aggregates};
  constexpr std::string_view kDir = "--dir=";
  constexpr std::string_view kSeconds = "--seconds=";
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with(kDir)) {
      flags.directory = argument.substr(kDir.size());
    } else if (argument.starts_with(kSeconds)) {
      flags.seconds = std::strtod(argv[i] + kSeconds.size(), nullptr);
    } else {
      flags.rest.push_back(argv[i]);
    }
  }
  return flags;
}

int Main(int argc, char** argv) {
  Flags flags = ParseFlags(argc, argv);
  int rest = static_cast<int>(flags.rest.size());
  benchmark::Initialize(&rest, flags.rest.data());
  if (benchmark::ReportUnrecognizedArguments(rest, flags.rest.data())) return EXIT_FAILURE;
  if (!(flags.seconds >= 0.1)) {
    std::cerr << "commit_bench: --seconds: expected a number from 0.1\n";
    return EXIT_FAILURE;
  }
  if (IsMemoryFilesystem(flags.directory)) {
    std::cerr << "commit_bench: '" << flags.directory
              << "' is in memory, a sync costs nothing; name a directory on a disk with --dir=\n";
    return EXIT_FAILURE;
  }
  const TemporaryDirectory directory(flags.directory, "commit-bench-");
  Disk disks[] = {{"disk", std::chrono::microseconds{0}},
                  {"plus_1ms", std::chrono::milliseconds{1}},
                  {"plus_5ms", std::chrono::milliseconds{5}}};
  for (Disk& disk : disks) {
    for (const Variant& variant : kVariants) {
      for (int connections = 1; connections <= 64; connections *= 2) {
        Register(disk, variant, connections, directory.path(), flags.seconds);
      }
    }
  }
  std::signal(SIGINT, [](int number) {
    interrupted = true;
    std::signal(number, SIG_DFL);
  });
  std::signal(SIGPIPE, [](int) { interrupted = true; });
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return interrupted ? EXIT_FAILURE : EXIT_SUCCESS;
}

}  // namespace
}  // namespace groupcommit::bench

int main(int argc, char** argv) {
  try {
    return groupcommit::bench::Main(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << "commit_bench: " << e.what() << "\n";
    return EXIT_FAILURE;
  }
}
