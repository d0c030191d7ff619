// The C side of the test storage: the methods that SQLite calls.  Each tells the
// hooks and passes on to the base; what has to be remembered is remembered by
// test_storage.cc.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <utility>

#include "groupcommit.h"
#include "support/test_storage.h"
#include "support/test_storage_handle.h"

namespace groupcommit::testing {
namespace {

// The arguments of a file's method, as in Call.
struct Detail {
  int64_t offset = 0;
  int64_t amount = 0;
  int flags = 0;
};

FileKind KindOf(int open_flags) {
  if (open_flags & SQLITE_OPEN_MAIN_DB) return FileKind::kMainDb;
  if (open_flags & SQLITE_OPEN_WAL) return FileKind::kWal;
  if (open_flags & SQLITE_OPEN_MAIN_JOURNAL) return FileKind::kJournal;
  return FileKind::kOther;
}

}  // namespace

// Every method is noexcept: an exception out of a hook ends the program instead
// of unwinding through SQLite.
struct TestStorage::Callbacks {
  // ---- sqlite3_io_methods ----

  static Handle& Self(sqlite3_file* file) { return *reinterpret_cast<Handle*>(file); }
  static const sqlite3_io_methods& Base(sqlite3_file* file) { return *Self(file).base()->pMethods; }

  // For calls that the observer sees and the fault hook may fail.
  static int Ask(sqlite3_file* file, Op op, Detail detail) {
    return Tell(file, op, detail, /*faults=*/true);
  }
  static int Tell(sqlite3_file* file, Op op, Detail detail = {}, bool faults = false) {
    const Handle& self = Self(file);
    return self.storage->Before({.op = op,
                                 .kind = self.kind,
                                 .path = self.path,
                                 .file = file,
                                 .offset = detail.offset,
                                 .amount = detail.amount,
                                 .flags = detail.flags},
                                faults);
  }

  static int Close(sqlite3_file* file) noexcept {
    Tell(file, Op::kClose);
    Handle& self = Self(file);
    const int rc = self.storage->Close(self);
    self.~Handle();
    return rc;
  }

  static int Read(sqlite3_file* file, void* data, int amount, sqlite3_int64 offset) noexcept {
    const int rc = Ask(file, Op::kRead, {.offset = offset, .amount = amount});
    if (rc != SQLITE_OK) return rc;
    return Base(file).xRead(Self(file).base(), data, amount, offset);
  }

  static int Write(sqlite3_file* file, const void* data, int amount,
                   sqlite3_int64 offset) noexcept {
    Handle& self = Self(file);
    const int fault = Ask(file, Op::kWrite, {.offset = offset, .amount = amount});
    if (fault != SQLITE_OK) {
      amount = std::min(amount, self.storage->short_write_bytes_.load());
      if (amount <= 0) return fault;
    }
    const int rc = Base(file).xWrite(self.base(), data, amount, offset);
    // Only now: a sync that begins in between need not cover it.
    if (rc == SQLITE_OK) self.storage->RecordWrite(self, offset, data, amount);
    return fault != SQLITE_OK ? fault : rc;
  }

  static int Truncate(sqlite3_file* file, sqlite3_int64 size) noexcept {
    int rc = Ask(file, Op::kTruncate, {.offset = size});
    if (rc != SQLITE_OK) return rc;
    Handle& self = Self(file);
    rc = Base(file).xTruncate(self.base(), size);
    if (rc == SQLITE_OK) self.storage->RecordTruncate(self, size);
    return rc;
  }

  static int Sync(sqlite3_file* file, int flags) noexcept {
    return Self(file).storage->Sync(Self(file), flags);
  }

  static int FileSize(sqlite3_file* file, sqlite3_int64* size) noexcept {
    const int rc = Ask(file, Op::kFileSize, {});
    return rc != SQLITE_OK ? rc : Base(file).xFileSize(Self(file).base(), size);
  }

  static int Lock(sqlite3_file* file, int level) noexcept {
    const int rc = Ask(file, Op::kLock, {.flags = level});
    return rc != SQLITE_OK ? rc : Base(file).xLock(Self(file).base(), level);
  }

  static int Unlock(sqlite3_file* file, int level) noexcept {
    Tell(file, Op::kUnlock, {.flags = level});
    return Base(file).xUnlock(Self(file).base(), level);
  }

  static int CheckReservedLock(sqlite3_file* file, int* result) noexcept {
    Tell(file, Op::kCheckReservedLock);
    return Base(file).xCheckReservedLock(Self(file).base(), result);
  }

