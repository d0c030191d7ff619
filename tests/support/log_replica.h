// LogReplica: copies the log of a database while others write it, as Litestream does.
//
// A program of that kind uses stock SQLite, in a process of its own, and reads the log as a file. A
// read transaction that it keeps open forbids everybody to start the log over before it has copied
// all of it; it runs the checkpoints itself, and to do so has to let go of that transaction for a
// moment. What follows is written after the description of litestream's db.go (v0.3 and its
// successors).
#ifndef GROUPCOMMIT_TESTS_SUPPORT_LOG_REPLICA_H_
#define GROUPCOMMIT_TESTS_SUPPORT_LOG_REPLICA_H_

#include <string>

#include "support/file_image.h"
#include "support/sqlite_helpers.h"

namespace groupcommit::testing {

class LogReplica {
 public:
  // Of a database that exists, into the directory `into`, which does, too. `others_checkpoint` if
  // somebody else might.
  LogReplica(const std::string& database, const std::string& into, bool others_checkpoint);
  ~LogReplica();
  LogReplica(const LogReplica&) = delete;
  LogReplica& operator=(const LogReplica&) = delete;

  // Copies what has been added to the log since the last time, up to its last whole commit.
  void Copy();

  // Runs a checkpoint; `mode` is PASSIVE, RESTART or TRUNCATE. False if somebody was in the way.
  bool Checkpoint(const std::string& mode);

  // How often the log was found started over; and how often so that a part of it may be missing, so
  // that everything had to be copied anew.
  int logs() const { return logs_; }
  int generations() const { return generations_; }
  size_t largest_log() const { return largest_log_; }

 private:
  void BeginGeneration();
  void FollowRestart();
  bool IsWhole() const;
  void CopyFrames();
  void BeginLog();
  void Store() const;
  void AcquireReadLock();
  void ReleaseReadLock();
  static void Insist(Db& db, const std::string& sql);
  Bytes LogHeader() const;

  const bool others_checkpoint_;
  const std::string log_name_;
  const std::string into_;
  // Kept open: closing any descriptor of the file would drop the locks that SQLite has on it.
  const int file_;
  Db reader_;  // with the read transaction
  Db writer_;
  Bytes log_;  // what has been copied of the present log
  int index_ = 0;
  int logs_ = 0;
  int generations_ = 0;
  size_t largest_log_ = 0;
};

// Makes the database `path` of what the replica in `from` has.
void Restore(const std::string& from, const std::string& path);

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_LOG_REPLICA_H_
