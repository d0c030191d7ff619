// Plan: what a run of the laboratory does, drawn from a seed.
#ifndef GROUPCOMMIT_TESTS_LABORATORY_PLAN_H_
#define GROUPCOMMIT_TESTS_LABORATORY_PLAN_H_

#include <cstdint>
#include <string>

#include "laboratory/record.h"

namespace groupcommit::testing {

// What a run has most of.
enum class Flavour {
  kPlain,      // one process, every writer synchronous=FULL or EXTRA, or nearly so
  kMixed,      // all levels of `synchronous`
  kFailures,   // syncs fail
  kReopening,  // all close, and open again
  kAttached,   // two databases
  kProcesses,  // two or three, one of them perhaps without the shim; else syncs may fail
  kCrowd,      // many writers
  kLarge,      // pages of up to 64 kB, transactions that spill
  kLater,      // COMMIT acknowledges little: the policy interval, flushes, waits for an LSN
  kKilled,     // two to four processes, of which all but one may die at any moment
  kGuests,     // syncs fail, and another process without the shim reads and checkpoints
};
inline constexpr int kFlavours = 11;
const char* NameOf(Flavour flavour);

struct Plan {
  uint64_t seed;
  Flavour flavour;

  int page_size = 4096;
  int pad_rows = 40;  // of `pad`, of about a page each
  int writers = 4;    // connections that write, of all processes
  int commits = 100;  // attempts of all writers
  int phases = 1;     // at the end of each, all close
  int databases = 1;  // 2: one is attached to the other
  int shim_processes = 1;
  int stock_processes = 0;
  int guests = 0;         // connections of one more process, without the shim, that commit nothing
  int dying_guests = 0;   // more such processes, which may die at any moment
  bool off = false;       // some have synchronous=OFF; then nothing is checkpointed
  bool normal = false;    // some have synchronous=NORMAL
  bool barriers = false;  // some flush, wait for an LSN, or ask how far the log is durable
  bool interval = false;  // the policy interval is among those that are used
  int autocheckpoint = 20;
  bool checkpointer = false;  // a connection that checkpoints, in all modes
  int readers = 1;
  bool savepoints = false;
  bool spills = false;  // never together with savepoints: see README.md
  bool schema_changes = false;
  bool policy_changes = false;
  bool polite = false;  // wait for locks by sqlite3_busy_timeout(), not by polling
  int mmap_size = 0;
  std::string policy = "auto";
  int sync_micros = 200;
  int log_failures = 0;    // out of 1000 syncs
  int write_failures = 0;  // out of 1000 writes to the log
  bool deaths = false;     // processes are killed

  // Are all connections in one process, so that readers see nothing that is not durable?
  bool one_process() const { return shim_processes + stock_processes == 1; }
  // May a call end with an error?
  bool disk_fails() const { return log_failures > 0 || write_failures > 0; }
};

Plan DrawPlan(Flavour flavour, uint64_t seed);
// In a line.
std::string ToText(const Plan& plan);
std::string DrawPolicy(Random& random, bool interval);

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_LABORATORY_PLAN_H_