  // SQLITE_FCNTL_SIZE_HINT and CHUNK_SIZE may make the real file longer than what
  // was written.  The images need not know: SQLite ignores the zeros at the end.
  static int FileControl(sqlite3_file* file, int op, void* arg) noexcept {
    const bool is_timeout = op == SQLITE_FCNTL_LOCK_TIMEOUT;
    const int rc = Ask(file, Op::kFileControl,
                       {.amount = is_timeout ? *static_cast<int*>(arg) : 0, .flags = op});
    if (is_timeout && Self(file).storage->lock_timeouts_) return rc;
    if (op == GROUPCOMMIT_FCNTL_EACH_HANDLE_IS_TOLD && Self(file).storage->error_per_handle_) {
      *static_cast<int*>(arg) = 1;
      return rc;
    }
    if (op == GROUPCOMMIT_FCNTL_WRITES_MAY_BE_JOINED && Self(file).storage->join_writes_) return rc;
    return rc != SQLITE_OK ? rc : Base(file).xFileControl(Self(file).base(), op, arg);
  }

  static int SectorSize(sqlite3_file* file) noexcept {
    Tell(file, Op::kSectorSize);
    return Base(file).xSectorSize(Self(file).base());
  }

  static int DeviceCharacteristics(sqlite3_file* file) noexcept {
    Tell(file, Op::kDeviceCharacteristics);
    const int base = Base(file).xDeviceCharacteristics(Self(file).base());
    return Self(file).storage->powersafe_overwrite_ ? base
                                                    : base & ~SQLITE_IOCAP_POWERSAFE_OVERWRITE;
  }

  static int ShmMap(sqlite3_file* file, int region, int size, int extend,
                    void volatile** out) noexcept {
    const int fault = Ask(file, Op::kShmMap, {.offset = region, .amount = size, .flags = extend});
    if (fault != SQLITE_OK && fault != SQLITE_NOTFOUND) return fault;
    const int rc = Base(file).xShmMap(Self(file).base(), region, size, extend, out);
    if (fault == SQLITE_NOTFOUND) *out = nullptr;
    return rc;
  }

  static int ShmLock(sqlite3_file* file, int first, int count, int flags) noexcept {
    const int fault = Ask(file, Op::kShmLock, {.offset = first, .amount = count, .flags = flags});
    if (fault != SQLITE_OK && (flags & SQLITE_SHM_UNLOCK) == 0) return fault;
    const int rc = Base(file).xShmLock(Self(file).base(), first, count, flags);
    return fault != SQLITE_OK ? fault : rc;
  }

  static void ShmBarrier(sqlite3_file* file) noexcept {
    Tell(file, Op::kShmBarrier);
    Base(file).xShmBarrier(Self(file).base());
  }

  static int ShmUnmap(sqlite3_file* file, int delete_flag) noexcept {
    Tell(file, Op::kShmUnmap, {.flags = delete_flag});
    return Base(file).xShmUnmap(Self(file).base(), delete_flag);
  }

  static int Fetch(sqlite3_file* file, sqlite3_int64 offset, int amount, void** out) noexcept {
    Tell(file, Op::kFetch, {.offset = offset, .amount = amount});
    return Base(file).xFetch(Self(file).base(), offset, amount, out);
  }

  static int Unfetch(sqlite3_file* file, sqlite3_int64 offset, void* page) noexcept {
    Tell(file, Op::kUnfetch, {.offset = offset});
    return Base(file).xUnfetch(Self(file).base(), offset, page);
  }

  // The table of an iVersion; what the version lacks is null.
  static const sqlite3_io_methods* Methods(int version) {
    static const sqlite3_io_methods v1 = {1,
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
                                          nullptr};
    static const sqlite3_io_methods v2 = [] {
      sqlite3_io_methods methods = v1;
      methods.iVersion = 2;
      methods.xShmMap = ShmMap;
      methods.xShmLock = ShmLock;
      methods.xShmBarrier = ShmBarrier;
      methods.xShmUnmap = ShmUnmap;
      return methods;
    }();
    static const sqlite3_io_methods v3 = [] {
      sqlite3_io_methods methods = v2;
      methods.iVersion = 3;
      methods.xFetch = Fetch;
      methods.xUnfetch = Unfetch;
      return methods;
    }();
    return version <= 1 ? &v1 : version == 2 ? &v2 : &v3;
  }

  // ---- sqlite3_vfs ----

  static TestStorage& Storage(sqlite3_vfs* vfs) {
    return *static_cast<TestStorage*>(vfs->pAppData);
  }
  static sqlite3_vfs* BaseVfs(sqlite3_vfs* vfs) { return Storage(vfs).base_; }

