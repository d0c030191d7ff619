#include "support/recorded_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "groupcommit.h"

namespace groupcommit::testing {
namespace {

const char* KindName(FileKind kind) {
  static constexpr const char* kNames[] = {"db", "wal", "journal", "other"};
  return kNames[static_cast<size_t>(kind)];
}

// The file's name, without the random part of a super-journal's.
std::string NameIn(const char* path) {
  const std::string name = std::filesystem::path(path).filename().string();
  const size_t random_part = name.find("-mj");
  return random_part == std::string::npos ? name : name.substr(0, random_part) + "-mj";
}

// The code with which a call of that kind may fail; SQLITE_OK if it cannot.
int FaultOf(Op op) {
  switch (op) {
    case Op::kOpen:
      return SQLITE_CANTOPEN;
    case Op::kDelete:
      return SQLITE_IOERR_DELETE;
    case Op::kAccess:
      return SQLITE_IOERR_ACCESS;
    case Op::kRead:
      return SQLITE_IOERR_READ;
    case Op::kWrite:
      return SQLITE_FULL;
    case Op::kTruncate:
      return SQLITE_IOERR_TRUNCATE;
    case Op::kSync:
      return SQLITE_IOERR_FSYNC;
    case Op::kFileSize:
      return SQLITE_IOERR_FSTAT;
    case Op::kLock:
      return SQLITE_IOERR_LOCK;
    case Op::kFileControl:
      return SQLITE_IOERR;
    case Op::kShmMap:
      return SQLITE_IOERR_SHMMAP;
    case Op::kShmLock:
      return SQLITE_IOERR_SHMLOCK;
    default:
      return SQLITE_OK;
  }
}

}  // namespace

RecordedSession::RecordedSession(TestStorage* storage, std::string vfs)
    : storage_(storage), vfs_(std::move(vfs)) {
  storage_->SetObserver([this](const Call& call) { Record(call); });
  storage_->SetFaultHook([this](const Call& call) { return FaultFor(call); });
}

RecordedSession::~RecordedSession() {
  dbs_.clear();
  storage_->SetObserver(nullptr);
  storage_->SetFaultHook(nullptr);
  storage_->ForgetClosedFiles();
}

void RecordedSession::Record(const Call& call) {
  constexpr int kFcntlLsns = 0x47430004;  // vfs/main_file.h
  const bool is_question =
      call.op == Op::kFileControl &&
      (call.flags == GROUPCOMMIT_FCNTL_WRITES_MAY_BE_JOINED || call.flags == kFcntlLsns);
  const bool is_of_opened =
      last_op_ == Op::kOpen && ((last_kind_ == FileKind::kWal && call.op == Op::kFileSize) ||
                                (last_kind_ == FileKind::kMainDb && call.op == Op::kFileControl &&
                                 call.flags == SQLITE_FCNTL_HAS_MOVED));
  added_by_shim_ = is_question || is_of_opened || IsOfRestart(call);
  if (added_by_shim_) return;
  last_op_ = call.op;
  last_kind_ = call.kind;
  calls_.push_back(std::string(OpName(call.op)) + " " + KindName(call.kind) + " " +
                   NameIn(call.path) + " at " + std::to_string(call.offset) + ", " +
                   std::to_string(call.amount) + ", flags " + std::to_string(call.flags));
}

// Is it of the checkpoint lock that a writer takes while it starts the log over? SQLite itself does
// not ask for it under the write lock (but together with the next one, to recover the log).
bool RecordedSession::IsOfRestart(const Call& call) {
  constexpr int kWrite = 0;
  constexpr int kCheckpoint = 1;
  if (call.op != Op::kShmLock) return false;
  const bool locks = (call.flags & SQLITE_SHM_LOCK) != 0;
  if (call.offset == kWrite) {
    if (locks) {
      writing_.insert(call.file);
    } else {
      writing_.erase(call.file);
    }
  }
  // It was refused the write lock, and gives up its snapshot.
  if (call.flags == (SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED)) writing_.erase(call.file);
  if (call.offset != kCheckpoint || call.amount != 1) return false;
  if (locks) {
    if (!writing_.contains(call.file)) return false;
    restarting_.insert(call.file);
    return true;
  }
  const auto mine = restarting_.find(call.file);
  if (mine == restarting_.end()) return false;
  restarting_.erase(mine);
  return true;
}

int RecordedSession::FaultFor(const Call& call) {
  if (added_by_shim_ || FaultOf(call.op) == SQLITE_OK) return SQLITE_OK;
  return ++counted_ == fail_at_ ? FaultOf(call.op) : SQLITE_OK;
}

void RecordedSession::Open(int i, const std::string& path_or_uri, int flags) {
  Db& db = dbs_[i];
  const int rc = db.Open(path_or_uri, vfs_.c_str(), flags);
  outcome_.push_back("open: " + std::to_string(rc));
  if (rc == SQLITE_OK) db.SetBusyTimeout(0);
}

void RecordedSession::Close(int i) {
  outcome_.push_back("close: " + std::to_string(dbs_[i].Close()));
}

void RecordedSession::Sql(int i, const std::string& sql) {
  sqlite3* db = dbs_[i].get();
  const char* rest = sql.c_str();
  while (*rest != '\0') {
    sqlite3_stmt* statement = nullptr;
    const char* start = rest;
    int rc = sqlite3_prepare_v2(db, start, -1, &statement, &rest);
    std::string text(start, rest != start ? rest : start + std::string(start).size());
    // Two sessions differ in their directories.
    if (const size_t at = text.find(dir_.path()); at != std::string::npos) {
      text.replace(at, dir_.path().size(), "DIR");
    }
    if (rc == SQLITE_OK && statement == nullptr) return;  // a space or a comment
    while (rc == SQLITE_OK) {
      rc = sqlite3_step(statement);
      if (rc != SQLITE_ROW) break;
      rc = SQLITE_OK;
      std::string row = "  ";
      for (int column = 0; column < sqlite3_column_count(statement); column++) {
        const auto* value = reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
        row += std::string(column > 0 ? "|" : "") + (value != nullptr ? value : "NULL");
      }
      outcome_.push_back(row);
    }
    sqlite3_finalize(statement);
    outcome_.push_back(text + " => " + std::to_string(rc) +
                       (rc == SQLITE_DONE ? "" : std::string(" ") + sqlite3_errmsg(db)));
    if (statement == nullptr) return;  // it could not be compiled, and where it ends is not known
  }
}

std::map<std::string, std::string> RecordedSession::Databases() const {
  std::map<std::string, std::string> databases;
  for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
    if (entry.path().extension() != ".db") continue;
    std::ifstream in(entry.path(), std::ios::binary);
    databases[entry.path().filename().string()] =
        std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return databases;
}

std::string FirstDifference(const std::vector<std::string>& expected,
                            const std::vector<std::string>& actual) {
  const auto [e, a] = std::mismatch(expected.begin(), expected.end(), actual.begin(), actual.end());
  if (e == expected.end() && a == actual.end()) return "";
  std::string text = "line " + std::to_string(e - expected.begin()) + "\n";
  constexpr long kContext = 3;
  for (long i = std::max(0L, e - expected.begin() - kContext); i < e - expected.begin(); i++) {
    text += "           " + expected[static_cast<size_t>(i)] + "\n";
  }
  for (long i = 0; i < kContext; i++) {
    if (expected.end() - e > i) text += "  expected " + e[i] + "\n";
  }
  for (long i = 0; i < kContext; i++) {
    if (actual.end() - a > i) text += "  actual   " + a[i] + "\n";
  }
  return text;
}

}  // namespace groupcommit::testing
