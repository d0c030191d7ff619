#include "demo_report.h"

#include <sqlite3.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ostream>

#include "groupcommit.h"

namespace groupcommit::bench {
namespace {

std::string Format(const char* format, double number) {
  char buffer[64];
  std::snprintf(buffer, sizeof(buffer), format, number);
  return buffer;
}

std::string FormatSyncs(const WorkloadResult& result) {
  return result.syncs_per_commit ? Format("%.2f", *result.syncs_per_commit) : "?";
}

double Ratio(const DemoPair& pair) {
  const double stock = pair.stock.result.commits_per_second;
  return stock > 0 ? pair.groupcommit.result.commits_per_second / stock : 0;
}

// Some columns under a common title.
struct ColumnGroup {
  std::string title;
  std::vector<std::string> columns;
};

using Cells = std::vector<std::string>;

constexpr size_t kColumnGap = 2;
constexpr size_t kGroupGap = 3;

// "-- title --", as wide as the columns below it.
std::string TitleLine(const std::string& title, size_t width) {
  if (title.empty() || title.size() + 2 > width) return std::string(width, ' ');
  const size_t dashes = width - title.size() - 2;
  return std::string(dashes / 2, '-') + ' ' + title + ' ' + std::string(dashes - dashes / 2, '-');
}

// Every column as wide as its widest cell, aligned to the right.
void PrintTable(std::ostream& out, const std::vector<ColumnGroup>& groups,
                const std::vector<Cells>& rows) {
  std::vector<Cells> lines(1);
  for (const ColumnGroup& group : groups) {
    lines[0].insert(lines[0].end(), group.columns.begin(), group.columns.end());
  }
  lines.insert(lines.end(), rows.begin(), rows.end());
  std::vector<size_t> widths(lines[0].size(), 0);
  for (const Cells& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }

  std::string titles;
  size_t column = 0;
  for (const ColumnGroup& group : groups) {
    size_t width = (group.columns.size() - 1) * kColumnGap;
    if (column > 0) titles += std::string(kGroupGap, ' ');
    for (size_t i = 0; i < group.columns.size(); ++i) {
      width += widths[column];
      // From here on the width includes the gap in front of the column.
      widths[column] += i > 0 ? kColumnGap : column > 0 ? kGroupGap : 0;
      ++column;
    }
    titles += TitleLine(group.title, width);
  }
  out << titles << '\n';
  for (const Cells& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      out << std::string(widths[i] - line[i].size(), ' ') << line[i];
    }
    out << '\n';
  }
}

const DemoRun* FindFailed(const DemoReport& report) {
  for (const DemoPair& pair : report.pairs) {
    for (const DemoRun* run : {&pair.stock, &pair.groupcommit}) {
      if (!run->ok()) return run;
    }
  }
  return nullptr;
}

std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof(escaped), "\\u%04x", static_cast<unsigned>(c));
      quoted += escaped;
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

void WriteRun(std::ostream& out, const char* name, int connections, const DemoRun& run) {
  const WorkloadResult& r = run.result;
  out << "    {\"engine\": " << Quoted(name) << ", \"connections\": " << connections
      << ", \"commits\": " << r.commits
      << ", \"commits_per_second\": " << Format("%.1f", r.commits_per_second)
      << ", \"syncs_per_commit\": "
      << (r.syncs_per_commit ? Format("%.4f", *r.syncs_per_commit) : "null")
      << ",\n     \"p50_us\": " << Format("%.1f", r.p50_us)
      << ", \"p99_us\": " << Format("%.1f", r.p99_us)
      << ", \"max_us\": " << Format("%.1f", r.max_us)
      << ", \"max_was_cut\": " << (r.max_was_cut ? "true" : "false")
      << ", \"least_served\": " << r.least_served << ", \"most_served\": " << r.most_served
      << ",\n     \"busy_errors\": " << r.busy_errors
      << ", \"largest_wal_bytes\": " << r.largest_wal_bytes
      << ", \"acknowledged_rows\": " << run.verification.acknowledged
      << ", \"rows_found\": " << run.verification.found
      << ", \"ok\": " << (run.ok() ? "true" : "false")
      << ", \"problem\": " << Quoted(r.error.empty() ? run.verification.problem : r.error) << "}";
}

}  // namespace

std::string FormatCount(double number) {
  std::string digits = Format("%.0f", number);
  for (size_t i = digits.size(); i > 3;) {
    i -= 3;
    digits.insert(i, 1, ',');
  }
  return digits;
}

