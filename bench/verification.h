// Verification: is everything there that was acknowledged, and nothing else?
#ifndef GROUPCOMMIT_BENCH_VERIFICATION_H_
#define GROUPCOMMIT_BENCH_VERIFICATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "mix.h"

namespace groupcommit::bench {

struct Verification {
  int64_t acknowledged = 0;  // Commits that should be there,
  int64_t found = 0;         // and commits that are, up to the first problem.
  std::string problem;       // The first thing that is wrong; empty if nothing is.

  bool ok() const { return problem.empty(); }
};

// Opens `path` with the default VFS (stock SQLite) and checks that its tables hold exactly the
// acknowledged transactions, each row with its own content, and that PRAGMA integrity_check says
// ok. Writer w was acknowledged its transactions 0 to acknowledged[w] - 1. Never throws SQLite's
// errors: they are the problem.
Verification VerifyDatabase(const std::string& path, const std::vector<int64_t>& acknowledged,
                            Mix mix = Mix::kInsert);

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_VERIFICATION_H_
