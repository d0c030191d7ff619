// The load of a run: real connections, threads and processes do what a plan says, on files that a
// record is kept of.
#ifndef GROUPCOMMIT_TESTS_LABORATORY_WORKLOAD_H_
#define GROUPCOMMIT_TESTS_LABORATORY_WORKLOAD_H_

#include <string>

#include "laboratory/plan.h"
#include "laboratory/record.h"

namespace groupcommit::testing {

inline constexpr char kShimVfs[] = "laboratory";  // over kRecorderVfs

// Names of the databases' files.
inline constexpr const char* kDatabaseFiles[] = {"main.db", "two.db"};

// Makes the databases of `plan` in the directory `dir`, then carries it out. `record` is reset
// first. REQUIRES: both VFSes are registered, this process has no other thread, and nothing open.
void RunWorkload(const Plan& plan, const std::string& dir, Record* record);

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_LABORATORY_WORKLOAD_H_