std::string FormatTime(double microseconds) {
  if (microseconds < 999.5) return Format("%.0f us", microseconds);
  if (microseconds < 9'950) return Format("%.1f ms", microseconds / 1e3);
  if (microseconds < 999'500) return Format("%.0f ms", microseconds / 1e3);
  return Format("%.2f s", microseconds / 1e6);
}

void PrintDisk(std::ostream& out, const SyncLatency& disk) {
  // Two digits: the next measurement would give others anyway.
  double rate = 1e6 / std::max(disk.overwrite_p50_us, 0.001);
  const double unit = std::pow(10, std::max(std::floor(std::log10(rate)) - 1, 0.0));
  rate = std::round(rate / unit) * unit;
  out << "The disk alone: to write 4 KB and sync takes " << FormatTime(disk.overwrite_p50_us)
      << " (99%: " << FormatTime(disk.overwrite_p99_us) << "),\nand "
      << FormatTime(disk.append_p50_us) << " (99%: " << FormatTime(disk.append_p99_us)
      << ") where the file grows. So one connection cannot commit\nfaster than about "
      << FormatCount(rate) << "/s on this disk, whatever the software; several together\n"
      << "can, if their commits share a sync.\n";
  // A flash chip takes longer than this to store anything.
  if (disk.overwrite_p50_us < 30) {
    out << "That is less time than it takes to store anything: this disk has a protected cache,\n"
           "or it does not wait at all. There is little to gain from sharing such a sync.\n";
  }
}

void PrintTables(std::ostream& out, const DemoReport& report) {
  std::vector<Cells> rates;
  std::vector<Cells> waits;
  bool any_cut = false;
  const auto longest = [&any_cut](const WorkloadResult& result) {
    any_cut = any_cut || result.max_was_cut;
    return (result.max_was_cut ? ">" : "") + FormatTime(result.max_us);
  };
  for (const DemoPair& pair : report.pairs) {
    const WorkloadResult& stock = pair.stock.result;
    const WorkloadResult& ours = pair.groupcommit.result;
    const std::string connections = std::to_string(pair.connections);
    rates.push_back({connections, FormatCount(stock.commits_per_second),
                     FormatCount(ours.commits_per_second), Format("%.1fx", Ratio(pair)),
                     FormatSyncs(stock), FormatSyncs(ours),
                     Format("%.2f", stock.least_to_most_served()),
                     Format("%.2f", ours.least_to_most_served())});
    waits.push_back({connections, FormatTime(stock.p50_us), FormatTime(ours.p50_us),
                     FormatTime(stock.p99_us), FormatTime(ours.p99_us), longest(stock),
                     longest(ours)});
  }
  const std::vector<std::string> both = {"stock", "groupcommit"};
  out << "\nCommits per second, syncs per commit, the least-served connection's share\n\n";
  PrintTable(out,
             {{"", {"connections"}},
              {"commits/s", {"stock", "groupcommit", "ratio"}},
              {"syncs/commit", both},
              {"least/most", both}},
             rates);
  out << "\nHow long a COMMIT took, waiting for the write lock included\n\n";
  PrintTable(out, {{"", {"connections"}}, {"median", both}, {"99%", both}, {"longest", both}},
             waits);
  if (any_cut) out << "\n> still waiting when the run ended\n";
}

void PrintProof(std::ostream& out, const DemoReport& report) {
  int64_t acknowledged = 0;
  int64_t found = 0;
  int64_t busy = 0;
  for (const DemoPair& pair : report.pairs) {
    for (const DemoRun* run : {&pair.stock, &pair.groupcommit}) {
      acknowledged += run->verification.acknowledged;
      found += run->verification.found;
      busy += run->result.busy_errors;
    }
  }
  if (busy > 0) {
    out << "\n" << busy << " attempts ended with SQLITE_BUSY after the busy timeout.\n";
  }
  out << "\n"
      << 2 * report.pairs.size() << " files, " << FormatCount(static_cast<double>(acknowledged))
      << " acknowledged rows, " << FormatCount(static_cast<double>(found))
      << " found with their own content.\n";
  if (FindFailed(report) == nullptr) {
    out << "Every acknowledged row is there, and integrity_check is ok for each file.\n";
    return;
  }
  out << "FAILED:\n";
  for (const DemoPair& pair : report.pairs) {
    for (const auto& [name, run] :
         {std::pair{"stock", &pair.stock}, std::pair{"groupcommit", &pair.groupcommit}}) {
      if (run->ok()) continue;
      out << "  " << name << ", " << pair.connections << " connections: "
          << (run->result.error.empty() ? run->verification.problem : run->result.error) << "\n";
    }
  }
}

void WriteJson(std::ostream& out, const DemoReport& report) {
  out << "{\n  \"groupcommit\": " << Quoted(groupcommit_libversion())
      << ",\n  \"sqlite\": " << Quoted(sqlite3_libversion())
      << ",\n  \"directory\": " << Quoted(report.directory)
      << ",\n  \"policy\": " << Quoted(report.policy)
      << ",\n  \"seconds\": " << Format("%g", report.seconds) << ",\n  \"disk\": {"
      << "\"overwrite_p50_us\": " << Format("%.1f", report.disk.overwrite_p50_us)
      << ", \"overwrite_p99_us\": " << Format("%.1f", report.disk.overwrite_p99_us)
      << ", \"append_p50_us\": " << Format("%.1f", report.disk.append_p50_us)
      << ", \"append_p99_us\": " << Format("%.1f", report.disk.append_p99_us)
      << "},\n  \"ok\": " << (FindFailed(report) == nullptr ? "true" : "false")
      << ",\n  \"runs\": [\n";
  const char* separator = "";
  for (const DemoPair& pair : report.pairs) {
    for (const auto& [name, run] :
         {std::pair{"stock", &pair.stock}, std::pair{"groupcommit", &pair.groupcommit}}) {
      out << separator;
      WriteRun(out, name, pair.connections, *run);
      separator = ",\n";
    }
  }
  out << "\n  ]\n}\n";
}

}  // namespace groupcommit::bench
