#ifndef GROUPCOMMIT_SHIM_H_
#define GROUPCOMMIT_SHIM_H_

#include "sqlite.h"

namespace groupcommit {

// Is it a VFS of this copy of the library? A process may have several, each with databases of its
// own.
bool IsShim(const sqlite3_vfs& vfs);

}  // namespace groupcommit

#endif  // GROUPCOMMIT_SHIM_H_
