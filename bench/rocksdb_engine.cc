// Empty where RocksDB is not installed; see CMakeLists.txt.
#ifdef GROUPCOMMIT_BENCH_ROCKSDB

#include "rocksdb_engine.h"

#include <rocksdb/db.h>
#include <rocksdb/statistics.h>
#include <sqlite3.h>

#include <numeric>
#include <stdexcept>

#include "workload.h"

namespace groupcommit::bench {
namespace {

// In the order of the rows.
std::string KeyOf(int64_t writer, int64_t seq) {
  std::string key;
  for (const int64_t number : {writer, seq}) {
    for (int shift = 56; shift >= 0; shift -= 8) {
      key += static_cast<char>(static_cast<uint64_t>(number) >> shift);
    }
  }
  return key;
}

rocksdb::Slice SliceOf(std::span<const unsigned char> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class RocksDbCommitter final : public Committer {
 public:
  explicit RocksDbCommitter(rocksdb::DB* db) : db_(db) { durable_.sync = true; }

  int Commit(const Row& row) override {
    status_ = db_->Put(durable_, KeyOf(row.writer, row.seq), SliceOf(row.payload));
    return status_.ok() ? SQLITE_OK : SQLITE_ERROR;
  }
  std::string error() const override { return status_.ToString(); }

 private:
  rocksdb::DB* const db_;
  rocksdb::WriteOptions durable_;
  rocksdb::Status status_;
};

std::unique_ptr<rocksdb::DB> OpenRocksDb(const rocksdb::Options& options, const std::string& path) {
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, path, &db);
  if (!status.ok()) throw std::runtime_error("cannot open " + path + ": " + status.ToString());
  return std::unique_ptr<rocksdb::DB>(db);
}

class RocksDbEngine final : public Engine {
 public:
  explicit RocksDbEngine(const std::string& path) {
    rocksdb::Options options;
    options.create_if_missing = true;
    options.error_if_exists = true;
    options.statistics = statistics_;
    db_ = OpenRocksDb(options, path);
  }

  std::unique_ptr<Committer> NewCommitter(int) override {
    return std::make_unique<RocksDbCommitter>(db_.get());
  }

  std::optional<int64_t> CountSyncs() override {
    return static_cast<int64_t>(statistics_->getTickerCount(rocksdb::WAL_FILE_SYNCED));
  }

  int64_t LogBytes() override { return 0; }

 private:
  const std::shared_ptr<rocksdb::Statistics> statistics_ = [] {
    auto statistics = rocksdb::CreateDBStatistics();
    statistics->set_stats_level(rocksdb::StatsLevel::kExceptHistogramOrTimers);
    return statistics;
  }();
  std::unique_ptr<rocksdb::DB> db_;
};

void VerifyRows(rocksdb::DB* db, Mix mix, const std::vector<int64_t>& acknowledged,
                int64_t* found) {
  const std::unique_ptr<rocksdb::Iterator> row(db->NewIterator({}));
  row->SeekToFirst();
  std::vector<unsigned char> expected(PayloadSizeOf(mix));
  for (size_t writer = 0; writer < acknowledged.size(); ++writer) {
    for (int64_t seq = 0; seq < acknowledged[writer]; ++seq, row->Next()) {
      FillPayload(static_cast<int64_t>(writer), seq, expected);
      if (!row->Valid() || row->key() != KeyOf(static_cast<int64_t>(writer), seq) ||
          row->value() != SliceOf(expected)) {
        throw std::runtime_error("row " + std::to_string(seq) + " of writer " +
                                 std::to_string(writer) + " is missing or wrong");
      }
      ++*found;
    }
  }
  if (row->Valid()) throw std::runtime_error("there is a row that was never acknowledged");
}

}  // namespace

std::unique_ptr<Engine> NewRocksDbEngine(const WorkloadOptions& options) {
  return std::make_unique<RocksDbEngine>(options.path);
}

Verification VerifyRocksDb(const std::string& path, const std::vector<int64_t>& acknowledged,
                           Mix mix) {
  Verification result;
  result.acknowledged = std::accumulate(acknowledged.begin(), acknowledged.end(), int64_t{0});
  try {
    VerifyRows(OpenRocksDb({}, path).get(), mix, acknowledged, &result.found);
  } catch (const std::runtime_error& e) {
    result.problem = e.what();
  }
  return result;
}

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_ROCKSDB
