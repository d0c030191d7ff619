// Ledger: the commits of a process to one database whose LSN it knows.
#ifndef GROUPCOMMIT_TESTS_LABORATORY_LEDGER_H_
#define GROUPCOMMIT_TESTS_LABORATORY_LEDGER_H_

#include <sqlite3.h>

#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

#include "laboratory/record.h"

namespace groupcommit::testing {

// Any thread.
class Ledger {
 public:
  // Of those from this one on, the LSNs mean the same to a connection that is open now.
  size_t end() {
    const std::lock_guard lock(mutex_);
    return commits_.size();
  }
  void Add(sqlite3_int64 lsn, CommitId id) {
    const std::lock_guard lock(mutex_);
    commits_.push_back({lsn, id, false});
  }
  // One of the LSNs, or 0.
  sqlite3_int64 Any(size_t from, Random& random) {
    const std::lock_guard lock(mutex_);
    if (from >= commits_.size()) return 0;
    return commits_[from +
                    static_cast<size_t>(random.Below(static_cast<int>(commits_.size() - from)))]
        .lsn;
  }
  // Those up to `lsn` that have not been taken yet.
  std::vector<CommitId> Take(size_t from, sqlite3_int64 lsn) {
    const std::lock_guard lock(mutex_);
    std::vector<CommitId> taken;
    for (size_t i = from; i < commits_.size(); i++) {
      if (commits_[i].lsn > lsn || std::exchange(commits_[i].taken, true)) continue;
      taken.push_back(commits_[i].id);
    }
    return taken;
  }

 private:
  struct Commit {
    sqlite3_int64 lsn;
    CommitId id;
    bool taken;
  };
  std::mutex mutex_;
  std::vector<Commit> commits_;
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_LABORATORY_LEDGER_H_
