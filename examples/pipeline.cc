// pipeline.cc -- one thread that commits on while its earlier commits become durable.
//
// A queue's broker, say: it stores each message in a transaction of its own, and confirms it to the
// sender once it is durable. With the policy "interval" COMMIT returns at once. groupcommit_wait()
// returns when a commit is durable, and makes all durable that have returned by then; so 32
// messages that are stored, but not yet confirmed, share a sync. Messages that nobody waits for are
// durable after 10 ms at the latest.
//
//   build/examples/pipeline          a new database in a temporary directory, removed at the end
//   build/examples/pipeline FILE     a new database FILE, which is kept
#include <groupcommit.h>
#include <sqlite3.h>
#include <stdlib.h>

#include <cstdio>
#include <deque>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace {

constexpr int kMessages = 1000;
constexpr size_t kMostUnconfirmed = 32;

void Check(int rc, const char* what) {
  if (rc != SQLITE_OK) throw std::runtime_error(std::string(what) + ": " + sqlite3_errstr(rc));
}

// Messages that are stored, but whose senders have not been told so.
class Unconfirmed {
 public:
  explicit Unconfirmed(sqlite3* db) : db_(db) {}

  void Add(int message) {
    sqlite3_int64 lsn = 0;
    Check(groupcommit_commit_lsn(db_, "main", &lsn), "groupcommit_commit_lsn");
    stored_.push_back({message, lsn});
    if (stored_.size() > kMostUnconfirmed) ConfirmOldest();
  }
  void ConfirmAll() {
    while (!stored_.empty()) ConfirmOldest();
  }
  int confirmed() const { return confirmed_; }

 private:
  struct Stored {
    int message;
    sqlite3_int64 lsn;  // of the commit that stored it
  };

  void ConfirmOldest() {
    Check(groupcommit_wait(db_, "main", stored_.front().lsn, /*msTimeout=*/-1), "groupcommit_wait");
    confirmed_++;  // here the sender of stored_.front().message would get its answer
    stored_.pop_front();
  }

  sqlite3* const db_;
  std::deque<Stored> stored_;
  int confirmed_ = 0;
};

void Run(sqlite3* db) {
  Check(sqlite3_exec(db,
                     "PRAGMA journal_mode=WAL;"
                     "PRAGMA groupcommit_policy='interval(max_delay_us=10000)';"
                     "CREATE TABLE message(id INTEGER PRIMARY KEY, body TEXT NOT NULL)",
                     nullptr, nullptr, nullptr),
        "set-up");
  sqlite3_stmt* insert = nullptr;
  Check(sqlite3_prepare_v2(db, "INSERT INTO message VALUES(?, 'hello')", -1, &insert, nullptr),
        "prepare");
  Unconfirmed unconfirmed(db);
  for (int message = 1; message <= kMessages; message++) {
    sqlite3_bind_int(insert, 1, message);
    sqlite3_step(insert);
    Check(sqlite3_reset(insert), "INSERT");
    unconfirmed.Add(message);
  }
  sqlite3_finalize(insert);
  unconfirmed.ConfirmAll();

  groupcommit_statistics stats = {};
  Check(groupcommit_stats(db, "main", &stats, sizeof(stats)), "groupcommit_stats");
  std::printf("confirmed  %d\n", unconfirmed.confirmed());
  std::printf("commits    %lld\n", stats.commits);
  std::printf("syncs      %lld\n", stats.syncs);
}

}  // namespace

int main(int argc, char** argv) {
  std::string directory = std::filesystem::temp_directory_path() / "groupcommit-XXXXXX";
  if (argc <= 1 && mkdtemp(directory.data()) == nullptr) return 1;
  const std::string path = argc > 1 ? argv[1] : directory + "/queue.db";
  int status = 0;
  sqlite3* db = nullptr;
  try {
    Check(groupcommit_register(nullptr, nullptr, 0, nullptr), "groupcommit_register");
    Check(sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                          GROUPCOMMIT_VFS_NAME),
          path.c_str());
    Run(db);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "pipeline: %s\n", error.what());
    status = 1;
  }
  sqlite3_close(db);
  std::error_code ignored;
  if (argc <= 1) std::filesystem::remove_all(directory, ignored);
  return status;
}
