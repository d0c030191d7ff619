// groupcommit-demo: what group commit does on the user's own disk. DemoHelp() says the rest.

#include <signal.h>
#include <sqlite3.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "delay_vfs.h"
#include "demo_advice.h"
#include "demo_options.h"
#include "demo_report.h"
#include "disk.h"
#include "groupcommit.h"
#include "workload.h"

namespace groupcommit::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitSignal = 128;

std::atomic<bool> interrupted{false};
std::atomic<int> interrupting_signal{0};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free,
              "a signal handler may store to nothing else");

void HandleSignals() {
  struct sigaction action {};
  action.sa_handler = [](int number) {
    interrupting_signal = number;
    interrupted = true;
  };
  // Not reset below: while the clean-up goes on, more may be written to a pipe that nobody reads.
  sigaction(SIGPIPE, &action, nullptr);
  // Whoever presses Ctrl-C twice does not want to wait for the clean-up.
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaction(number, &action, nullptr);
}

// Progress on one line of a terminal; in a pipe only the lines that stay.
class Console {
 public:
  void Live(const std::string& text) {
    if (!terminal_) return;
    std::cout << "\r\033[K" << text << std::flush;
  }

  void Line(const std::string& text) {
    if (terminal_) std::cout << "\r\033[K";
    std::cout << text << std::endl;
  }

  void Clear() { Live(""); }

 private:
  const bool terminal_ = isatty(STDOUT_FILENO) != 0;
};

// A new directory under `parent`. Throws UsageError with the reason if there can be none.
std::unique_ptr<TemporaryDirectory> MakeDirectory(const fs::path& parent, bool memory_will_do) {
  if (!memory_will_do && IsMemoryFilesystem(parent))
    throw UsageError("it is in memory (tmpfs), a sync costs nothing");
  try {
    return std::make_unique<TemporaryDirectory>(parent, "groupcommit-demo-");
  } catch (const std::system_error& e) {
    throw UsageError(e.code().message());
  }
}

std::unique_ptr<TemporaryDirectory> FindDirectory(const DemoOptions& options) {
  const std::string& wanted = options.directory;
  if (!wanted.empty()) {
    try {
      return MakeDirectory(wanted, options.advise);
    } catch (const UsageError& e) {
      throw UsageError("--dir '" + wanted + "': " + e.what() +
                       "; expected a directory on a disk that can be written to");
    }
  }
  std::vector<fs::path> candidates = {"."};
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    candidates.emplace_back(home);
  }
  candidates.emplace_back("/var/tmp");
  std::string reasons;
  for (const fs::path& candidate : candidates) {
    try {
      return MakeDirectory(candidate, false);
    } catch (const UsageError& e) {
      reasons += "\n  " + candidate.string() + ": " + e.what();
    }
  }
  throw UsageError("found no directory on a disk; name one with --dir DIR. Tried:" + reasons);
}

std::string PolicyText(const groupcommit_policy& policy) {
  char text[64];
  groupcommit_policy_format(&policy, text, sizeof(text));
  return text;
}

void RemoveDatabase(const std::string& path) {
  std::error_code ignored;
  for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(path + suffix, ignored);
}

class Demo {
 public:
  Demo(const DemoOptions& options, const fs::path& directory)
      : options_(options), directory_(directory) {
    report_.directory = directory.string();
    report_.policy = PolicyText(options.policy);
    report_.seconds = options.seconds;
    if (groupcommit_register(nullptr, disk_.name().c_str(), 0, &options.policy) != SQLITE_OK) {
      throw std::runtime_error("cannot register the VFS " GROUPCOMMIT_VFS_NAME);
    }
  }
  ~Demo() { groupcommit_unregister(nullptr); }
  Demo(const Demo&) = delete;
  Demo& operator=(const Demo&) = delete;

  // False when interrupted.
  bool Run() {
    PrintIntroduction();
    for (const int connections : options_.connections) {
      DemoPair pair{connections, {}, {}};
      if (!RunOne("stock", disk_.name(), connections, &pair.stock)) return false;
      if (!RunOne("groupcommit", GROUPCOMMIT_VFS_NAME, connections, &pair.groupcommit)) {
        return false;
      }
      report_.pairs.push_back(pair);
    }
    if (!options_.advise) PrintTables(std::cout, report_);
    PrintProof(std::cout, report_);
    if (options_.advise && ok()) std::cout << "\n" << Advise(FiguresOf(report_));
    return true;
  }

  const DemoReport& report() const { return report_; }

  bool ok() const {
    for (const DemoPair& pair : report_.pairs) {
      if (!pair.stock.ok() || !pair.groupcommit.ok()) return false;
    }
    return true;
  }

