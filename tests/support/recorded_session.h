// RecordedSession: a scripted use of SQLite over a VFS that keeps what SQLite answered and which
// calls reached the test storage, so that two runs of one script can be compared.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_RECORDED_SESSION_H_
#define GROUPCOMMIT_TESTS_SUPPORT_RECORDED_SESSION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "support/sqlite_helpers.h"
#include "support/test_storage.h"

namespace groupcommit::testing {

class RecordedSession {
 public:
  // Connections are opened through `vfs`, which leads to `storage`. One session at a time.
  RecordedSession(TestStorage* storage, std::string vfs);
  ~RecordedSession();
  RecordedSession(const RecordedSession&) = delete;
  RecordedSession& operator=(const RecordedSession&) = delete;

  std::string path(const std::string& name) const { return dir_.File(name); }
  // As a file: URI, with parameters.
  std::string Uri(const std::string& name, const std::string& parameters) const {
    return "file:" + path(name) + "?" + parameters;
  }

  // Opens connection number `i`, with a busy timeout of 0.
  void Open(int i, const std::string& path_or_uri, int flags = kOpenCreate);
  void Close(int i);

  // Runs each statement of `sql` to its end or first error, and keeps the outcome.
  void Sql(int i, const std::string& sql);

  // Keeps a result that the script has produced in another way.
  void Note(const std::string& what) { outcome_.push_back(what); }
  sqlite3* db(int i) { return dbs_[i].get(); }

  // Calls of which the storage fails number `n`, counted from 1, with the code that suits it.
  void FailCall(int n) { fail_at_ = n; }
  bool failed_a_call() const { return fail_at_ != 0 && counted_ >= fail_at_; }
  // Calls so far that could have failed.
  int countable_calls() const { return counted_; }

  // A line for each statement and row, in order.
  const std::vector<std::string>& outcome() const { return outcome_; }

  // A line for each call that reached the storage, in order. Without those that the shim is
  // documented to add: xFileSize right after it has opened a log,
  // xFileControl(SQLITE_FCNTL_HAS_MOVED) right after it has opened a database, and those that keep
  // checkpoints out while a writer starts the log over.
  const std::vector<std::string>& calls() const { return calls_; }

  // The files *.db that the session left. REQUIRES: all connections are closed.
  std::map<std::string, std::string> Databases() const;

 private:
  void Record(const Call& call);
  bool IsOfRestart(const Call& call);
  int FaultFor(const Call& call);

  TestStorage* const storage_;
  const std::string vfs_;
  TempDir dir_;
  std::map<int, Db> dbs_;
  std::vector<std::string> outcome_;
  std::vector<std::string> calls_;
  Op last_op_ = Op::kClose;
  FileKind last_kind_ = FileKind::kOther;
  std::set<const sqlite3_file*> writing_;          // has asked for the write lock
  std::multiset<const sqlite3_file*> restarting_;  // has asked for the checkpoint lock then
  bool added_by_shim_ = false;                     // the call that was recorded last
  int counted_ = 0;
  int fail_at_ = 0;
};

// The lines at which two lists part, for a message; "" if they are equal.
std::string FirstDifference(const std::vector<std::string>& expected,
                            const std::vector<std::string>& actual);

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_RECORDED_SESSION_H_
