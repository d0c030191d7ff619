// The command line of commit_bench.
#ifndef GROUPCOMMIT_BENCH_BENCH_OPTIONS_H_
#define GROUPCOMMIT_BENCH_BENCH_OPTIONS_H_

#include <stdexcept>
#include <string>
#include <vector>

#include "grid.h"

namespace groupcommit::bench {

struct BenchOptions {
  std::string directory = ".";
  double seconds = 1;
  Extent extent = Extent::kDefault;
  bool help = false;
  std::vector<std::string> rest;  // For Google Benchmark, our defaults first: the last one wins.
};

// A mistake of the user; what() names the argument and says what is allowed.
class UsageError : public std::runtime_error {
  using runtime_error::runtime_error;
};

// `arguments` are without the name of the program. Throws UsageError.
BenchOptions ParseBenchOptions(const std::vector<std::string>& arguments);

// The text of --help, without Google Benchmark's own options.
const char* BenchHelp();

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_BENCH_OPTIONS_H_
