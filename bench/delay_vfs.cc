#include "delay_vfs.h"

#include <algorithm>
#include <stdexcept>
#include <thread>

#include "groupcommit.h"
#include "loss_reports.h"

namespace groupcommit::bench {
namespace {

// The base's file lies right behind it in the same allocation.
struct WalFile {
  sqlite3_file header;
  DelayVfs* vfs;
  const char* path;

  static WalFile* From(sqlite3_file* file) { return reinterpret_cast<WalFile*>(file); }
  sqlite3_file* base() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};

sqlite3_file* Base(sqlite3_file* file) { return WalFile::From(file)->base(); }

int Close(sqlite3_file* f) { return Base(f)->pMethods->xClose(Base(f)); }

int Read(sqlite3_file* f, void* out, int amount, sqlite3_int64 offset) {
  return Base(f)->pMethods->xRead(Base(f), out, amount, offset);
}

int Write(sqlite3_file* f, const void* data, int amount, sqlite3_int64 offset) {
  return Base(f)->pMethods->xWrite(Base(f), data, amount, offset);
}

int Truncate(sqlite3_file* f, sqlite3_int64 size) {
  return Base(f)->pMethods->xTruncate(Base(f), size);
}

int Sync(sqlite3_file* f, int flags) { return WalFile::From(f)->vfs->SyncWal(Base(f), flags); }

int FileSize(sqlite3_file* f, sqlite3_int64* size) {
  return Base(f)->pMethods->xFileSize(Base(f), size);
}

int Lock(sqlite3_file* f, int level) { return Base(f)->pMethods->xLock(Base(f), level); }

int Unlock(sqlite3_file* f, int level) { return Base(f)->pMethods->xUnlock(Base(f), level); }

int CheckReservedLock(sqlite3_file* f, int* out) {
  return Base(f)->pMethods->xCheckReservedLock(Base(f), out);
}

int FileControl(sqlite3_file* f, int op, void* arg) {
  if (op == GROUPCOMMIT_FCNTL_EACH_HANDLE_IS_TOLD) {
    const WalFile* wal = WalFile::From(f);
    *static_cast<int*>(arg) = wal->vfs->EachHandleIsTold(Base(f), wal->path) ? 1 : 0;
    return SQLITE_OK;
  }
  if (op == GROUPCOMMIT_FCNTL_WRITES_MAY_BE_JOINED) return SQLITE_OK;
  return Base(f)->pMethods->xFileControl(Base(f), op, arg);
}

int SectorSize(sqlite3_file* f) { return Base(f)->pMethods->xSectorSize(Base(f)); }

int DeviceCharacteristics(sqlite3_file* f) {
  return Base(f)->pMethods->xDeviceCharacteristics(Base(f));
}

// Version 1 will do: SQLite calls xShm* and xFetch on the main file only.
constexpr sqlite3_io_methods kWalMethods = {
    1,
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
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

DelayVfs* Self(sqlite3_vfs* vfs) { return static_cast<DelayVfs*>(vfs->pAppData); }
sqlite3_vfs* Base(sqlite3_vfs* vfs) { return Self(vfs)->base(); }

int Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  sqlite3_vfs* base = Base(vfs);
  if ((flags & SQLITE_OPEN_WAL) == 0) return base->xOpen(base, name, file, flags, out_flags);
  auto* wal = WalFile::From(file);
  wal->header.pMethods = nullptr;
  wal->vfs = Self(vfs);
  wal->path = name;
  const int rc = base->xOpen(base, name, wal->base(), flags, out_flags);
  if (wal->base()->pMethods != nullptr) wal->header.pMethods = &kWalMethods;
  return rc;
}

int Delete(sqlite3_vfs* v, const char* name, int sync_dir) {
  return Base(v)->xDelete(Base(v), name, sync_dir);
}

int Access(sqlite3_vfs* v, const char* name, int flags, int* out) {
  return Base(v)->xAccess(Base(v), name, flags, out);
}

int FullPathname(sqlite3_vfs* v, const char* name, int size, char* out) {
  return Base(v)->xFullPathname(Base(v), name, size, out);
}

void* DlOpen(sqlite3_vfs* v, const char* name) { return Base(v)->xDlOpen(Base(v), name); }

void DlError(sqlite3_vfs* v, int size, char* message) { Base(v)->xDlError(Base(v), size, message); }

void (*DlSym(sqlite3_vfs* v, void* handle, const char* symbol))(void) {
  return Base(v)->xDlSym(Base(v), handle, symbol);
}

void DlClose(sqlite3_vfs* v, void* handle) { Base(v)->xDlClose(Base(v), handle); }

int Randomness(sqlite3_vfs* v, int size, char* out) {
  return Base(v)->xRandomness(Base(v), size, out);
}

int Sleep(sqlite3_vfs* v, int microseconds) { return Self(v)->Sleep(microseconds); }

int CurrentTime(sqlite3_vfs* v, double* out) { return Base(v)->xCurrentTime(Base(v), out); }

int GetLastError(sqlite3_vfs* v, int size, char* out) {
  return Base(v)->xGetLastError(Base(v), size, out);
}

int CurrentTimeInt64(sqlite3_vfs* v, sqlite3_int64* out) {
  return Base(v)->xCurrentTimeInt64(Base(v), out);
}

}  // namespace

DelayVfs::DelayVfs(const std::string& name, std::chrono::microseconds delay, Kind kind)
    : name_(name), delay_(delay), kind_(kind), base_(sqlite3_vfs_find(nullptr)) {
  if (base_ == nullptr) throw std::runtime_error("SQLite has no default VFS");
  vfs_.iVersion = std::min(base_->iVersion, 2);  // Nobody swaps system calls through this one.
  vfs_.szOsFile = static_cast<int>(sizeof(WalFile)) + base_->szOsFile;
  vfs_.mxPathname = base_->mxPathname;
  vfs_.zName = name_.c_str();
  vfs_.pAppData = this;
  vfs_.xOpen = Open;
  vfs_.xDelete = Delete;
  vfs_.xAccess = Access;
  vfs_.xFullPathname = FullPathname;
  vfs_.xDlOpen = DlOpen;
  vfs_.xDlError = DlError;
  vfs_.xDlSym = DlSym;
  vfs_.xDlClose = DlClose;
  vfs_.xRandomness = Randomness;
  vfs_.xSleep = bench::Sleep;
  vfs_.xCurrentTime = CurrentTime;
  vfs_.xGetLastError = GetLastError;
  vfs_.xCurrentTimeInt64 = CurrentTimeInt64;
  if (sqlite3_vfs_register(&vfs_, 0) != SQLITE_OK) {
    throw std::runtime_error("cannot register the VFS " + name_);
  }
}

DelayVfs::~DelayVfs() { sqlite3_vfs_unregister(&vfs_); }

bool DelayVfs::EachHandleIsTold(sqlite3_file* wal, const char* path) const {
  return delay_.count() > 0 || groupcommit::EachHandleIsTold(base_, wal, path);
}

int DelayVfs::Sleep(int microseconds) {
  const bool hurry = hurry_.load(std::memory_order_relaxed);
  return base_->xSleep(base_, hurry ? std::min(microseconds, 1000) : microseconds);
}

int DelayVfs::SyncWal(sqlite3_file* wal, int flags) {
  wal_syncs_.fetch_add(1, std::memory_order_relaxed);
  if (delay_ == kSkipSync) return SQLITE_OK;
  const int rc = wal->pMethods->xSync(wal, flags);
  const bool is_fast = kind_ == Kind::kChanging &&
                       std::chrono::steady_clock::now().time_since_epoch() / kPhase % 2 == 0;
  if (delay_.count() == 0 || is_fast) return rc;
  std::unique_lock lock(one_by_one_, std::defer_lock);
  if (kind_ == Kind::kSerial) lock.lock();
  // Asleep, not spinning: a slow disk leaves the processor to the other writers.
  std::this_thread::sleep_for(delay_);
  return rc;
}

}  // namespace groupcommit::bench
