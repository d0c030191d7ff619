// Inspection of one database: is it one that this load could have left after a power cut, or show
// meanwhile?
#ifndef GROUPCOMMIT_TESTS_LABORATORY_INSPECT_H_
#define GROUPCOMMIT_TESTS_LABORATORY_INSPECT_H_

#include <sqlite3.h>

#include <string>

#include "laboratory/replay.h"

namespace groupcommit::testing {

// What the load writes; `%s` is the schema. A transaction has one row in t: its place in the order
// of commits (`seq`, the next after its predecessor's), its number `id`, and what else it did:
//   - it has the rows 0 to `parts`-1 in `part`;
//   - it stamped the rows `low` to `high` of `pad` with its `seq`;
//   - if `side` is not 0, it put its `seq` into the table side<side>, which it created if there was
//     none; if it is negative, it dropped that table.
inline constexpr char kTables[] =
    "CREATE TABLE t(seq INTEGER PRIMARY KEY, id, parts, low, high, side, level, phase, filler);"
    "CREATE TABLE part(seq, part, filler); CREATE INDEX part_by_seq ON part(seq, part);"
    "CREATE TABLE pad(k INTEGER PRIMARY KEY, stamp, filler)";
inline constexpr int kSides = 3;

// Returns what is wrong, or "". `db` has the state open, and sees nothing else. `power_cut`: else
// commits without a sync have to be there as well.
std::string Inspect(sqlite3* db, const Knowledge& known, bool power_cut);

// The rows of one schema alone. If that could not be read, what is wrong is sqlite3_errcode().
std::string InspectRows(sqlite3* db, const std::string& schema, const Knowledge& known,
                        bool power_cut);

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_LABORATORY_INSPECT_H_
