// RocksDB as a peer, where it is installed: one Put of a row for each commit, synced.
#ifndef GROUPCOMMIT_BENCH_ROCKSDB_ENGINE_H_
#define GROUPCOMMIT_BENCH_ROCKSDB_ENGINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine.h"
#include "verification.h"

namespace groupcommit::bench {

// Creates the database in the directory `options.path`. Throws std::runtime_error.
std::unique_ptr<Engine> NewRocksDbEngine(const WorkloadOptions& options);

// As VerifyDatabase().
Verification VerifyRocksDb(const std::string& path, const std::vector<int64_t>& acknowledged,
                           Mix mix);

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_ROCKSDB_ENGINE_H_
