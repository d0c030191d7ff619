#include "demo_advice.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "demo_report.h"

namespace groupcommit::bench {
namespace {

// Ratios closer to 1 than this are noise in runs of a moment.
constexpr double kNoise = 0.15;
// A flash chip takes longer than this to store anything.
constexpr double kNoSyncUs = 30;

// A writer without company has nobody to share with: whatever its runs differ by is noise.
bool IsAlone(const AdviceFigures::Run& run) { return run.connections == 1; }

double Ratio(const AdviceFigures::Run& run) {
  return run.stock_per_second > 0 ? run.groupcommit_per_second / run.stock_per_second : 0;
}

bool Gains(const AdviceFigures::Run& run) { return !IsAlone(run) && Ratio(run) > 1 + kNoise; }
bool Loses(const AdviceFigures::Run& run) { return !IsAlone(run) && Ratio(run) < 1 - kNoise; }

// Two digits: the next measurement would give others anyway.
std::string About(double rate) {
  const double unit = std::pow(10, std::max(std::floor(std::log10(std::max(rate, 1.0))) - 1, 0.0));
  return FormatCount(std::round(rate / unit) * unit);
}

std::string Times(double ratio) {
  char text[32];
  std::snprintf(text, sizeof(text), ratio < 9.95 ? "%.1f" : "%.0f", ratio);
  return text;
}

// FormatTime() counts microseconds below one millisecond.
std::string SyncTime(double us) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f ms", us / 1e3);
  return us >= 99.5 && us < 999.5 ? text : FormatTime(us);
}

// Was each COMMIT measured with its sync?
bool Waits(const AdviceFigures& figures) { return !figures.policy.starts_with("interval"); }

std::string WithConnections(const AdviceFigures::Run& run) {
  return "With " + std::to_string(run.connections) +
         (run.connections == 1 ? " connection" : " connections");
}

std::string DescribeDisk(const AdviceFigures& figures) {
  const double us = figures.disk.overwrite_p50_us;
  if (figures.in_memory) {
    return "This directory is in memory (tmpfs): a sync takes no time here, and nothing is "
           "durable.\n"
           "What follows says nothing about a disk; name one with --dir DIR.\n";
  }
  std::string text = "Your disk syncs in " + SyncTime(us) +
                     " (99%: " + SyncTime(figures.disk.overwrite_p99_us) + ").\n";
  if (us < kNoSyncUs) {
    return text +
           "That is less time than it takes to store anything: it has a protected cache, or it "
           "does\n"
           "not wait at all. There is little to gain from sharing such a sync.\n";
  }
  const double bound = 1e6 / us;
  text += "So one connection cannot commit faster than about " + About(bound) +
          "/s, whatever the software.\n";
  // It was a moment ago, and another moment decides about each run.
  constexpr double kSteady = 1.3;
  for (const AdviceFigures::Run& run : figures.runs) {
    if (!IsAlone(run)) continue;
    const double ours = Waits(figures) ? run.groupcommit_per_second : 0;
    if (std::max(run.stock_per_second, ours) <= kSteady * bound) continue;
    text +=
        "It just did: this disk's times vary from moment to moment, and with them the figures"
        " below.\n";
  }
  return text;
}

std::string DescribeRun(const AdviceFigures::Run& run) {
  const std::string rates =
      About(run.groupcommit_per_second) + "/s, stock SQLite " + About(run.stock_per_second) + "/s";
  std::string text = WithConnections(run);
  if (Gains(run)) {
    text += " expect about " + Times(Ratio(run)) + " times as many commits: " + rates + ".\n";
  } else if (Loses(run)) {
    text += " expect fewer commits: " + rates + ".\n";
  } else {
    text += " nothing is gained: " + rates + ".\n";
  }
  // Stock SQLite's busy handler polls, and may lose for long.
  constexpr double kMuchLonger = 10;
  if (!IsAlone(run) && run.stock_longest_us > kMuchLonger * run.groupcommit_longest_us) {
    text += "  The longest COMMIT took " + FormatTime(run.groupcommit_longest_us) +
            ", with stock SQLite " + FormatTime(run.stock_longest_us) + " or more.\n";
  }
  return text;
}

std::string Recommend(const AdviceFigures& figures) {
  const std::string use = "open the database with ?vfs=groupcommit and " +
                          (figures.policy == "auto" ? "leave the policy at auto (the default)"
                                                    : "the policy " + figures.policy);
  if (figures.in_memory) return "measure a disk before you decide.";
  if (!Waits(figures)) {
    return "under the policy " + figures.policy +
           " COMMIT does not wait for the disk, and a power cut takes the\n"
           "last commits: compare it with synchronous=NORMAL, and measure auto before you decide.";
  }
  if (std::all_of(figures.runs.begin(), figures.runs.end(), IsAlone)) {
    return "measure with as many connections as commit at the same time: --connections N.";
  }
  const auto first = std::find_if(figures.runs.begin(), figures.runs.end(), Gains);
  if (first == figures.runs.end()) {
    const bool loses = std::any_of(figures.runs.begin(), figures.runs.end(), Loses);
    return loses ? "stay with stock SQLite on this disk."
                 : "stay with stock SQLite, unless long waits for the write lock are your trouble.";
  }
  return use + ",\nif " + std::to_string(first->connections) +
         " connections or more commit at the same time in one process. For one writer, or where a\n"
         "power cut may take the last commits (synchronous=NORMAL), stay with stock SQLite.";
}

}  // namespace

AdviceFigures FiguresOf(const DemoReport& report) {
  AdviceFigures figures;
  figures.in_memory = IsMemoryFilesystem(report.directory);
  figures.disk = report.disk;
  figures.policy = report.policy;
  for (const DemoPair& pair : report.pairs) {
    const WorkloadResult& stock = pair.stock.result;
    const WorkloadResult& ours = pair.groupcommit.result;
    figures.runs.push_back({pair.connections, stock.commits_per_second, ours.commits_per_second,
                            stock.max_us, ours.max_us});
  }
  std::sort(figures.runs.begin(), figures.runs.end(),
            [](const auto& a, const auto& b) { return a.connections < b.connections; });
  return figures;
}

std::string Advise(const AdviceFigures& figures) {
  std::string text = DescribeDisk(figures);
  for (const AdviceFigures::Run& run : figures.runs) text += DescribeRun(run);
  return text + "\nRecommendation: " + Recommend(figures) + "\n";
}

}  // namespace groupcommit::bench
