// The eponymous virtual table groupcommit_stats: a row for each database that is open in this
// process.
#include <new>
#include <string>
#include <vector>

#include "database.h"
#include "groupcommit.h"
#include "sqlite.h"
#include "statistics.h"

namespace groupcommit {
namespace {

struct Column {
  const char* name;
  void (*result)(sqlite3_context*, const Database::Info&);
};

void ResultText(sqlite3_context* context, const std::string& text) {
  sqlite3_result_text64(context, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
}

#define COUNTER(member)                                                               \
  {                                                                                   \
#member, [](sqlite3_context * c,                                                  \
                const Database::Info& i) { sqlite3_result_int64(c, i.stats.member); } \
  }
#define LATENCY_PART(member, part)                                                    \
  {                                                                                   \
#member "_" #part,                                                                \
        [](sqlite3_context * c,                                                       \
           const Database::Info& i) { sqlite3_result_int64(c, i.stats.member.part); } \
  }
#define LATENCY(member) \
  LATENCY_PART(member, p50_us), LATENCY_PART(member, p99_us), LATENCY_PART(member, max_us)

constexpr Column kColumns[] = {
    {"path", [](sqlite3_context* c, const Database::Info& i) { ResultText(c, i.path); }},
    {"policy",
     [](sqlite3_context* c, const Database::Info& i) { ResultText(c, FormatPolicy(i.policy)); }},
    COUNTER(connections),
    COUNTER(commits),
    COUNTER(deferred),
    COUNTER(syncs),
    COUNTER(failed_syncs),
    {"batch",
     [](sqlite3_context* c, const Database::Info& i) { ResultText(c, BatchToJson(i.stats)); }},
    COUNTER(windows_filled),
    COUNTER(windows_expired),
    COUNTER(reader_waits),
    COUNTER(pending),
    COUNTER(waiting),
    COUNTER(fenced),
    LATENCY(sync),
    LATENCY(commit_wait),
    LATENCY(lock_wait),
    LATENCY(reader_wait),
    COUNTER(lsn),
    COUNTER(durable_lsn),
    COUNTER(background_errors),
    COUNTER(overlapped_syncs),
};

#undef COUNTER
#undef LATENCY
#undef LATENCY_PART

struct Cursor : sqlite3_vtab_cursor {
  std::vector<Database::Info> rows;
  size_t row = 0;
};

Cursor* Self(sqlite3_vtab_cursor* cursor) { return static_cast<Cursor*>(cursor); }

// Runs code that may allocate, inside a function that SQLite calls.
template <class F>
int Guarded(F function) noexcept {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return SQLITE_NOMEM;
  }
}

int Connect(sqlite3* db, void*, int, const char* const*, sqlite3_vtab** out, char**) noexcept {
  return Guarded([&] {
    std::string declaration;
    for (const Column& column : kColumns) {
      declaration += (declaration.empty() ? "CREATE TABLE x(" : ",") + std::string(column.name);
    }
    const int rc = sqlite3_declare_vtab(db, (declaration + ")").c_str());
    if (rc != SQLITE_OK) return rc;
    *out = new (std::nothrow) sqlite3_vtab{};
    return *out != nullptr ? SQLITE_OK : SQLITE_NOMEM;
  });
}

int Disconnect(sqlite3_vtab* table) noexcept {
  delete table;
  return SQLITE_OK;
}

int BestIndex(sqlite3_vtab*, sqlite3_index_info* info) noexcept {
  constexpr double kFewRows = 10;
  info->estimatedCost = kFewRows;
  info->estimatedRows = static_cast<sqlite3_int64>(kFewRows);
  return SQLITE_OK;
}

int OpenCursor(sqlite3_vtab*, sqlite3_vtab_cursor** out) noexcept {
  *out = new (std::nothrow) Cursor{};
  return *out != nullptr ? SQLITE_OK : SQLITE_NOMEM;
}

int CloseCursor(sqlite3_vtab_cursor* cursor) noexcept {
  delete Self(cursor);
  return SQLITE_OK;
}

int Filter(sqlite3_vtab_cursor* cursor, int, const char*, int, sqlite3_value**) noexcept {
  return Guarded([&] {
    Self(cursor)->rows = Database::List();
    Self(cursor)->row = 0;
    return SQLITE_OK;
  });
}

int Next(sqlite3_vtab_cursor* cursor) noexcept {
  Self(cursor)->row++;
  return SQLITE_OK;
}

int Eof(sqlite3_vtab_cursor* cursor) noexcept {
  return Self(cursor)->row >= Self(cursor)->rows.size() ? 1 : 0;
}

int ReadColumn(sqlite3_vtab_cursor* cursor, sqlite3_context* context, int column) noexcept {
  return Guarded([&] {
    kColumns[column].result(context, Self(cursor)->rows[Self(cursor)->row]);
    return SQLITE_OK;
  });
}

int RowId(sqlite3_vtab_cursor* cursor, sqlite3_int64* out) noexcept {
  *out = static_cast<sqlite3_int64>(Self(cursor)->row);
  return SQLITE_OK;
}

sqlite3_module MakeModule() {
  sqlite3_module module{};  // no xCreate: eponymous only
  module.xConnect = Connect;
  module.xBestIndex = BestIndex;
  module.xDisconnect = Disconnect;
  module.xOpen = OpenCursor;
  module.xClose = CloseCursor;
  module.xFilter = Filter;
  module.xNext = Next;
  module.xEof = Eof;
  module.xColumn = ReadColumn;
  module.xRowid = RowId;
  return module;
}

}  // namespace
}  // namespace groupcommit

int groupcommit_stats_table(sqlite3* db) {
  if (db == nullptr) return SQLITE_MISUSE;
  static const sqlite3_module module = groupcommit::MakeModule();
  return sqlite3_create_module_v2(db, "groupcommit_stats", &module, nullptr, nullptr);
}
