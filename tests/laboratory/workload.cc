#include "laboratory/workload.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "groupcommit.h"
#include "laboratory/inspect.h"
#include "laboratory/ledger.h"
#include "laboratory/recorder.h"
#include "support/sqlite_helpers.h"

namespace groupcommit::testing {
namespace {

constexpr const char* kSchemas[] = {"main", "two"};
constexpr int kFull = 2;  // PRAGMA synchronous
constexpr int kPatienceMillis = 60'000;

// Waits for locks by asking often, so that a run with many connections is short.
int Poll(void*, int count) {
  constexpr int kMicros = 100;
  usleep(kMicros);
  return count < kPatienceMillis * (1000 / kMicros) ? 1 : 0;
}

// What commits of a process to one database have told it. Any thread.
class Told {
 public:
  void Add(CommitId id, bool committed) {
    const std::lock_guard lock(mutex_);
    (committed ? known_.acknowledged : known_.gone).insert(id);
  }
  Knowledge UntilNow() {
    const std::lock_guard lock(mutex_);
    return known_;
  }

 private:
  std::mutex mutex_;
  Knowledge known_;
};

// One of the processes of a run.
class Process {
 public:
  Process(const Plan& plan, const std::string& dir, Record* record, int number)
      : plan_(plan), dir_(dir), record_(record), number_(number) {}

  // Others are to work meanwhile.
  void RunGuests() {
    std::vector<std::thread> threads;
    for (int i = 0; i < plan_.guests; i++) {
      threads.emplace_back([this, i] { Writer(this, kFirstGuest + i).VisitWhileOthersWork(); });
    }
    for (std::thread& thread : threads) thread.join();
  }

  void Run() {
    for (int phase = 0; phase < plan_.phases; phase++) {
      phase_ = phase;
      keeps_log_ = Random(Mix(plan_.seed) + static_cast<uint64_t>(phase)).OneIn(2);
      std::vector<std::thread> threads;
      const int processes = plan_.shim_processes + plan_.stock_processes;
      for (int i = number_; i < plan_.writers; i += processes) {
        working_++;
        threads.emplace_back([this, i] {
          Writer(this, i).Work();
          working_--;
        });
      }
      for (int i = 0; plan_.one_process() && i < plan_.readers; i++) {
        threads.emplace_back([this, i] { Writer(this, plan_.writers + i).ReadWhileOthersWork(); });
      }
      if (number_ == 0 && plan_.checkpointer) {
        threads.emplace_back(
            [this] { Writer(this, plan_.writers + plan_.readers).CheckpointWhileOthersWork(); });
      }
      for (std::thread& thread : threads) thread.join();
    }
  }

 private:
  static constexpr int kFirstGuest = 100;

  // One connection, and its thread.
  class Writer {
   public:
    Writer(Process* process, int number)
        : process_(*process),
          plan_(process->plan_),
          record_(process->record_),
          number_(number),
          stock_(process->number_ >= plan_.shim_processes),
          random_(Mix(plan_.seed * 128 + static_cast<uint64_t>(number)) +
                  static_cast<uint64_t>(process->phase_) * 1'000'000) {}

    void Work() {
      Open(DrawLevel());
      const int share = std::max(1, plan_.commits / plan_.writers / plan_.phases);
      for (int i = 0; i < share && is_open_; i++) {
        Attempt(process_.phase_ * share + i + 1);
        Amuse();
        if (plan_.barriers && random_.OneIn(plan_.flavour == Flavour::kLater ? 3 : 8)) Barrier();
      }
      Close();
    }

    void ReadWhileOthersWork() {
      Open(kFull);
      while (process_.working_ > 0 && is_open_) {
        if (random_.OneIn(4)) HoldSnapshot();
        See();
        if (random_.OneIn(8)) Look();
        if (plan_.barriers && random_.OneIn(2)) Barrier();
        if (random_.OneIn(2)) usleep(static_cast<unsigned>(random_.Below(200)));
      }
    }

