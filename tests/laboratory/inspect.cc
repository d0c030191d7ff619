#include "laboratory/inspect.h"

#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <unordered_set>
#include <vector>

namespace groupcommit::testing {
namespace {

// The rows of a query. Ends early at an error, which the caller then finds in error().
class Query {
 public:
  Query(sqlite3* db, const std::string& sql) : db_(db) {
    rc_ = sqlite3_prepare_v2(db, sql.c_str(), -1, &statement_, nullptr);
  }
  ~Query() { sqlite3_finalize(statement_); }
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;

  bool Next() {
    if (rc_ == SQLITE_OK || rc_ == SQLITE_ROW) rc_ = sqlite3_step(statement_);
    return rc_ == SQLITE_ROW;
  }
  int64_t Int(int column) { return sqlite3_column_int64(statement_, column); }
  std::string Text(int column) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return text != nullptr ? text : "";
  }
  // "" if the rows ended as they should.
  std::string error() const {
    return rc_ == SQLITE_DONE
               ? ""
               : std::string(sqlite3_sql(statement_) ? sqlite3_sql(statement_) : "") + ": " +
                     sqlite3_errmsg(db_);
  }

 private:
  sqlite3* const db_;
  sqlite3_stmt* statement_ = nullptr;
  int rc_;
};

std::string Name(CommitId id) {
  return std::to_string(id / 1'000'000) + "." + std::to_string(id % 1'000'000);
}

// What the rows of t say that the other tables hold.
struct Expected {
  std::unordered_set<CommitId> ids;
  std::vector<int64_t> parts;  // of seq 1, 2, ...
  std::map<int64_t, int64_t> stamps;
  std::map<int64_t, std::set<int64_t>> sides;
};

std::string ReadCommits(sqlite3* db, const std::string& schema, Expected* expected) {
  Query t(db, "SELECT seq, id, parts, low, high, side FROM " + schema + ".t ORDER BY seq");
  while (t.Next()) {
    const int64_t seq = t.Int(0);
    const int64_t due = static_cast<int64_t>(expected->parts.size()) + 1;
    if (seq != due) {
      return "not a prefix: commit " + std::to_string(seq) + " is there, " + std::to_string(due) +
             " is not";
    }
    if (!expected->ids.insert(t.Int(1)).second) return "commit " + Name(t.Int(1)) + " twice";
    expected->parts.push_back(t.Int(2));
    for (int64_t k = t.Int(3); k <= t.Int(4); k++) expected->stamps[k] = seq;
    const int64_t side = t.Int(5);
    if (side > 0) expected->sides[side].insert(seq);
    if (side < 0) expected->sides.erase(-side);
  }
  return t.error();
}

std::string CheckParts(sqlite3* db, const std::string& schema, const Expected& expected) {
  Query part(db, "SELECT seq, part FROM " + schema + ".part ORDER BY seq, part");
  for (size_t seq = 1; seq <= expected.parts.size(); seq++) {
    for (int64_t i = 0; i < expected.parts[seq - 1]; i++) {
      if (!part.Next() || part.Int(0) != static_cast<int64_t>(seq) || part.Int(1) != i) {
        return "half a transaction: of " + std::to_string(seq) + ", part " + std::to_string(i) +
               " is missing " + part.error();
      }
    }
  }
  if (part.Next()) return "half a transaction: part of " + std::to_string(part.Int(0));
  return part.error();
}

std::string CheckPad(sqlite3* db, const std::string& schema, const Expected& expected) {
  Query pad(db, "SELECT k, stamp FROM " + schema + ".pad");
  while (pad.Next()) {
    const auto found = expected.stamps.find(pad.Int(0));
    const int64_t due = found != expected.stamps.end() ? found->second : 0;
    if (pad.Int(1) == due) continue;
    return "half a transaction: row " + std::to_string(pad.Int(0)) + " is from " +
           std::to_string(pad.Int(1)) + " instead of " + std::to_string(due);
  }
  return pad.error();
}

std::string CheckSides(sqlite3* db, const std::string& schema, const Expected& expected) {
  for (int side = 1; side <= kSides; side++) {
    const std::string name = "side" + std::to_string(side);
    Query exists(db, "SELECT 1 FROM " + schema + ".sqlite_schema WHERE name='" + name + "'");
    const auto due = expected.sides.find(side);
    if (exists.Next() != (due != expected.sides.end())) {
      return name + " exists, or not, against what was committed " + exists.error();
    }
    if (due == expected.sides.end()) continue;
    Query rows(db, "SELECT seq FROM " + schema + "." + name + " ORDER BY seq");
    std::set<int64_t> found;
    while (rows.Next()) found.insert(rows.Int(0));
    if (rows.error() != "") return rows.error();
    if (found != due->second) return name + " does not hold what was committed";
  }
  return "";
}

std::string CheckKnowledge(const Expected& expected, const Knowledge& known, bool power_cut) {
  for (const CommitId id : known.without_sync) {
    if (!power_cut && expected.ids.count(id) == 0) {
      return "commit " + Name(id) + " was acknowledged and is lost without a power cut";
    }
  }
  for (const CommitId id : known.acknowledged) {
    if (expected.ids.count(id) == 0) return "commit " + Name(id) + " was acknowledged and is lost";
  }
  for (const CommitId id : known.seen) {
    if (expected.ids.count(id) == 0) return "commit " + Name(id) + " was read and is lost";
  }
  for (const CommitId id : known.gone) {
    if (expected.ids.count(id) != 0) return "commit " + Name(id) + " failed and is there";
  }
  return "";
}

}  // namespace

std::string Inspect(sqlite3* db, const Knowledge& known, bool power_cut) {
  Query integrity(db, "PRAGMA integrity_check");
  if (!integrity.Next()) return integrity.error();
  if (integrity.Text(0) != "ok") return "integrity_check: " + integrity.Text(0);
  return InspectRows(db, "main", known, power_cut);
}

std::string InspectRows(sqlite3* db, const std::string& schema, const Knowledge& known,
                        bool power_cut) {
  Expected expected;
  std::string wrong = ReadCommits(db, schema, &expected);
  if (wrong.empty()) wrong = CheckKnowledge(expected, known, power_cut);
  if (wrong.empty()) wrong = CheckParts(db, schema, expected);
  if (wrong.empty()) wrong = CheckPad(db, schema, expected);
  if (wrong.empty()) wrong = CheckSides(db, schema, expected);
  return wrong;
}

}  // namespace groupcommit::testing