  static int Told(sqlite3_vfs* vfs, Op op, const char* path = nullptr, int flags = 0,
                  bool faults = false, int64_t amount = 0) {
    return Storage(vfs).Before(
        {.op = op, .path = path ? path : "", .amount = amount, .flags = flags}, faults);
  }

  static int Open(sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags,
                  int* out_flags) noexcept {
    // SQLite closes what has methods, even if xOpen fails.
    file->pMethods = nullptr;
    TestStorage& storage = Storage(vfs);
    const Call call{.op = Op::kOpen,
                    .kind = KindOf(flags),
                    .path = path ? path : "",
                    .file = file,
                    .flags = flags};
    int rc = storage.Before(call, /*faults=*/true);
    if (rc != SQLITE_OK) return rc;
    auto* self = new (file) Handle{.file = {.pMethods = nullptr},
                                   .storage = &storage,
                                   .kind = call.kind,
                                   .path = call.path,
                                   .tracked = nullptr,
                                   .sync_errors_told = 0};
    rc = storage.Open(call, *self, out_flags);
    if (rc != SQLITE_OK) {
      self->~Handle();
      return rc;
    }
    self->file.pMethods = Methods(std::min(storage.io_version_.load(), Base(file).iVersion));
    return SQLITE_OK;
  }

  static int Delete(sqlite3_vfs* vfs, const char* path, int sync_dir) noexcept {
    const int rc = Told(vfs, Op::kDelete, path, sync_dir, /*faults=*/true);
    return rc != SQLITE_OK ? rc : Storage(vfs).Delete(path, sync_dir);
  }

  static int Access(sqlite3_vfs* vfs, const char* path, int flags, int* result) noexcept {
    const int rc = Told(vfs, Op::kAccess, path, flags, /*faults=*/true);
    return rc != SQLITE_OK ? rc : BaseVfs(vfs)->xAccess(BaseVfs(vfs), path, flags, result);
  }

  static int FullPathname(sqlite3_vfs* vfs, const char* path, int size, char* out) noexcept {
    Told(vfs, Op::kFullPathname, path);
    return BaseVfs(vfs)->xFullPathname(BaseVfs(vfs), path, size, out);
  }

  static void* DlOpen(sqlite3_vfs* vfs, const char* path) noexcept {
    Told(vfs, Op::kDlOpen, path);
    return BaseVfs(vfs)->xDlOpen(BaseVfs(vfs), path);
  }

  static void DlError(sqlite3_vfs* vfs, int size, char* message) noexcept {
    Told(vfs, Op::kDlError);
    BaseVfs(vfs)->xDlError(BaseVfs(vfs), size, message);
  }

  static void (*DlSym(sqlite3_vfs* vfs, void* library, const char* symbol) noexcept)() {
    Told(vfs, Op::kDlSym);
    return BaseVfs(vfs)->xDlSym(BaseVfs(vfs), library, symbol);
  }

  static void DlClose(sqlite3_vfs* vfs, void* library) noexcept {
    Told(vfs, Op::kDlClose);
    BaseVfs(vfs)->xDlClose(BaseVfs(vfs), library);
  }

  static int Randomness(sqlite3_vfs* vfs, int size, char* out) noexcept {
    Told(vfs, Op::kRandomness);
    return BaseVfs(vfs)->xRandomness(BaseVfs(vfs), size, out);
  }

  static int Sleep(sqlite3_vfs* vfs, int microseconds) noexcept {
    Told(vfs, Op::kSleep, nullptr, 0, false, microseconds);
    return BaseVfs(vfs)->xSleep(BaseVfs(vfs), microseconds);
  }

  static int CurrentTime(sqlite3_vfs* vfs, double* out) noexcept {
    Told(vfs, Op::kCurrentTime);
    return BaseVfs(vfs)->xCurrentTime(BaseVfs(vfs), out);
  }

  static int GetLastError(sqlite3_vfs* vfs, int size, char* out) noexcept {
    Told(vfs, Op::kGetLastError);
    return BaseVfs(vfs)->xGetLastError(BaseVfs(vfs), size, out);
  }

  static int CurrentTimeInt64(sqlite3_vfs* vfs, sqlite3_int64* out) noexcept {
    Told(vfs, Op::kCurrentTimeInt64);
    return BaseVfs(vfs)->xCurrentTimeInt64(BaseVfs(vfs), out);
  }

