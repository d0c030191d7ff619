// The grid of the commit benchmark: what is measured, on what, by how many connections.
#ifndef GROUPCOMMIT_BENCH_GRID_H_
#define GROUPCOMMIT_BENCH_GRID_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "delay_vfs.h"
#include "engine.h"
#include "mix.h"
#include "verification.h"

namespace groupcommit::bench {

struct Variant {
  const char* name;
  EngineFactory engine;
  Verification (*verify)(const std::string& path, const std::vector<int64_t>& acknowledged,
                         Mix mix);
  bool shim;
  const char* uri_parameters;
  const char* synchronous;
  bool only_inserts = false;  // On the plain disk: what is not SQLite does not run on our storages.
  bool full_batch =
      false;  // max_batch is the number of connections: a window ends when all have come.
};

struct Storage {
  const char* name;
  std::chrono::microseconds delay;  // What each sync of the log takes longer than the disk's own.
  DelayVfs::Kind kind = DelayVfs::Kind::kParallel;
};

struct Point {
  Mix mix;
  const Storage* storage;
  const Variant* variant;
  int connections;
};

enum class Extent : uint8_t {
  kQuick,    // Every mix and every variant but fixed windows once or twice: does it work?
  kDefault,  // The curves over the connections, and of the rest the points that tell most.
  kWindows,  // auto against windows of a fixed length, under different loads.
  kAll,      // All there is: hours, unless a filter picks from it.
};

const std::vector<Storage>& Storages();

// Each point once.
std::vector<Point> PointsOf(Extent extent);

// commit/MIX/STORAGE/VARIANT/connections:N
std::string NameOf(const Point& point);

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_GRID_H_
