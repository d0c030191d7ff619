#include "laboratory/recorder.h"

#include <sqlite3.h>

#include <cstring>
#include <new>

#include "groupcommit.h"

namespace groupcommit::testing {
namespace {

Record* record = nullptr;
sqlite3_vfs* base_vfs = nullptr;

// The base's file lies right behind it.
struct Handle {
  sqlite3_file file;
  uint32_t number;
  uint32_t errors;  // failed syncs of the file that this handle knows of
  bool is_log;

  sqlite3_file* base() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};

Handle& Self(sqlite3_file* file) { return *reinterpret_cast<Handle*>(file); }
sqlite3_file* Base(sqlite3_file* file) { return Self(file).base(); }

int Close(sqlite3_file* f) noexcept { return Base(f)->pMethods->xClose(Base(f)); }

int Read(sqlite3_file* f, void* data, int size, sqlite3_int64 offset) noexcept {
  return Base(f)->pMethods->xRead(Base(f), data, size, offset);
}

int Write(sqlite3_file* f, const void* data, int size, sqlite3_int64 offset) noexcept {
  const int room = record->Room(Self(f).is_log, size);
  if (room == 0) return SQLITE_FULL;
  const int rc =
      record->ChangeFile(Event::kWrite, Self(f).number, offset,
                         {static_cast<const char*>(data), static_cast<size_t>(room)},
                         [&] { return Base(f)->pMethods->xWrite(Base(f), data, room, offset); });
  return rc == SQLITE_OK && room < size ? SQLITE_FULL : rc;
}

int Truncate(sqlite3_file* f, sqlite3_int64 size) noexcept {
  return record->ChangeFile(Event::kTruncate, Self(f).number, size, {},
                            [&] { return Base(f)->pMethods->xTruncate(Base(f), size); });
}

int Sync(sqlite3_file* f, int) noexcept {
  Handle& self = Self(f);
  return record->Sync(self.number, self.is_log, &self.errors) ? SQLITE_OK : SQLITE_IOERR_FSYNC;
}

int FileSize(sqlite3_file* f, sqlite3_int64* size) noexcept {
  return Base(f)->pMethods->xFileSize(Base(f), size);
}
int Lock(sqlite3_file* f, int level) noexcept { return Base(f)->pMethods->xLock(Base(f), level); }
int Unlock(sqlite3_file* f, int level) noexcept {
  return Base(f)->pMethods->xUnlock(Base(f), level);
}
int CheckReservedLock(sqlite3_file* f, int* out) noexcept {
  return Base(f)->pMethods->xCheckReservedLock(Base(f), out);
}
int FileControl(sqlite3_file* f, int op, void* arg) noexcept {
  if (op == GROUPCOMMIT_FCNTL_EACH_HANDLE_IS_TOLD) {  // see Record::Sync()
    *static_cast<int*>(arg) = 1;
    return SQLITE_OK;
  }
  if (op == GROUPCOMMIT_FCNTL_WRITES_MAY_BE_JOINED) return SQLITE_OK;
  return Base(f)->pMethods->xFileControl(Base(f), op, arg);
}
int SectorSize(sqlite3_file* f) noexcept { return Base(f)->pMethods->xSectorSize(Base(f)); }
int DeviceCharacteristics(sqlite3_file* f) noexcept {
  return Base(f)->pMethods->xDeviceCharacteristics(Base(f));
}
int ShmMap(sqlite3_file* f, int region, int size, int extend, void volatile** out) noexcept {
  return Base(f)->pMethods->xShmMap(Base(f), region, size, extend, out);
}
int ShmLock(sqlite3_file* f, int first, int n, int flags) noexcept {
  return Base(f)->pMethods->xShmLock(Base(f), first, n, flags);
}
void ShmBarrier(sqlite3_file* f) noexcept { Base(f)->pMethods->xShmBarrier(Base(f)); }
int ShmUnmap(sqlite3_file* f, int remove) noexcept {
  return Base(f)->pMethods->xShmUnmap(Base(f), remove);
}
int Fetch(sqlite3_file* f, sqlite3_int64 offset, int size, void** out) noexcept {
  return Base(f)->pMethods->xFetch(Base(f), offset, size, out);
}
int Unfetch(sqlite3_file* f, sqlite3_int64 offset, void* page) noexcept {
  return Base(f)->pMethods->xUnfetch(Base(f), offset, page);
}

constexpr sqlite3_io_methods kMethods = {3,
                                         Close,
                                         Read,
                                         Write,
                                         Truncate,
                                         Sync,
                                         FileSize,
                                         Lock,
                                         Unlock,
                                         CheckReservedLock,
                                         FileControl,
                                         SectorSize,
                                         DeviceCharacteristics,
                                         ShmMap,
                                         ShmLock,
                                         ShmBarrier,
                                         ShmUnmap,
                                         Fetch,
                                         Unfetch};

int Open(sqlite3_vfs*, const char* path, sqlite3_file* f, int flags, int* out_flags) noexcept {
  f->pMethods = nullptr;
  if (path == nullptr || (flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)) == 0) {
    return base_vfs->xOpen(base_vfs, path, f, flags, out_flags);  // a temporary file
  }
  auto* self = new (f) Handle{};
  self->is_log = (flags & SQLITE_OPEN_WAL) != 0;
  const int rc = record->OpenFile(
      path, [&] { return base_vfs->xOpen(base_vfs, path, self->base(), flags, out_flags); },
      &self->number, &self->errors);
  if (rc == SQLITE_OK) f->pMethods = &kMethods;
  return rc;
}

int Delete(sqlite3_vfs*, const char* path, int sync_directory) noexcept {
  return record->DeleteFile(path,
                            [&] { return base_vfs->xDelete(base_vfs, path, sync_directory); });
}

}  // namespace

void RegisterRecorder(Record* to) {
  record = to;
  base_vfs = sqlite3_vfs_find("unix");
  // All the rest is unix's own, which does not look at the VFS that it is called with.
  static sqlite3_vfs vfs = *base_vfs;
  vfs.pNext = nullptr;
  vfs.zName = kRecorderVfs;
  vfs.szOsFile = static_cast<int>(sizeof(Handle)) + base_vfs->szOsFile;
  vfs.xOpen = Open;
  vfs.xDelete = Delete;
  sqlite3_vfs_register(&vfs, 0);
}

}  // namespace groupcommit::testing