  static int SetSystemCall(sqlite3_vfs* vfs, const char* name, sqlite3_syscall_ptr call) noexcept {
    Told(vfs, Op::kSetSystemCall);
    return BaseVfs(vfs)->xSetSystemCall(BaseVfs(vfs), name, call);
  }

  static sqlite3_syscall_ptr GetSystemCall(sqlite3_vfs* vfs, const char* name) noexcept {
    Told(vfs, Op::kGetSystemCall);
    return BaseVfs(vfs)->xGetSystemCall(BaseVfs(vfs), name);
  }

  static const char* NextSystemCall(sqlite3_vfs* vfs, const char* name) noexcept {
    Told(vfs, Op::kNextSystemCall);
    return BaseVfs(vfs)->xNextSystemCall(BaseVfs(vfs), name);
  }
};

TestStorage::TestStorage(std::string name, const char* base)
    : name_(std::move(name)), base_(sqlite3_vfs_find(base)), vfs_{} {
  if (base_ == nullptr || sqlite3_vfs_find(name_.c_str()) != nullptr) {
    std::fprintf(stderr, "test storage: no VFS %s, or there is a VFS %s\n", base, name_.c_str());
    std::abort();
  }
  vfs_.szOsFile = static_cast<int>(sizeof(Handle)) + base_->szOsFile;
  vfs_.mxPathname = base_->mxPathname;
  vfs_.zName = name_.c_str();
  vfs_.pAppData = this;
  vfs_.xOpen = Callbacks::Open;
  vfs_.xDelete = Callbacks::Delete;
  vfs_.xAccess = Callbacks::Access;
  vfs_.xFullPathname = Callbacks::FullPathname;
  // A build of SQLite without loadable extensions has none of these four.
  if (base_->xDlOpen) vfs_.xDlOpen = Callbacks::DlOpen;
  if (base_->xDlError) vfs_.xDlError = Callbacks::DlError;
  if (base_->xDlSym) vfs_.xDlSym = Callbacks::DlSym;
  if (base_->xDlClose) vfs_.xDlClose = Callbacks::DlClose;
  vfs_.xRandomness = Callbacks::Randomness;
  vfs_.xSleep = Callbacks::Sleep;
  vfs_.xCurrentTime = Callbacks::CurrentTime;
  vfs_.xGetLastError = Callbacks::GetLastError;
  SetVfsVersion(base_->iVersion);
  sqlite3_vfs_register(&vfs_, /*makeDflt=*/0);
}

TestStorage::~TestStorage() {
  OpenGate();
  sqlite3_vfs_unregister(&vfs_);
  MutexLock lock(mutex_);
  if (open_handles_ != 0) {
    std::fprintf(stderr, "test storage: %d files are still open\n", open_handles_);
    std::abort();
  }
}

void TestStorage::SetVfsVersion(int version) {
  vfs_.iVersion = std::min(version, base_->iVersion);
  vfs_.xCurrentTimeInt64 = vfs_.iVersion >= 2 ? Callbacks::CurrentTimeInt64 : nullptr;
  vfs_.xSetSystemCall = vfs_.iVersion >= 3 ? Callbacks::SetSystemCall : nullptr;
  vfs_.xGetSystemCall = vfs_.iVersion >= 3 ? Callbacks::GetSystemCall : nullptr;
  vfs_.xNextSystemCall = vfs_.iVersion >= 3 ? Callbacks::NextSystemCall : nullptr;
}

const char* OpName(Op op) {
  static constexpr const char* kNames[] = {"xClose",
                                           "xRead",
                                           "xWrite",
                                           "xTruncate",
                                           "xSync",
                                           "xFileSize",
                                           "xLock",
                                           "xUnlock",
                                           "xCheckReservedLock",
                                           "xFileControl",
                                           "xSectorSize",
                                           "xDeviceCharacteristics",
                                           "xShmMap",
                                           "xShmLock",
                                           "xShmBarrier",
                                           "xShmUnmap",
                                           "xFetch",
                                           "xUnfetch",
                                           "xOpen",
                                           "xDelete",
                                           "xAccess",
                                           "xFullPathname",
                                           "xDlOpen",
                                           "xDlError",
                                           "xDlSym",
                                           "xDlClose",
                                           "xRandomness",
                                           "xSleep",
                                           "xCurrentTime",
                                           "xGetLastError",
                                           "xCurrentTimeInt64",
                                           "xSetSystemCall",
                                           "xGetSystemCall",
                                           "xNextSystemCall"};
  return kNames[static_cast<size_t>(op)];
}

}  // namespace groupcommit::testing
