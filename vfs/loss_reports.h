// What a successful sync proves beside one that has failed.
#ifndef GROUPCOMMIT_LOSS_REPORTS_H_
#define GROUPCOMMIT_LOSS_REPORTS_H_

#if defined(__linux__)
#include <sys/types.h>
#endif

struct sqlite3_file;
struct sqlite3_vfs;

namespace groupcommit {

// Bytes of a file are lost while two handles sync it. Does each of the two syncs fail, or may one
// succeed because the other has been told?
//
// A VFS may say that each does: GROUPCOMMIT_FCNTL_EACH_HANDLE_IS_TOLD, asked of the open file
// `log`. Of SQLite's own unix VFS, `base` then, it is known where
// - the kernel tells each open file description of a failed write (Linux 5.0 and newer: errseq_t,
//   Documentation/core-api/errseq.rst);
// - the file `path` is on ext4 with a journal, or on XFS: others tell only one of what they have
//   lost of their own blocks (vfat, ext2), or ask another process (FUSE);
// - the block device has no volatile cache. If it has, a sync also flushes that, and if the flush
//   fails, none is told but the one who asked, although it may have held what others had written.
// In all other cases, and when unsure: false.
bool EachHandleIsTold(sqlite3_vfs* base, sqlite3_file* log, const char* path);

#if defined(__linux__)
// The last two: of a file system of the type `type`, as statfs() tells it, on the block device
// `device`, by the sysfs that is mounted at `sys`.
bool DiskTellsEachHandle(long type, dev_t device, const char* sys);
#endif

}  // namespace groupcommit

#endif  // GROUPCOMMIT_LOSS_REPORTS_H_
