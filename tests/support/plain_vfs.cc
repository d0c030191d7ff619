#include "support/plain_vfs.h"

#include <cstdlib>
#include <utility>

namespace groupcommit::testing {

struct PlainVfs::File : sqlite3_file {
  sqlite3_io_methods methods;
  const char* made;  // of sqlite3_create_filename(), or null

  // Ours is in front of it.
  sqlite3_file* base() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};

// The functions of all versions; files whose base has an older one say so in iVersion.
namespace {

template <class F>
sqlite3_io_methods MakeMethods() {
  static const auto base = [](sqlite3_file* file) { return static_cast<F*>(file)->base(); };
  sqlite3_io_methods methods{};
  methods.xClose = [](sqlite3_file* f) {
    const int rc = base(f)->pMethods->xClose(base(f));
    sqlite3_free_filename(const_cast<char*>(static_cast<F*>(f)->made));
    return rc;
  };
  methods.xRead = [](sqlite3_file* f, void* data, int n, sqlite3_int64 at) {
    return base(f)->pMethods->xRead(base(f), data, n, at);
  };
  methods.xWrite = [](sqlite3_file* f, const void* data, int n, sqlite3_int64 at) {
    return base(f)->pMethods->xWrite(base(f), data, n, at);
  };
  methods.xTruncate = [](sqlite3_file* f, sqlite3_int64 size) {
    return base(f)->pMethods->xTruncate(base(f), size);
  };
  methods.xSync = [](sqlite3_file* f, int flags) {
    return base(f)->pMethods->xSync(base(f), flags);
  };
  methods.xFileSize = [](sqlite3_file* f, sqlite3_int64* size) {
    return base(f)->pMethods->xFileSize(base(f), size);
  };
  methods.xLock = [](sqlite3_file* f, int level) {
    return base(f)->pMethods->xLock(base(f), level);
  };
  methods.xUnlock = [](sqlite3_file* f, int level) {
    return base(f)->pMethods->xUnlock(base(f), level);
  };
  methods.xCheckReservedLock = [](sqlite3_file* f, int* out) {
    return base(f)->pMethods->xCheckReservedLock(base(f), out);
  };
  methods.xFileControl = [](sqlite3_file* f, int op, void* arg) {
    const int rc = base(f)->pMethods->xFileControl(base(f), op, arg);
    if (op == SQLITE_FCNTL_VFSNAME && rc == SQLITE_OK) {
      char** name = static_cast<char**>(arg);
      *name = sqlite3_mprintf("plain/%z", *name);
    }
    return rc;
  };
  methods.xSectorSize = [](sqlite3_file* f) { return base(f)->pMethods->xSectorSize(base(f)); };
  methods.xDeviceCharacteristics = [](sqlite3_file* f) {
    return base(f)->pMethods->xDeviceCharacteristics(base(f));
  };
  methods.xShmMap = [](sqlite3_file* f, int region, int size, int extend, void volatile** out) {
    return base(f)->pMethods->xShmMap(base(f), region, size, extend, out);
  };
  methods.xShmLock = [](sqlite3_file* f, int first, int n, int flags) {
    return base(f)->pMethods->xShmLock(base(f), first, n, flags);
  };
  methods.xShmBarrier = [](sqlite3_file* f) { base(f)->pMethods->xShmBarrier(base(f)); };
  methods.xShmUnmap = [](sqlite3_file* f, int delete_it) {
    return base(f)->pMethods->xShmUnmap(base(f), delete_it);
  };
  methods.xFetch = [](sqlite3_file* f, sqlite3_int64 at, int n, void** out) {
    return base(f)->pMethods->xFetch(base(f), at, n, out);
  };
  methods.xUnfetch = [](sqlite3_file* f, sqlite3_int64 at, void* page) {
    return base(f)->pMethods->xUnfetch(base(f), at, page);
  };
  return methods;
}

}  // namespace

PlainVfs::PlainVfs(std::string name, const char* base, bool shared_memory)
    : name_(std::move(name)),
      base_(sqlite3_vfs_find(base)),
      shared_memory_(shared_memory),
      vfs_(*base_) {
  vfs_.pNext = nullptr;
  vfs_.zName = name_.c_str();
  vfs_.szOsFile = static_cast<int>(sizeof(File)) + base_->szOsFile;
  vfs_.iVersion = 2;
  vfs_.pAppData = this;
  vfs_.xOpen = Open;
  const auto base_of = [](sqlite3_vfs* v) { return static_cast<PlainVfs*>(v->pAppData)->base_; };
  static auto* const to = +base_of;
  vfs_.xDelete = [](sqlite3_vfs* v, const char* path, int sync) {
    return to(v)->xDelete(to(v), path, sync);
  };
  vfs_.xAccess = [](sqlite3_vfs* v, const char* path, int flags, int* out) {
    return to(v)->xAccess(to(v), path, flags, out);
  };
  vfs_.xFullPathname = [](sqlite3_vfs* v, const char* path, int n, char* out) {
    return to(v)->xFullPathname(to(v), path, n, out);
  };
  vfs_.xDlOpen = nullptr;
  vfs_.xDlError = nullptr;
  vfs_.xDlSym = nullptr;
  vfs_.xDlClose = nullptr;
  vfs_.xRandomness = [](sqlite3_vfs* v, int n, char* out) {
    return to(v)->xRandomness(to(v), n, out);
  };
  vfs_.xSleep = [](sqlite3_vfs* v, int micros) { return to(v)->xSleep(to(v), micros); };
  vfs_.xCurrentTime = [](sqlite3_vfs* v, double* out) { return to(v)->xCurrentTime(to(v), out); };
  vfs_.xGetLastError = [](sqlite3_vfs* v, int n, char* out) {
    return to(v)->xGetLastError(to(v), n, out);
  };
  vfs_.xCurrentTimeInt64 = [](sqlite3_vfs* v, sqlite3_int64* out) {
    return to(v)->xCurrentTimeInt64(to(v), out);
  };
  sqlite3_vfs_register(&vfs_, 0);
}

PlainVfs::~PlainVfs() { sqlite3_vfs_unregister(&vfs_); }

int PlainVfs::Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags,
                   int* out_flags) {
  static const sqlite3_io_methods methods = MakeMethods<File>();
  auto* self = static_cast<File*>(file);
  const auto* plain = static_cast<PlainVfs*>(vfs->pAppData);
  sqlite3_vfs* base = plain->base_;
  self->made = nullptr;
  const bool is_log = (flags & SQLITE_OPEN_WAL) != 0;
  if (plain->makes_names_ && (is_log || (flags & SQLITE_OPEN_MAIN_DB) != 0)) {
    const char* database = is_log ? sqlite3_filename_database(name) : name;
    self->made = sqlite3_create_filename(database, sqlite3_filename_journal(database),
                                         sqlite3_filename_wal(database), 0, nullptr);
    name = is_log ? sqlite3_filename_wal(self->made) : self->made;
  }
  const int rc = base->xOpen(base, name, self->base(), flags, out_flags);
  if (self->base()->pMethods == nullptr) {
    self->pMethods = nullptr;
    sqlite3_free_filename(const_cast<char*>(self->made));
    return rc;
  }
  self->methods = methods;
  self->methods.iVersion = self->base()->pMethods->iVersion;
  if (!plain->shared_memory_) {  // as unix-none has it
    self->methods.xShmMap = nullptr;
    self->methods.xShmLock = nullptr;
    self->methods.xShmBarrier = nullptr;
    self->methods.xShmUnmap = nullptr;
  }
  self->pMethods = &self->methods;
  return rc;
}

}  // namespace groupcommit::testing
