#include "pragma.h"

#include <new>
#include <string>

namespace groupcommit {
namespace {

int SetResult(char** args, const std::string& text, int rc) {
  args[0] = sqlite3_mprintf("%s", text.c_str());
  return args[0] != nullptr ? rc : SQLITE_NOMEM;
}

int PolicyPragma(Database* database, char** args) {
  FlushPolicy policy = database->policy();
  std::string error;
  if (args[2] != nullptr && !ParsePolicy(args[2], &policy, &error)) {
    return SetResult(args, "groupcommit_policy: " + error, SQLITE_ERROR);
  }
  const int rc = SetResult(args, FormatPolicy(policy), SQLITE_OK);
  // Last: without memory for the result nothing has changed.
  if (args[2] != nullptr && rc == SQLITE_OK) database->SetPolicy(policy);
  return rc;
}

int StatsPragma(Database* database, char** args) {
  if (args[2] != nullptr) {
    return SetResult(args, "groupcommit_stats takes no value", SQLITE_ERROR);
  }
  return SetResult(args, StatisticsToJson(database->ReadStatistics()), SQLITE_OK);
}

int FlushPragma(Connection* connection, char** args) {
  if (args[2] != nullptr) {
    return SetResult(args, "groupcommit_flush takes no value", SQLITE_ERROR);
  }
  const int rc = connection->Flush();
  if (rc == SQLITE_ERROR) {
    return SetResult(args, "groupcommit_flush: the database is not in WAL mode", rc);
  }
  if (rc != SQLITE_OK) {
    return SetResult(args, std::string("groupcommit_flush: ") + sqlite3_errstr(rc), rc);
  }
  const Lsn durable = connection->database().coordinator().synced();
  return SetResult(args, std::to_string(durable), SQLITE_OK);
}

}  // namespace

int RunPragma(Connection* connection, char** args) {
  Database* database = &connection->database();
  try {
    if (sqlite3_stricmp(args[1], "groupcommit_policy") == 0) return PolicyPragma(database, args);
    if (sqlite3_stricmp(args[1], "groupcommit_stats") == 0) return StatsPragma(database, args);
    if (sqlite3_stricmp(args[1], "groupcommit_flush") == 0) return FlushPragma(connection, args);
    // SQLite takes a pragma that it does not know for none. A flush that is misspelled must not
    // pass for one.
    constexpr char kOurs[] = "groupcommit_";
    if (sqlite3_strnicmp(args[1], kOurs, sizeof(kOurs) - 1) == 0) {
      return SetResult(args,
                       "groupcommit has the pragmas groupcommit_policy, groupcommit_stats and "
                       "groupcommit_flush only",
                       SQLITE_ERROR);
    }
  } catch (const std::bad_alloc&) {
    return SQLITE_NOMEM;
  }
  return SQLITE_NOTFOUND;
}

}  // namespace groupcommit
