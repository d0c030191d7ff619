// The functions of groupcommit.h about policies as text, statistics, LSNs and the version.
#include <cstdio>
#include <new>
#include <string>

#include "flush_policy.h"
#include "groupcommit.h"
#include "main_file.h"
#include "sqlite.h"

using groupcommit::FlushPolicy;

namespace {

int ReadLsn(sqlite3* db, const char* schema, groupcommit::Lsn groupcommit::Lsns::*member,
            sqlite3_int64* lsn) {
  if (db == nullptr || lsn == nullptr) return SQLITE_MISUSE;
  groupcommit::Lsns lsns{};
  const int rc = sqlite3_file_control(db, schema, groupcommit::kFcntlLsns, &lsns);
  if (rc == SQLITE_OK) *lsn = static_cast<sqlite3_int64>(lsns.*member);
  return rc;
}

}  // namespace

int groupcommit_policy_parse(const char* zText, groupcommit_policy* pOut, char** pzErr) {
  if (pzErr != nullptr) *pzErr = nullptr;
  if (zText == nullptr || pOut == nullptr) return SQLITE_MISUSE;
  try {
    FlushPolicy policy;
    std::string error;
    if (!groupcommit::ParsePolicy(zText, &policy, &error)) {
      if (pzErr != nullptr) *pzErr = sqlite3_mprintf("%s", error.c_str());
      return SQLITE_ERROR;
    }
    *pOut = groupcommit::PolicyToC(policy);
    return SQLITE_OK;
  } catch (const std::bad_alloc&) {
    return SQLITE_NOMEM;
  }
}

int groupcommit_policy_format(const groupcommit_policy* pPolicy, char* zBuf, int nBuf) {
  try {
    FlushPolicy policy;
    std::string error;
    if (pPolicy == nullptr || !groupcommit::PolicyFromC(*pPolicy, &policy, &error)) return -1;
    const size_t room = zBuf != nullptr && nBuf > 0 ? static_cast<size_t>(nBuf) : 0;
    return std::snprintf(zBuf, room, "%s", groupcommit::FormatPolicy(policy).c_str());
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

int groupcommit_stats(sqlite3* db, const char* zSchema, groupcommit_statistics* pOut, size_t nOut) {
  if (db == nullptr || pOut == nullptr) return SQLITE_MISUSE;
  groupcommit::StatisticsRequest request = {pOut, nOut};
  return sqlite3_file_control(db, zSchema, groupcommit::kFcntlStatistics, &request);
}

int groupcommit_flush(sqlite3* db, const char* zSchema) {
  if (db == nullptr) return SQLITE_MISUSE;
  return sqlite3_file_control(db, zSchema, groupcommit::kFcntlFlush, nullptr);
}

int groupcommit_commit_lsn(sqlite3* db, const char* zSchema, sqlite3_int64* pLsn) {
  return ReadLsn(db, zSchema, &groupcommit::Lsns::commit, pLsn);
}

int groupcommit_durable_lsn(sqlite3* db, const char* zSchema, sqlite3_int64* pLsn) {
  return ReadLsn(db, zSchema, &groupcommit::Lsns::durable, pLsn);
}

int groupcommit_wait(sqlite3* db, const char* zSchema, sqlite3_int64 iLsn, int msTimeout) {
  if (db == nullptr || iLsn < 0) return SQLITE_MISUSE;
  groupcommit::WaitRequest request = {static_cast<groupcommit::Lsn>(iLsn), msTimeout};
  return sqlite3_file_control(db, zSchema, groupcommit::kFcntlWait, &request);
}

const char* groupcommit_libversion(void) { return GROUPCOMMIT_VERSION; }

int groupcommit_libversion_number(void) { return GROUPCOMMIT_VERSION_NUMBER; }
