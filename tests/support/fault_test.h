// FaultTest: what the user of a database sees while syncs of it fail, by the same scenario with
// stock SQLite and with the shim.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_FAULT_TEST_H_
#define GROUPCOMMIT_TESTS_SUPPORT_FAULT_TEST_H_

#include <functional>
#include <future>
#include <map>
#include <set>
#include <string>

#include "support/shim_test.h"

namespace groupcommit::testing {

// Which numbers were inserted into t, and what each COMMIT said. Not thread-safe.
class Ledger {
 public:
  // A number that nobody has inserted yet.
  int Next() { return ++last_; }
  static std::string InsertOf(int n) { return "INSERT INTO t VALUES(" + std::to_string(n) + ")"; }

  // The COMMIT of `n` returned `rc`; `synced` if a power cut must not take it away then. Returns
  // `rc`.
  int Note(int n, int rc, bool synced = true);

  // The database, open as `db`, holds what was acknowledged and nothing else.
  void ExpectIn(Db& db) const;
  // The database that a power cut has left in the directory `dir` is intact and holds all that was
  // acknowledged and synced; with `exact`, no row of a failed commit.
  void ExpectSurvivedIn(const std::string& file, bool exact) const;

 private:
  enum class Outcome { kFailed, kAcknowledged, kDurable };
  static std::set<int> RowsOf(Db& db);

  int last_ = 0;
  std::map<int, Outcome> outcomes_;
};

// The name of the VFS is in vfs(): "store" is stock SQLite over the test storage, "gc" the shim.
class FaultTest : public ShimTest {
 protected:
  // Three connections with warm caches, a table t for the ledger and another one, u.
  void Start(const std::string& vfs, int page_size = 4096);

  bool with_shim() const { return vfs_ == "gc"; }
  Db Open(const std::string& file = "test.db");

  // A commit, by the ledger.
  int Insert(Db& db, bool synced = true);
  void InsertOk(Db& db);

  // A commit whose sync fails. `meanwhile` runs after the commit is visible, if it ever is: with
  // the shim before the sync has ended, with stock SQLite after COMMIT has returned.
  void FailingInsert(
      Db& db, const std::function<void()>& meanwhile = [] {});

  // For `meanwhile`: starts `sql`, and returns when it waits for a sync (with the shim) or is over.
  std::future<int> StartToWait(Db& db, const std::string& sql);

  // All connections see what the ledger says, and so does whoever comes after a power cut.
  void ExpectLedger(bool exact_after_cut = true);
  // And go on: each of them commits, and a checkpoint completes.
  void ExpectWorkGoesOn();

  std::string vfs_;
  Ledger ledger_;
  Db a_;
  Db b_;
  Db c_;
  Db observer_;          // for statistics, while the others are busy
  int64_t waiting_ = 0;  // how many wait for a sync in FailingInsert()
};

// For INSTANTIATE_TEST_SUITE_P: the name of a VFS in that of a test.
inline std::string NameOfVfs(const std::string& vfs) { return vfs == "gc" ? "Shim" : "Stock"; }

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_FAULT_TEST_H_
