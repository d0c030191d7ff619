// TranscribedDb: a connection that writes down all that a program sees of it, as text, so that what
// happens through the shim can be compared with what happens without it.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_TRANSCRIPT_H_
#define GROUPCOMMIT_TESTS_SUPPORT_TRANSCRIPT_H_

#include <sqlite3.h>

#include <string>
#include <utility>

namespace groupcommit::testing {

class TranscribedDb {
 public:
  // `transcript` outlives it. `name` begins each of its lines there.
  TranscribedDb(std::string* transcript, std::string name)
      : transcript_(transcript), name_(std::move(name)) {}
  ~TranscribedDb() { Close(); }
  TranscribedDb(const TranscribedDb&) = delete;
  TranscribedDb& operator=(const TranscribedDb&) = delete;

  // Each writes down the extended result code, the error message if there is one, and the rows.
  // Without a connection all but Open() do nothing.
  void Open(const std::string& file, int flags, const char* vfs);
  void Run(const char* sql);  // one statement
  void Close();

 private:
  void WriteDown(const char* what, int rc);

  std::string* const transcript_;
  const std::string name_;
  sqlite3* db_ = nullptr;
};

// The lines of two transcripts that are not the same.
std::string TranscriptDifference(const std::string& stock, const std::string& shim);

// There are files for which stock SQLite reads a page of no bytes, or beyond the end of one, and
// goes on with what it finds in memory. That must not depend on what was there before: this gives
// SQLite memory that is zero, and used once only. REQUIRES: SQLite is not in use yet; one thread.
void UseFreshMemory();

// Back to memory that was never used. REQUIRES: no connection is open.
void RenewMemory();

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_TRANSCRIPT_H_
