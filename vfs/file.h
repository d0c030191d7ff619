// File: a file of this VFS that passes every call on to the base VFS's file, which lies right
// behind it in the same allocation. A class that wants something else hides just the functions that
// it changes.
#ifndef GROUPCOMMIT_FILE_H_
#define GROUPCOMMIT_FILE_H_

#include <cstddef>

#include "sqlite.h"

namespace groupcommit {

class File : public sqlite3_file {
 public:
  explicit File(sqlite3_file* real) : sqlite3_file{nullptr}, real_(real) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int Close() { return real_->pMethods->xClose(real_); }
  int Read(void* data, int size, sqlite3_int64 offset) {
    return real_->pMethods->xRead(real_, data, size, offset);
  }
  int Write(const void* data, int size, sqlite3_int64 offset) {
    return real_->pMethods->xWrite(real_, data, size, offset);
  }
  int Truncate(sqlite3_int64 size) { return real_->pMethods->xTruncate(real_, size); }
  int Sync(int flags) { return real_->pMethods->xSync(real_, flags); }
  int FileSize(sqlite3_int64* size) { return real_->pMethods->xFileSize(real_, size); }
  int Lock(int level) { return real_->pMethods->xLock(real_, level); }
  int Unlock(int level) { return real_->pMethods->xUnlock(real_, level); }
  int CheckReservedLock(int* out) { return real_->pMethods->xCheckReservedLock(real_, out); }
  int FileControl(int op, void* arg) { return real_->pMethods->xFileControl(real_, op, arg); }
  int SectorSize() {
    // os.c: sqlite3OsSectorSize() allows a file not to have it.
    constexpr int kDefaultSectorSize = 4096;
    return real_->pMethods->xSectorSize ? real_->pMethods->xSectorSize(real_) : kDefaultSectorSize;
  }
  int DeviceCharacteristics() { return real_->pMethods->xDeviceCharacteristics(real_); }
  int ShmMap(int region, int size, int extend, void volatile** out) {
    return real_->pMethods->xShmMap(real_, region, size, extend, out);
  }
  int ShmLock(int offset, int n, int flags) {
    return real_->pMethods->xShmLock(real_, offset, n, flags);
  }
  void ShmBarrier() { real_->pMethods->xShmBarrier(real_); }
  int ShmUnmap(int delete_it) { return real_->pMethods->xShmUnmap(real_, delete_it); }
  int Fetch(sqlite3_int64 offset, int size, void** out) {
    return real_->pMethods->xFetch(real_, offset, size, out);
  }
  int Unfetch(sqlite3_int64 offset, void* page) {
    return real_->pMethods->xUnfetch(real_, offset, page);
  }

 protected:
  sqlite3_file* const real_;
};

// The C functions of the file class F. None of F's functions may throw.
template <class F>
class FileMethods {
 public:
  // The table for a file that wraps one with the methods `real`: it must not offer more than they
  // do.
  static const sqlite3_io_methods* For(const sqlite3_io_methods& real) {
    // unix-none has version 3 but no shared memory; pager.c: sqlite3PagerWalSupported() looks at
    // both.
    const bool has_shm = real.iVersion >= 2 && real.xShmMap != nullptr;
    if (real.iVersion <= 1) return &kVersion1;
    if (real.iVersion == 2) return has_shm ? &kVersion2 : &kVersion1;
    return has_shm ? &kVersion3 : &kVersion3NoShm;
  }

 private:
  static F* Self(sqlite3_file* file) { return static_cast<F*>(file); }

  static int Close(sqlite3_file* f) noexcept {
    F* self = Self(f);
    const int rc = self->Close();
    f->pMethods = nullptr;
    self->~F();
    return rc;
  }
  static int Read(sqlite3_file* f, void* data, int n, sqlite3_int64 offset) noexcept {
    return Self(f)->Read(data, n, offset);
  }
  static int Write(sqlite3_file* f, const void* data, int n, sqlite3_int64 offset) noexcept {
    return Self(f)->Write(data, n, offset);
  }
  static int Truncate(sqlite3_file* f, sqlite3_int64 size) noexcept {
    return Self(f)->Truncate(size);
  }
  static int Sync(sqlite3_file* f, int flags) noexcept { return Self(f)->Sync(flags); }
  static int FileSize(sqlite3_file* f, sqlite3_int64* size) noexcept {
    return Self(f)->FileSize(size);
  }
  static int Lock(sqlite3_file* f, int level) noexcept { return Self(f)->Lock(level); }
  static int Unlock(sqlite3_file* f, int level) noexcept { return Self(f)->Unlock(level); }
  static int CheckReservedLock(sqlite3_file* f, int* out) noexcept {
    return Self(f)->CheckReservedLock(out);
  }
  static int FileControl(sqlite3_file* f, int op, void* arg) noexcept {
    return Self(f)->FileControl(op, arg);
  }
  static int SectorSize(sqlite3_file* f) noexcept { return Self(f)->SectorSize(); }
  static int DeviceCharacteristics(sqlite3_file* f) noexcept {
    return Self(f)->DeviceCharacteristics();
  }
  static int ShmMap(sqlite3_file* f, int region, int size, int extend,
                    void volatile** out) noexcept {
    return Self(f)->ShmMap(region, size, extend, out);
  }
  static int ShmLock(sqlite3_file* f, int offset, int n, int flags) noexcept {
    return Self(f)->ShmLock(offset, n, flags);
  }
  static void ShmBarrier(sqlite3_file* f) noexcept { Self(f)->ShmBarrier(); }
  static int ShmUnmap(sqlite3_file* f, int delete_it) noexcept {
    return Self(f)->ShmUnmap(delete_it);
  }
  static int Fetch(sqlite3_file* f, sqlite3_int64 offset, int size, void** out) noexcept {
    return Self(f)->Fetch(offset, size, out);
  }
  static int Unfetch(sqlite3_file* f, sqlite3_int64 offset, void* page) noexcept {
    return Self(f)->Unfetch(offset, page);
  }

  static constexpr sqlite3_io_methods Table(int version, bool has_shm) {
    sqlite3_io_methods table{};
    table.iVersion = version;
    table.xClose = Close;
    table.xRead = Read;
    table.xWrite = Write;
    table.xTruncate = Truncate;
    table.xSync = Sync;
    table.xFileSize = FileSize;
    table.xLock = Lock;
    table.xUnlock = Unlock;
    table.xCheckReservedLock = CheckReservedLock;
    table.xFileControl = FileControl;
    table.xSectorSize = SectorSize;
    table.xDeviceCharacteristics = DeviceCharacteristics;
    if (has_shm) {
      table.xShmMap = ShmMap;
      table.xShmLock = ShmLock;
      table.xShmBarrier = ShmBarrier;
      table.xShmUnmap = ShmUnmap;
    }
    if (version >= 3) {
      table.xFetch = Fetch;
      table.xUnfetch = Unfetch;
    }
    return table;
  }

  static constexpr sqlite3_io_methods kVersion1 = Table(1, false);
  static constexpr sqlite3_io_methods kVersion2 = Table(2, true);
  static constexpr sqlite3_io_methods kVersion3 = Table(3, true);
  static constexpr sqlite3_io_methods kVersion3NoShm = Table(3, false);
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_FILE_H_
