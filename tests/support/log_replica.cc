#include "support/log_replica.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "support/wal_image.h"

namespace groupcommit::testing {
namespace {

constexpr int kBusyTimeoutMs = 1000;
constexpr char kWriteSomething[] =
    "INSERT INTO _litestream_seq(id, seq) VALUES(1, 1) ON CONFLICT(id) DO UPDATE SET seq = seq + 1";

void Prepare(Db& db) {
  db.SetBusyTimeout(kBusyTimeoutMs);
  int persist = 1;
  EXPECT_EQ(sqlite3_file_control(db.get(), "main", SQLITE_FCNTL_PERSIST_WAL, &persist), SQLITE_OK);
  db.ExecOk("PRAGMA wal_autocheckpoint=0");
}

std::string SnapshotName(const std::string& directory) { return directory + "/snapshot"; }

std::string LogName(const std::string& directory, int index) {
  return directory + "/" + std::to_string(index) + ".wal";
}

// Up to the end of the last frame that ends a commit, of those that are valid.
size_t CommittedBytes(const Bytes& log) {
  size_t frame = static_cast<size_t>(std::max(0, ValidFrames(log)));
  while (frame > 0 && GetBig32(log, LogFrameAt(log, frame - 1) + kFrameDatabaseSizeAt) == 0)
    frame--;
  return LogFrameAt(log, frame);
}

Bytes ReadAll(int file) {
  struct stat status {};
  EXPECT_EQ(fstat(file, &status), 0);
  Bytes bytes(static_cast<size_t>(status.st_size));
  EXPECT_EQ(pread(file, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  return bytes;
}

}  // namespace

LogReplica::LogReplica(const std::string& database, const std::string& into, bool others_checkpoint)
    : others_checkpoint_(others_checkpoint),
      log_name_(database + "-wal"),
      into_(into),
      file_(open(database.c_str(), O_RDONLY | O_CLOEXEC)),
      reader_(database, "unix"),
      writer_(database, "unix") {
  EXPECT_GE(file_, 0);
  Prepare(reader_);
  Prepare(writer_);
  Insist(writer_,
         "CREATE TABLE IF NOT EXISTS _litestream_seq(id INTEGER PRIMARY KEY, seq INTEGER)");
  Insist(writer_, "CREATE TABLE IF NOT EXISTS _litestream_lock(id INTEGER)");
  Insist(writer_, kWriteSomething);
  AcquireReadLock();
  BeginGeneration();
}

LogReplica::~LogReplica() {
  ReleaseReadLock();
  EXPECT_EQ(reader_.Close(), SQLITE_OK);
  EXPECT_EQ(writer_.Close(), SQLITE_OK);
  close(file_);
}

// Runs it as often as it takes: SQLite's busy handler asks a few times a second, and loses to
// writers that never pause.
void LogReplica::Insist(Db& db, const std::string& sql) {
  int rc;
  while (((rc = db.Exec(sql)) & 0xff) == SQLITE_BUSY) {
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  EXPECT_EQ(rc, SQLITE_OK) << sql << ": " << db.Error();
}

void LogReplica::AcquireReadLock() {
  Insist(reader_, "BEGIN");
  Insist(reader_, "SELECT COUNT(1) FROM _litestream_seq");
}

void LogReplica::ReleaseReadLock() { reader_.ExecOk("ROLLBACK"); }

Bytes LogReplica::LogHeader() const {
  Bytes log = ReadFile(log_name_);
  log.resize(std::min(log.size(), kLogHeaderBytes));
  return log;
}

void LogReplica::Copy() {
  const Bytes header = LogHeader();
  if (header.size() == kLogHeaderBytes && !std::equal(header.begin(), header.end(), log_.begin())) {
    FollowRestart();
  }
  CopyFrames();
}

// What is in the file behind the part that we have belongs to it if salts and checksums go on.
void LogReplica::CopyFrames() {
  const Bytes file = ReadFile(log_name_);
  largest_log_ = std::max(largest_log_, file.size());
  if (file.size() <= log_.size()) return;
  Bytes longer = log_;
  longer.insert(longer.end(), file.begin() + static_cast<ptrdiff_t>(log_.size()), file.end());
  longer.resize(CommittedBytes(longer));
  if (longer.size() <= log_.size()) return;
  log_ = std::move(longer);
  Store();
}

void LogReplica::Store() const {
  WriteFile(LogName(into_ + "/" + std::to_string(generations_), index_), log_);
}

bool LogReplica::Checkpoint(const std::string& mode) {
  Copy();
  ReleaseReadLock();
  sqlite3_stmt* statement = nullptr;
  const std::string sql = "PRAGMA wal_checkpoint(" + mode + ")";
  EXPECT_EQ(sqlite3_prepare_v2(writer_.get(), sql.c_str(), -1, &statement, nullptr), SQLITE_OK);
  EXPECT_EQ(sqlite3_step(statement), SQLITE_ROW) << writer_.Error();
  const bool busy = sqlite3_column_int(statement, 0) != 0;
  sqlite3_finalize(statement);
  AcquireReadLock();
  // So that the new log begins, if there is one, and shows its header.
  Insist(writer_, kWriteSomething);
  Copy();
  return !busy;
}

// Nobody may write meanwhile. The table stays empty.
void LogReplica::FollowRestart() {
  writer_.ExecOk("BEGIN");
  Insist(writer_, "INSERT INTO _litestream_lock(id) VALUES(1)");
  if (IsWhole()) {
    CopyFrames();
    BeginLog();
  } else {
    BeginGeneration();
  }
  writer_.ExecOk("ROLLBACK");
}

// The new log overwrites the old one from its start. If it has not come as far as our copy, all
// that the old one had beyond is still there.
bool LogReplica::IsWhole() const {
  // wal.c: walRestartHdr() counts the first of the two salts up. (Or somebody has drawn new ones:
  // we cannot tell how often.)
  const Bytes file = ReadFile(log_name_);
  const bool once = GetBig32(file, kLogSaltsAt) == GetBig32(log_, kLogSaltsAt) + 1;
  if (others_checkpoint_ && !once) return false;
  if (log_.size() <= kLogHeaderBytes || file.size() < log_.size()) return false;
  const auto last = static_cast<ptrdiff_t>(log_.size() - kFrameHeaderBytes - LogPageSize(log_));
  return std::equal(log_.begin() + last, log_.end(), file.begin() + last);
}

void LogReplica::BeginLog() {
  logs_++;
  index_++;
  log_ = LogHeader();
  EXPECT_EQ(log_.size(), kLogHeaderBytes);
  EXPECT_GE(ValidFrames(log_), 0);
  Store();
}

// The database file may be copied while others copy pages of the log into it: all of these are in
// the present log, which is applied to the copy from its start.
void LogReplica::BeginGeneration() {
  const std::string directory = into_ + "/" + std::to_string(++generations_);
  std::filesystem::create_directory(directory);
  Bytes header;
  do {
    header = LogHeader();
    WriteFile(SnapshotName(directory), ReadAll(file_));
  } while (header != LogHeader() || header.size() < kLogHeaderBytes);
  index_ = 0;
  log_ = header;
  Store();
}

void Restore(const std::string& from, const std::string& path) {
  int generation = 0;
  while (std::filesystem::exists(from + "/" + std::to_string(generation + 1))) generation++;
  ASSERT_GT(generation, 0);
  const std::string directory = from + "/" + std::to_string(generation);
  WriteFile(path, ReadFile(SnapshotName(directory)));
  for (int i = 0; std::filesystem::exists(LogName(directory, i)); i++) {
    WriteFile(path + "-wal", ReadFile(LogName(directory, i)));
    Db db(path, "unix");
    EXPECT_EQ(db.Int("PRAGMA wal_checkpoint(TRUNCATE)"), 0) << "log " << i;
  }
}

}  // namespace groupcommit::testing
