#include "sqlite_engine.h"

#include <filesystem>
#include <system_error>

#include "groupcommit.h"

namespace groupcommit::bench {
namespace {

class OwnConnection final : public Committer {
 public:
  OwnConnection(Mix mix, Connection db) : db_(std::move(db)), transaction_(mix, db_.get()) {}

  int Commit(const Row& row) override { return transaction_.Commit(row); }
  std::string error() const override { return transaction_.error(); }

 private:
  const Connection db_;
  Transaction transaction_;
};

class ConnectionEngine final : public SqliteEngine {
 public:
  using SqliteEngine::SqliteEngine;

  std::unique_ptr<Committer> NewCommitter(int) override {
    return std::make_unique<OwnConnection>(options_.mix, Connect());
  }
};

}  // namespace

SqliteEngine::SqliteEngine(const WorkloadOptions& options) : options_(options), db_(Connect()) {
  Execute(db_.get(), "PRAGMA journal_mode=WAL");
  CreateTables(options.mix, db_.get(), WritersOf(options.mix, options.connections));
}

Connection SqliteEngine::Connect() const {
  Connection db = Open(UriOf(options_.path, options_.vfs, options_.uri_parameters),
                       SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  sqlite3_busy_timeout(db.get(), options_.busy_timeout_ms);
  Execute(db.get(), "PRAGMA synchronous=" + options_.synchronous);
  return db;
}

std::optional<int64_t> SqliteEngine::CountSyncs() {
  if (options_.disk != nullptr) return options_.disk->wal_syncs();
  groupcommit_statistics statistics{};
  if (groupcommit_stats(db_.get(), nullptr, &statistics, sizeof(statistics)) != SQLITE_OK) {
    return {};
  }
  return statistics.syncs;
}

// A WAL never shrinks while a connection is open, unless told to: its size now is its largest.
int64_t SqliteEngine::LogBytes() {
  std::error_code error;
  const auto size = std::filesystem::file_size(options_.path + "-wal", error);
  return error ? 0 : static_cast<int64_t>(size);
}

std::unique_ptr<Engine> NewConnectionEngine(const WorkloadOptions& options) {
  return std::make_unique<ConnectionEngine>(options);
}

}  // namespace groupcommit::bench
