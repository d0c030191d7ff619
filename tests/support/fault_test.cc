#include "support/fault_test.h"

#include <algorithm>

namespace groupcommit::testing {

// ---- Ledger ----

int Ledger::Note(int n, int rc, bool synced) {
  outcomes_[n] = rc != SQLITE_OK ? Outcome::kFailed
                 : synced        ? Outcome::kDurable
                                 : Outcome::kAcknowledged;
  return rc;
}

std::set<int> Ledger::RowsOf(Db& db) {
  std::set<int> rows;
  const auto add = [](void* out, int, char** values, char**) {
    EXPECT_TRUE(static_cast<std::set<int>*>(out)->insert(std::atoi(values[0])).second)
        << values[0] << " is there twice";
    return 0;
  };
  EXPECT_EQ(sqlite3_exec(db.get(), "SELECT n FROM t", add, &rows, nullptr), SQLITE_OK)
      << db.Error();
  return rows;
}

void Ledger::ExpectIn(Db& db) const {
  const std::set<int> rows = RowsOf(db);
  for (const auto& [n, outcome] : outcomes_) {
    EXPECT_EQ(rows.count(n), outcome == Outcome::kFailed ? 0u : 1u)
        << n << (outcome == Outcome::kFailed ? " failed" : " was acknowledged");
  }
  for (const int n : rows) EXPECT_EQ(outcomes_.count(n), 1u) << n;
}

void Ledger::ExpectSurvivedIn(const std::string& file, bool exact) const {
  ExpectIntact(file);
  Db db(file);
  const std::set<int> rows = RowsOf(db);
  for (const auto& [n, outcome] : outcomes_) {
    if (outcome == Outcome::kDurable) {
      EXPECT_EQ(rows.count(n), 1u) << n << " was acknowledged, and is lost";
    }
    if (exact && outcome == Outcome::kFailed) {
      EXPECT_EQ(rows.count(n), 0u) << n << " failed";
    }
  }
}

// ---- FaultTest ----

void FaultTest::Start(const std::string& vfs, int page_size) {
  vfs_ = vfs;
  Db(path(), vfs.c_str())
      .ExecOk("PRAGMA page_size=" + std::to_string(page_size) + ";PRAGMA journal_mode=WAL");
  a_ = Open();
  a_.ExecOk("CREATE TABLE t(n); CREATE TABLE u(x); INSERT INTO u VALUES(1)");
  b_ = Open();
  c_ = Open();
  observer_ = Open();
  // Page 1 gets into the log, and every cache knows it.
  for (Db* db : {&a_, &b_, &c_}) InsertOk(*db);
  ExpectLedger();
}

Db FaultTest::Open(const std::string& file) {
  Db db(path(file), vfs_.c_str());
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
  db.ExecOk("PRAGMA synchronous=FULL");
  return db;
}

int FaultTest::Insert(Db& db, bool synced) {
  const int n = ledger_.Next();
  return ledger_.Note(n, db.Exec(Ledger::InsertOf(n)), synced);
}

void FaultTest::InsertOk(Db& db) { EXPECT_EQ(Insert(db), SQLITE_OK) << db.Error(); }

void FaultTest::FailingInsert(Db& db, const std::function<void()>& meanwhile) {
  const int n = ledger_.Next();
  if (!with_shim()) {
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    EXPECT_EQ(ledger_.Note(n, db.Exec(Ledger::InsertOf(n))), SQLITE_IOERR_FSYNC);
    meanwhile();
    return;
  }
  std::future<int> commit = ExecUntilSync(db, Ledger::InsertOf(n));
  waiting_ = 1;
  meanwhile();
  // Another sync is that of somebody who holds the write lock: it must not end before this one.
  const bool others_sync = storage_.HeldSyncs() > 1;
  if (others_sync) storage_.StopHolding();  // before this one fails, which leads to more of them
  EXPECT_EQ(storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC), 1);
  if (others_sync) commit.wait();
  storage_.OpenGate();
  EXPECT_EQ(ledger_.Note(n, commit.get()), SQLITE_IOERR_FSYNC);
}

std::future<int> FaultTest::StartToWait(Db& db, const std::string& sql) {
  std::future<int> result = ExecAsync(db, sql);
  if (with_shim()) {
    ExpectToWait(result, observer_, ++waiting_);
  } else {
    result.wait();
  }
  return result;
}

void FaultTest::ExpectLedger(bool exact_after_cut) {
  for (Db* db : {&a_, &b_, &c_}) {
    ledger_.ExpectIn(*db);
    EXPECT_EQ(db->Text("PRAGMA integrity_check"), "ok");
  }
  const std::string cut = dir_.path() + "/cut";
  storage_.CutInto(cut);
  ledger_.ExpectSurvivedIn(cut + "/test.db", exact_after_cut);
  for (uint64_t seed = 0; seed < 3; seed++) {
    storage_.CutInto(cut, CutMode::kKeepRandom, seed);
    ledger_.ExpectSurvivedIn(cut + "/test.db", false);
  }
  storage_.CutInto(cut, CutMode::kKeepAll);
  ledger_.ExpectSurvivedIn(cut + "/test.db", false);
}

void FaultTest::ExpectWorkGoesOn() {
  for (Db* db : {&a_, &b_, &c_}) {
    InsertOk(*db);
    ExpectLedger();
    EXPECT_EQ(db->Int("SELECT count(*) FROM u"), 1);
  }
  if (with_shim()) {
    EXPECT_EQ(Stats(observer_).fenced, 0);
    EXPECT_EQ(Stats(observer_).pending, 0);
    EXPECT_EQ(Stats(observer_).waiting, 0);
  }
  EXPECT_EQ(a_.Int("PRAGMA wal_checkpoint(TRUNCATE)"), 0) << "busy";
  ExpectLedger();
  InsertOk(b_);
  ExpectLedger();
}

}  // namespace groupcommit::testing
