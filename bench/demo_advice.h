// groupcommit-demo --advise: what to do, in words, from what was measured.
#ifndef GROUPCOMMIT_BENCH_DEMO_ADVICE_H_
#define GROUPCOMMIT_BENCH_DEMO_ADVICE_H_

#include <string>
#include <vector>

#include "disk.h"

namespace groupcommit::bench {

struct DemoReport;

// What the advice depends on, and nothing else.
struct AdviceFigures {
  struct Run {
    int connections;
    double stock_per_second;
    double groupcommit_per_second;
    double stock_longest_us = 0;  // of all commits
    double groupcommit_longest_us = 0;
  };

  bool in_memory = false;  // no disk at all
  SyncLatency disk;
  std::string policy;     // that was measured
  std::vector<Run> runs;  // by number of connections, ascending
};

AdviceFigures FiguresOf(const DemoReport& report);

// Some lines, each ended by a newline; the last paragraph begins with "Recommendation: ".
std::string Advise(const AdviceFigures& figures);

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_DEMO_ADVICE_H_
