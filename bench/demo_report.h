// What groupcommit-demo prints and writes.
#ifndef GROUPCOMMIT_BENCH_DEMO_REPORT_H_
#define GROUPCOMMIT_BENCH_DEMO_REPORT_H_

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "disk.h"
#include "workload.h"

namespace groupcommit::bench {

struct DemoRun {
  WorkloadResult result;
  Verification verification;

  bool ok() const { return result.error.empty() && verification.ok(); }
};

struct DemoPair {
  int connections;
  DemoRun stock;
  DemoRun groupcommit;
};

struct DemoReport {
  std::string directory;
  std::string policy;
  double seconds;
  SyncLatency disk;
  std::vector<DemoPair> pairs;
};

// "12,345": rounded, with thousands separators.
std::string FormatCount(double number);

// "130 us", "2.3 ms" or "1.20 s".
std::string FormatTime(double microseconds);

// What to expect of the disk, in words.
void PrintDisk(std::ostream& out, const SyncLatency& disk);

// The tables: one of rates, one of waits.
void PrintTables(std::ostream& out, const DemoReport& report);

// What was verified, and everything that went wrong.
void PrintProof(std::ostream& out, const DemoReport& report);

void WriteJson(std::ostream& out, const DemoReport& report);

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_DEMO_REPORT_H_