    void CheckpointWhileOthersWork() {
      Open(kFull);
      sqlite3_busy_timeout(db_.get(), 20);
      while (process_.working_ > 0 && is_open_) {
        Checkpoint();
        usleep(static_cast<unsigned>(random_.Below(10'000)));
      }
    }

    // A guest: reads, keeps snapshots for a while, and checkpoints.
    void VisitWhileOthersWork() {
      while (!record_->IsOver()) {
        if (!is_open_ || random_.OneIn(10)) {
          Open(kFull);
          sqlite3_busy_timeout(db_.get(), 5);
        }
        if (is_open_ && random_.OneIn(3)) Checkpoint();
        if (is_open_ && random_.OneIn(2)) {
          db_.Exec("BEGIN; SELECT count(*) FROM t");
          usleep(static_cast<unsigned>(random_.Below(3'000)));
          db_.Exec("SELECT sum(stamp) FROM pad; COMMIT");
          if (sqlite3_get_autocommit(db_.get()) == 0) db_.Exec("ROLLBACK");
        }
        usleep(static_cast<unsigned>(random_.Below(1'000)));
      }
      Close();
    }

   private:
    // A SELECT of which one row has been read, while other statements of the connection run.
    class OpenStatement {
     public:
      // None if `db` is null.
      explicit OpenStatement(sqlite3* db) {
        if (db == nullptr) return;
        const char* sql = "SELECT seq FROM t ORDER BY seq";
        if (sqlite3_prepare_v2(db, sql, -1, &statement_, nullptr) == SQLITE_OK) Step();
      }
      ~OpenStatement() { sqlite3_finalize(statement_); }
      OpenStatement(const OpenStatement&) = delete;
      OpenStatement& operator=(const OpenStatement&) = delete;

      bool is_open() const { return statement_ != nullptr; }
      // Returns what is wrong, or "". An error may end it.
      std::string ReadToTheEnd() {
        while (is_row_ && due_ == seq_) Step();
        return !is_row_ ? ""
                        : "an open statement reads " + std::to_string(seq_) + " instead of " +
                              std::to_string(due_);
      }

     private:
      void Step() {
        due_++;
        is_row_ = sqlite3_step(statement_) == SQLITE_ROW;
        if (is_row_) seq_ = sqlite3_column_int64(statement_, 0);
      }

      sqlite3_stmt* statement_ = nullptr;
      bool is_row_ = false;
      int64_t seq_ = 0;
      int64_t due_ = 0;
    };

    // The level of `synchronous` that this writer commits with.
    int DrawLevel() {
      const int low = plan_.off ? 0 : plan_.normal ? 1 : kFull;
      return random_.OneIn(2) ? kFull : random_.Between(low, kFull + 1);
    }

    // What a COMMIT that returns tells: under the policy interval nothing.
    int PromisedLevel() const { return plan_.interval && !stock_ ? std::min(level_, 1) : level_; }

    void Open(int level) {
      Close();
      level_ = level;
      int rc = OpenOnce();
      for (int i = 0; rc != SQLITE_OK && plan_.disk_fails() && i < 20; i++) rc = OpenOnce();
      is_open_ = rc == SQLITE_OK;
      Expect(rc, "open");
      for (int i = 0; i < plan_.databases; i++) since_[i] = ledger(i).end();
    }

    // Under the policy interval, a connection that is closed leaves none of its commits behind.
    // (But not where nobody knows what the policy was, or the disk fails.)
    void Close() {
      Expect(db_.Close(), "close");
      for (int i = 0; i < plan_.databases; i++) {
        if (is_left_[i] && !plan_.policy_changes && !plan_.disk_fails()) Survive(i, own_[i]);
        own_[i].clear();
        last_lsn_[i] = 0;
        is_left_[i] = false;
      }
    }

    int OpenOnce() {
      int rc = db_.Open(process_.dir_ + "/" + kDatabaseFiles[0], stock_ ? kRecorderVfs : kShimVfs,
                        SQLITE_OPEN_READWRITE);
      if (rc == SQLITE_OK) {
        if (plan_.polite) {
          db_.SetBusyTimeout(kPatienceMillis);
        } else {
          sqlite3_busy_handler(db_.get(), Poll, nullptr);
        }
        if (plan_.databases == 2) {
          rc = db_.Exec("ATTACH '" + process_.dir_ + "/" + kDatabaseFiles[1] + "' AS two");
        }
      }
      // A cache that is small enough to spill, or one that never does.
      const bool spills = plan_.spills && number_ % 2 == 0;
      for (int i = 0; i < plan_.databases && rc == SQLITE_OK; i++) {
        const std::string pragma = std::string(";PRAGMA ") + kSchemas[i] + ".";
        rc = db_.Exec(pragma + "synchronous=" + std::to_string(level_) + pragma + "cache_size=" +
                      (spills ? "5" : "10000") + pragma + "cache_spill=" + (spills ? "1" : "0") +
                      pragma + "mmap_size=" + std::to_string(plan_.mmap_size));
      }
      if (rc == SQLITE_OK) {
        sqlite3_wal_autocheckpoint(db_.get(), plan_.autocheckpoint);
        if (plan_.off || process_.keeps_log_ || random_.OneIn(4)) {
          sqlite3_db_config(db_.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
        }
        if (!stock_ && number_ == 0) SetPolicy(plan_.policy);
      }
      return rc;
    }

    void SetPolicy(const std::string& policy) {
      for (int i = 0; i < plan_.databases; i++) {
        Expect(
            db_.Exec(std::string("PRAGMA ") + kSchemas[i] + ".groupcommit_policy='" + policy + "'"),
            "policy");
      }
    }

    // A disk that fails may show in any call; nothing else may go wrong.
    void Expect(int rc, const std::string& what) {
      if (rc == SQLITE_OK) return;
      const int kind = rc & 0xff;
      if (plan_.disk_fails() && (kind == SQLITE_IOERR || kind == SQLITE_BUSY)) return;
      if (plan_.write_failures > 0 && kind == SQLITE_FULL) return;
      record_->Mistake(what + ": " + std::to_string(rc) + " " + db_.Error());
    }

    // ---- Commits ----

    void Attempt(int n) {
      const CommitId id = IdOf(number_ + 1, n);
      const int which = plan_.databases == 1 ? 0 : random_.Below(3);  // 2: both
      std::vector<int> databases;
      for (int i = 0; i < plan_.databases; i++) {
        if (which == i || which == 2) databases.push_back(i);
      }
      std::vector<std::string> statements;
      for (const int i : databases) AddChanges(id, kSchemas[i], &statements);
      const bool alone = statements.size() == 1 && random_.OneIn(2);
      const bool undo = !alone && random_.OneIn(10);
      const bool immediate = which == 2 || random_.OneIn(2);
      const bool reads_first = !alone && !immediate && random_.OneIn(4);
      if (!alone) {
        if (reads_first) {
          statements.insert(statements.begin(),
                            std::string("SELECT max(id) FROM ") + kSchemas[databases[0]] + ".t");
        }
        statements.insert(statements.begin(), immediate ? "BEGIN IMMEDIATE" : "BEGIN");
        statements.push_back(undo ? "ROLLBACK" : "COMMIT");
      }
      for (const int i : databases) is_interval_[i] = HasPolicyInterval(i);
      // (With two databases, its snapshot of one may be what the lock of the other waits for.)
      const bool reads = plan_.databases == 1 && random_.OneIn(10);
      OpenStatement reads_on(reads ? db_.get() : nullptr);
      int rc = SQLITE_OK;
      size_t done = 0;
      while (done < statements.size() && rc == SQLITE_OK) rc = db_.Exec(statements[done++]);
      // Who has read before waits for no lock, and may write only if nobody has since. Nor is a
      // table dropped while somebody reads.
      const int kind = rc & 0xff;
      const bool too_late = ((reads_first || reads_on.is_open()) && kind == SQLITE_BUSY) ||
                            (reads_on.is_open() && kind == SQLITE_LOCKED);
      if (!too_late) Expect(rc, statements[done - 1]);
      if (sqlite3_get_autocommit(db_.get()) == 0) db_.Exec("ROLLBACK");
      const std::string misread = reads_on.ReadToTheEnd();
      if (!misread.empty()) record_->Mistake(misread);

      const bool committed = rc == SQLITE_OK && !undo;
      // Of two databases, SQLite commits to one and then to the other. And a commit whose sync has
      // failed may still come to light after a power cut, until the log is repaired; or for good,
      // if another process has committed on top.
      const bool in_commit = !committed && !undo && done == statements.size();
      const bool several_fail = plan_.log_failures > 0 && !plan_.one_process();
      const bool may_stay = stock_ || several_fail || kind == SQLITE_FULL || IsFenced(databases[0]);
      if (in_commit && (which == 2 || may_stay)) return;
      for (const int i : databases) {
        process_.told_[static_cast<size_t>(i)].Add(id, committed);
        record_->Append(committed ? Event::kAcknowledged : Event::kGone, static_cast<uint32_t>(i),
                        id, PromisedLevel() >= kFull);
        if (committed && !stock_) NoteLsn(i, id);
      }
    }

    bool IsFenced(int database) {
      groupcommit_statistics stats{};
      groupcommit_stats(db_.get(), kSchemas[database], &stats, sizeof(stats));
      return stats.fenced != 0;
    }

    void AddChanges(CommitId id, const std::string& schema, std::vector<std::string>* statements) {
      const auto add = [&](const std::string& sql) { statements->push_back(sql); };
      const std::string t = schema + ".t";
      const std::string seq = "(SELECT max(seq) FROM " + t + ")";
      const int parts = random_.OneIn(2) ? 0 : random_.Between(1, 4);
      int low = 1;
      int high = 0;
      if (random_.OneIn(6)) {
        high = plan_.pad_rows;
      } else if (random_.OneIn(2)) {
        low = random_.Between(1, plan_.pad_rows);
        high = std::min(plan_.pad_rows, low + random_.Below(3));
      }
      int side = 0;
      if (plan_.schema_changes && random_.OneIn(plan_.log_failures > 0 ? 1 : 3)) {
        side = random_.Between(1, kSides) * (random_.OneIn(3) ? -1 : 1);
      }
      add("INSERT INTO " + t + " SELECT ifnull(max(seq),0)+1," + std::to_string(id) + "," +
          std::to_string(parts) + "," + std::to_string(low) + "," + std::to_string(high) + "," +
          std::to_string(side) + "," + std::to_string(PromisedLevel()) + "," +
          std::to_string(process_.phase_) + ",randomblob(" + std::to_string(random_.Below(60)) +
          ") FROM " + t);
      for (int i = 0; i < parts; i++) {
        add("INSERT INTO " + schema + ".part VALUES(" + seq + "," + std::to_string(i) +
            ",randomblob(" + std::to_string(random_.Below(plan_.page_size / 10)) + "))");
        if (plan_.savepoints && random_.OneIn(6)) AddUndone(schema, statements);
      }
      if (high >= low) {
        add("UPDATE " + schema + ".pad SET stamp=" + seq + ",filler=randomblob(" +
            std::to_string(plan_.page_size * 6 / 10) + ") WHERE k BETWEEN " + std::to_string(low) +
            " AND " + std::to_string(high));
      }
      const std::string name = schema + ".side" + std::to_string(std::abs(side));
      if (side > 0) add("CREATE TABLE IF NOT EXISTS " + name + "(seq)");
      if (side > 0) add("INSERT INTO " + name + " VALUES(" + seq + ")");
      if (side < 0) add("DROP TABLE IF EXISTS " + name);
    }

    void AddUndone(const std::string& schema, std::vector<std::string>* statements) {
      statements->push_back("SAVEPOINT s");
      statements->push_back("INSERT INTO " + schema + ".part VALUES(-1,-1,randomblob(600))");
      statements->push_back("UPDATE " + schema + ".pad SET stamp=-1 WHERE k<4");
      statements->push_back("ROLLBACK TO s");
      statements->push_back("RELEASE s");
    }

    // ---- Commits that are durable later ----

    Ledger& ledger(int database) { return process_.ledgers_[static_cast<size_t>(database)]; }

    bool HasPolicyInterval(int database) {
      if (!plan_.interval || stock_) return false;
      bool is = false;
      const auto look = [](void* out, int, char** values, char**) {
        *static_cast<bool*>(out) = std::string(values[0]).rfind("interval", 0) == 0;
        return 0;
      };
      const std::string sql = std::string("PRAGMA ") + kSchemas[database] + ".groupcommit_policy";
      Expect(sqlite3_exec(db_.get(), sql.c_str(), look, &is, nullptr), "policy");
      return is;
    }

    void NoteLsn(int database, CommitId id) {
      sqlite3_int64 lsn = 0;
      Expect(groupcommit_commit_lsn(db_.get(), kSchemas[database], &lsn), "LSN");
      if (lsn <= last_lsn_[database]) record_->Mistake("an LSN is not larger than the last one");
      last_lsn_[database] = lsn;
      is_left_[database] = is_interval_[database];
      own_[database].push_back(id);
      ledger(database).Add(lsn, id);
    }

    void Survive(int database, const std::vector<CommitId>& commits) {
      for (const CommitId id : commits) {
        record_->Append(Event::kAcknowledged, static_cast<uint32_t>(database), id, true);
      }
    }

    void Barrier() {
      if (stock_ || !is_open_) return;
      const int i = random_.Below(plan_.databases);
      switch (random_.Below(6)) {
        case 0:
          Flush(i, [&] { return groupcommit_flush(db_.get(), kSchemas[i]); });
          break;
        case 1:
          Flush(i, [&] {
            return db_.Exec(std::string("PRAGMA ") + kSchemas[i] + ".groupcommit_flush");
          });
          break;
        case 2:
          WaitFor(db_, i, last_lsn_[i]);
          break;
        case 3:
          WaitFor(db_, i, ledger(i).Any(since_[i], random_));
          break;
        case 4:
          BarrierOfNewcomer(i);
          break;
        default:
          break;
      }
      sqlite3_int64 lsn = 0;
      Expect(groupcommit_durable_lsn(db_.get(), kSchemas[i], &lsn), "durable LSN");
      Survive(i, ledger(i).Take(since_[i], lsn));
    }

    // Through a connection that has not read anything yet.
    void BarrierOfNewcomer(int i) {
      Db newcomer;
      int rc =
          newcomer.Open(process_.dir_ + "/" + kDatabaseFiles[i], kShimVfs, SQLITE_OPEN_READWRITE);
      Expect(rc, "open");
      if (rc != SQLITE_OK) return;
      if (random_.OneIn(2)) {
        Flush(i, [&] { return groupcommit_flush(newcomer.get(), nullptr); });
      } else {
        WaitFor(newcomer, i, ledger(i).Any(since_[i], random_), "main");
      }
    }

    template <class Call>
    void Flush(int i, Call call) {
      const CommitId number = IdOf(number_ + 1, ++flushes_);
      record_->Append(Event::kFlushBegin, static_cast<uint32_t>(i), number);
      const int rc = call();
      Expect(rc, "flush");
      if (rc == SQLITE_OK) record_->Append(Event::kFlushed, static_cast<uint32_t>(i), number);
    }

    void WaitFor(const Db& db, int i, sqlite3_int64 lsn, const char* schema = nullptr) {
      const int timeout_ms = random_.Below(4) - 1;
      const int rc =
          groupcommit_wait(db.get(), schema != nullptr ? schema : kSchemas[i], lsn, timeout_ms);
      if (timeout_ms >= 0 && rc == SQLITE_BUSY) return;
      Expect(rc, "wait");
      if (rc == SQLITE_OK) Survive(i, ledger(i).Take(since_[i], lsn));
    }

    // ---- Everything else ----

    // Reads all there is, in one snapshot: it has to be what the first so many commits have left,
    // with all that this process was told of before.
    void Look() {
      const int i = random_.Below(plan_.databases);
      const Knowledge told = process_.told_[static_cast<size_t>(i)].UntilNow();
      const std::string schema = kSchemas[i];
      const int rc = db_.Exec("BEGIN; SELECT 1 FROM " + schema + ".sqlite_schema");
      Expect(rc, "look");
      if (rc == SQLITE_OK) {
        const std::string wrong = InspectRows(db_.get(), schema, told, false);
        const int code = sqlite3_extended_errcode(db_.get());
        const bool was_read = code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE;
        if (!wrong.empty() && was_read) record_->Mistake("a reader finds: " + wrong);
        if (!wrong.empty() && !was_read) Expect(code, "look: " + wrong);
      }
      if (sqlite3_get_autocommit(db_.get()) == 0) db_.Exec("ROLLBACK");
    }

    // Takes a snapshot, pending commits included, and reads what is in it only later and later.
    void HoldSnapshot() {
      Expect(db_.Exec("BEGIN; SELECT 1 FROM sqlite_schema"), "snapshot");
      const int reads = random_.Between(1, 4);
      for (int i = 0; i < reads; i++) {
        usleep(static_cast<unsigned>(random_.Below(1000)));
        See();
      }
      if (sqlite3_get_autocommit(db_.get()) == 0) db_.Exec("COMMIT");
    }

    // What connections do between commits.
    void Amuse() {
      const bool reads = plan_.one_process();
      switch (random_.Below(32)) {
        case 0:
          if (!plan_.off) Checkpoint();
          break;
        case 1:
          Open(DrawLevel());
          break;
        case 2:
          if (plan_.policy_changes && !stock_) {
            SetPolicy(DrawPolicy(random_, plan_.interval));
          }
          break;
        case 3:
        case 4:
        case 5:
          // Pages that were read under the write lock stay in the cache.
          Expect(db_.Exec("BEGIN IMMEDIATE; SELECT count(*), max(id) FROM t; ROLLBACK"), "read");
          if (reads) See();
          break;
        case 6:
        case 7:
          Expect(db_.Exec("UPDATE t SET id=0 WHERE seq=-1"), "update of nothing");
          if (reads) See();
          break;
        case 8:
        case 9:
        case 10:
          if (reads) See();
          break;
        case 11:
          usleep(static_cast<unsigned>(random_.Below(1000)));
          break;
        case 12:
          Look();
          break;
        default:
          break;
      }
    }

    void Checkpoint() {
      if (plan_.off) return;
      const int mode = random_.Below(4);
      const int rc = sqlite3_wal_checkpoint_v2(db_.get(), nullptr, mode, nullptr, nullptr);
      if ((rc & 0xff) != SQLITE_BUSY && (rc & 0xff) != SQLITE_LOCKED) Expect(rc, "checkpoint");
    }

    // Reads the newest commit of which we know that it asked for durability, or that this process
    // found when it opened the database, and tells the record: it must not get lost any more.
    void See() {
      for (int i = 0; i < plan_.databases; i++) {
        const std::string sql = std::string("SELECT id FROM ") + kSchemas[i] +
                                ".t WHERE level>=" + std::to_string(kFull) + " OR phase<" +
                                std::to_string(stock_ ? 0 : process_.phase_) +
                                " ORDER BY seq DESC LIMIT 1";
        CommitId id = 0;
        const auto take = [](void* out, int, char** values, char**) {
          *static_cast<CommitId*>(out) = std::atoll(values[0]);
          return 0;
        };
        const int rc = sqlite3_exec(db_.get(), sql.c_str(), take, &id, nullptr);
        Expect(rc, "read");
        if (rc == SQLITE_OK && id != 0) {
          record_->Append(Event::kSeen, static_cast<uint32_t>(i), id);
        }
      }
    }

    Process& process_;
    const Plan& plan_;
    Record* const record_;
    const int number_;
    const bool stock_;
    Random random_;
    int level_ = kFull;
    bool is_open_ = false;
    Db db_;

    // Of each database, since it was opened.
    int flushes_ = 0;
    size_t since_[kDatabases] = {};            // see Ledger::end()
    sqlite3_int64 last_lsn_[kDatabases] = {};  // of our commits
    std::vector<CommitId> own_[kDatabases];    // these commits
    bool is_interval_[kDatabases] = {};        // the policy before the last attempt
    bool is_left_[kDatabases] = {};            // the last of them is left to the background
  };

  const Plan& plan_;
  const std::string dir_;
  Record* const record_;
  const int number_;
  int phase_ = 0;
  bool keeps_log_ = false;  // nobody copies the log into the database when the phase ends
  std::atomic<int> working_{0};
  std::array<Ledger, kDatabases> ledgers_;
  std::array<Told, kDatabases> told_;
};

void MakeDatabase(const Plan& plan, const std::string& path) {
  Db db(path, "unix");
  db.ExecOk("PRAGMA page_size=" + std::to_string(plan.page_size) +
            "; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; BEGIN;" + kTables +
            ";WITH n(k) AS (SELECT 1 UNION ALL SELECT k+1 FROM n WHERE k<" +
            std::to_string(plan.pad_rows) + ") INSERT INTO pad SELECT k,0,randomblob(" +
            std::to_string(plan.page_size * 6 / 10) + ") FROM n; COMMIT");
}

void AwaitEnd(pid_t child, bool may_die, Record* record) {
  int status = 0;
  const bool has_ended = waitpid(child, &status, 0) == child;
  const bool was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  if (!has_ended || (status != 0 && !(may_die && was_killed))) {
    record->Mistake("a process ended with status " + std::to_string(status));
  }
}

}  // namespace

void RunWorkload(const Plan& plan, const std::string& dir, Record* record) {
  for (int i = 0; i < plan.databases; i++) MakeDatabase(plan, dir + "/" + kDatabaseFiles[i]);
  record->Reset(plan.seed);
  record->SetSyncMicros(plan.sync_micros);
  record->SetFailures(plan.log_failures);
  record->SetWriteFailures(plan.write_failures);
  record->SetDeaths(plan.deaths || plan.dying_guests > 0);

  std::vector<pid_t> children;
  const int processes = plan.shim_processes + plan.stock_processes;
  std::fflush(nullptr);
  for (int i = 1; i < processes; i++) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(2 * kPatienceMillis / 1000);  // one that hangs must not hang the test
      if (plan.deaths) {
        Random random(Mix(plan.seed) + static_cast<uint64_t>(i));
        record->DieAfter(random.Between(1, plan.commits * 4));  // or it ends by itself before
      }
      Process(plan, dir, record, i).Run();
      _exit(0);
    }
    if (child > 0) children.push_back(child);
  }
  const int guests = plan.guests > 0 ? 1 + plan.dying_guests : 0;
  std::vector<pid_t> guest_processes;
  for (int i = 0; i < guests; i++) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(2 * kPatienceMillis / 1000);
      Random random(Mix(plan.seed) + 100 + static_cast<uint64_t>(i));
      if (i > 0) record->DieAfter(random.Between(1, 400));
      Process(plan, dir, record, processes).RunGuests();
      _exit(0);
    }
    if (child > 0) guest_processes.push_back(child);
  }
  Process(plan, dir, record, 0).Run();
  for (const pid_t child : children) AwaitEnd(child, plan.deaths, record);
  record->SetOver();
  for (const pid_t child : guest_processes) {
    AwaitEnd(child, child != guest_processes.front(), record);
  }
}

}  // namespace groupcommit::testing
