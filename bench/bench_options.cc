#include "bench_options.h"

#include <cstdlib>
#include <optional>
#include <string_view>

namespace groupcommit::bench {
namespace {

constexpr double kQuickSeconds = 0.2;
constexpr double kMinSeconds = 0.05;
constexpr double kMaxSeconds = 3600;

double ParseSeconds(const std::string& text) {
  char* end = nullptr;
  const double seconds = std::strtod(text.c_str(), &end);
  const bool whole = end != text.c_str() && *end == '\0';
  if (!whole || !(seconds >= kMinSeconds && seconds <= kMaxSeconds)) {
    throw UsageError("--seconds '" + text + "': expected a number from 0.05 to 3600");
  }
  return seconds;
}

// What follows "NAME="; empty if `argument` is not NAME at all.
std::optional<std::string> ValueOf(const std::string& argument, const std::string& name) {
  if (argument == name) throw UsageError(name + ": expected a value, as in " + name + "=...");
  if (!argument.starts_with(name + "=")) return {};
  std::string value = argument.substr(name.size() + 1);
  if (value.empty()) throw UsageError(name + ": expected a value, not an empty text");
  return value;
}

}  // namespace

BenchOptions ParseBenchOptions(const std::vector<std::string>& arguments) {
  BenchOptions options;
  std::optional<double> seconds;
  bool quick = false;
  bool windows = false;
  bool filtered = false;
  std::vector<std::string> given;
  for (const std::string& argument : arguments) {
    if (const auto directory = ValueOf(argument, "--dir")) {
      options.directory = *directory;
    } else if (const auto text = ValueOf(argument, "--seconds")) {
      seconds = ParseSeconds(*text);
    } else if (argument == "--quick") {
      quick = true;
    } else if (argument == "--windows") {
      windows = true;
    } else if (argument == "--help" || argument == "-h") {
      options.help = true;
    } else if (argument.starts_with("--benchmark_")) {
      filtered = filtered || argument.starts_with("--benchmark_filter=");
      given.push_back(argument);
    } else {
      throw UsageError("unknown argument '" + argument +
                       "': allowed are --dir=, --seconds=, --quick, --windows, --help and"
                       " Google Benchmark's --benchmark_...");
    }
  }
  if (quick && windows) throw UsageError("--quick and --windows: expected one of them");
  // A filter picks from everything: whoever names a benchmark wants it, if it is there.
  options.extent = quick      ? Extent::kQuick
                   : windows  ? Extent::kWindows
                   : filtered ? Extent::kAll
                              : Extent::kDefault;
  options.seconds = seconds.value_or(quick ? kQuickSeconds : 1);
  options.rest = {"--benchmark_enable_random_interleaving=true",
                  "--benchmark_counters_tabular=true"};
  if (!quick) {
    options.rest.insert(options.rest.end(),
                        {"--benchmark_repetitions=3", "--benchmark_display_aggregates_only=true"});
  }
  options.rest.insert(options.rest.end(), given.begin(), given.end());
  return options;
}

const char* BenchHelp() {
  return R"(commit_bench: commits per second and how long they take. See bench/README.md.

  --dir=DIR     where the databases are created; on a disk. Default: the current directory
  --seconds=N   length of each run, 0.05 to 3600. Default: 1, about ten minutes in all
  --quick       0.2 seconds for a few points of each kind, once: whether it works
  --windows     the policy auto and windows of a fixed length, under several loads; ten minutes in
                all

The benchmarks are called commit/MIX/STORAGE/VARIANT/connections:N. With
--benchmark_filter=REGEX those are run that it matches, of all there are; without it a selection.
--benchmark_list_tests lists them. Every run ends with a check of what is in the database.

Exit status: 0; 1 if a run failed or a committed row is missing; 2 if an argument is wrong.

Other options of Google Benchmark:

)";
}

}  // namespace groupcommit::bench
