// The pragmas of a database: groupcommit_policy, groupcommit_stats and groupcommit_flush.
#ifndef GROUPCOMMIT_PRAGMA_H_
#define GROUPCOMMIT_PRAGMA_H_

#include "connection.h"

namespace groupcommit {

// `args` is the argument of SQLITE_FCNTL_PRAGMA: the name, the value or null, and where the result
// or the message goes. Returns SQLITE_NOTFOUND if the pragma is not one of ours.
int RunPragma(Connection* connection, char** args);

}  // namespace groupcommit

#endif  // GROUPCOMMIT_PRAGMA_H_