 private:
  void PrintIntroduction() {
    console_.Line("groupcommit " + std::string(groupcommit_libversion()) + ", SQLite " +
                  sqlite3_libversion() + ", policy " + report_.policy + ", WAL, synchronous=FULL");
    console_.Line("Directory: " + report_.directory +
                  (options_.keep ? " (kept)" : " (removed at the end)"));
    console_.Live("Measuring the disk ...");
    report_.disk = MeasureSyncLatency(directory_, &interrupted);
    console_.Clear();
    if (interrupted) return;
    if (!options_.advise) PrintDisk(std::cout, report_.disk);
    console_.Line("");
  }

  // False when interrupted.
  bool RunOne(const std::string& engine, const std::string& vfs, int connections, DemoRun* run) {
    if (interrupted) return false;
    const std::string title = std::to_string(connections) +
                              (connections == 1 ? " connection, " : " connections, ") + engine +
                              ": ";
    const std::string live_title = "[" + std::to_string(++runs_) + "/" +
                                   std::to_string(2 * options_.connections.size()) + "] " + title;
    WorkloadOptions workload;
    workload.path = (directory_ / (std::to_string(runs_) + "-" + engine + ".db")).string();
    workload.vfs = vfs;
    workload.connections = connections;
    workload.duration = std::chrono::nanoseconds(static_cast<int64_t>(options_.seconds * 1e9));
    workload.disk = &disk_;
    workload.cancel = &interrupted;
    workload.on_progress = [this, &live_title](const WorkloadProgress& progress) {
      const double rate = static_cast<double>(progress.commits) / progress.elapsed_seconds;
      console_.Live(live_title + (progress.commits == 0 ? "" : FormatCount(rate) + " commits/s"));
    };
    run->result = RunWorkload(workload);
    if (run->result.cancelled) return false;
    console_.Live(live_title + "verifying ...");
    run->verification = VerifyDatabase(workload.path, run->result.acknowledged);
    if (!options_.keep) RemoveDatabase(workload.path);
    console_.Line(title + FormatCount(run->result.commits_per_second) + "/s; " + Verdict(*run));
    return true;
  }

  static std::string Verdict(const DemoRun& run) {
    if (!run.result.error.empty()) return "FAILED: " + run.result.error;
    if (!run.verification.ok()) return "FAILED: " + run.verification.problem;
    const std::string rows = FormatCount(static_cast<double>(run.verification.found));
    return "all " + rows + " rows are there, integrity_check ok";
  }

  const DemoOptions& options_;
  const fs::path directory_;
  // Below both, so that their syncs are counted at the same place.
  DelayVfs disk_{"groupcommit-demo-disk"};
  Console console_;
  DemoReport report_{};
  size_t runs_ = 0;
};

// Leaves what is there as it is.
void RequireWritable(const std::string& path) {
  if (std::ofstream(path, std::ios::app)) return;
  throw UsageError("--json '" + path + "': " + std::generic_category().message(errno) +
                   "; expected a file that can be written to");
}

int RunDemo(const DemoOptions& options) {
  // First: nobody wants to hear after the measurement that it cannot be written.
  if (!options.json_path.empty()) RequireWritable(options.json_path);
  const auto directory = FindDirectory(options);
  if (options.keep) directory->Keep();
  Demo demo(options, directory->path());
  if (!demo.Run()) {
    std::cout << "\nInterrupted" << (options.keep ? "." : "; the files are removed.") << std::endl;
    return kExitSignal + interrupting_signal;
  }
  if (options.keep) std::cout << "The files are in " << directory->path().string() << "\n";
  if (!options.json_path.empty()) {
    std::ofstream json(options.json_path);
    WriteJson(json, demo.report());
    json.close();
    if (!json) throw std::runtime_error("cannot write " + options.json_path);
  }
  return demo.ok() ? EXIT_SUCCESS : kExitFailed;
}

int Main(const std::vector<std::string>& arguments) {
  try {
    const DemoOptions options = ParseDemoOptions(arguments);
    if (options.help) {
      std::cout << DemoHelp();
      return EXIT_SUCCESS;
    }
    if (options.version) {
      std::cout << "groupcommit " << groupcommit_libversion() << ", SQLite " << sqlite3_libversion()
                << "\n";
      return EXIT_SUCCESS;
    }
    HandleSignals();
    return RunDemo(options);
  } catch (const UsageError& e) {
    std::cerr << "groupcommit-demo: " << e.what() << "\nTry groupcommit-demo --help.\n";
    return kExitUsage;
  } catch (const std::exception& e) {
    std::cerr << "groupcommit-demo: " << e.what() << "\n";
    return kExitFailed;
  }
}

}  // namespace
}  // namespace groupcommit::bench

int main(int argc, char** argv) {
  return groupcommit::bench::Main(std::vector<std::string>(argv + 1, argv + argc));
}
