// The command line of groupcommit-demo.
#ifndef GROUPCOMMIT_BENCH_DEMO_OPTIONS_H_
#define GROUPCOMMIT_BENCH_DEMO_OPTIONS_H_

#include <stdexcept>
#include <string>
#include <vector>

#include "groupcommit.h"

namespace groupcommit::bench {

struct DemoOptions {
  std::string directory;  // Empty: find one that is on a disk.
  bool advise = false;
  // With advise: fewer and shorter runs, unless the user says otherwise.
  std::vector<int> connections = {1, 2, 4, 8, 16, 32, 64};
  double seconds = 2;
  groupcommit_policy policy = {GROUPCOMMIT_AUTO, 0, 0, 0};
  std::string json_path;  // Empty: no file.
  bool keep = false;
  bool help = false;
  bool version = false;
};

// A mistake of the user; what() names the argument and says what is allowed.
class UsageError : public std::runtime_error {
  using runtime_error::runtime_error;
};

// Throws UsageError.
DemoOptions ParseDemoOptions(const std::vector<std::string>& arguments);

// The text of --help.
const char* DemoHelp();

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_DEMO_OPTIONS_H_
