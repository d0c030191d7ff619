// The VFS itself: registration, xOpen and xSleep. Everything else goes to the base VFS, or to the
// files.
#include "shim.h"

#include <algorithm>
#include <cstring>
#include <list>
#include <memory>
#include <new>
#include <optional>
#include <string>

#include "database.h"
#include "file.h"
#include "flush_policy.h"
#include "groupcommit.h"
#include "lost_race.h"
#include "main_file.h"
#include "process.h"
#include "sqlite.h"
#include "sqlite_version.h"
#include "wal_file.h"

namespace groupcommit {
namespace {

struct ShimVfs {
  sqlite3_vfs vfs{};  // what SQLite sees
  sqlite3_vfs* base = nullptr;
  std::string name;
  FlushPolicy policy;
  std::atomic<int> open_files{0};
  bool registered = true;
};

// Never freed: a connection to an in-memory database has no file that could be counted, but keeps a
// pointer to its VFS.
std::list<std::unique_ptr<ShimVfs>>& AllVfses() REQUIRES(ProcessMutex()) {
  static auto* const all = new std::list<std::unique_ptr<ShimVfs>>;
  return *all;
}

ShimVfs& ShimOf(sqlite3_vfs* vfs) { return *static_cast<ShimVfs*>(vfs->pAppData); }
sqlite3_vfs* BaseOf(sqlite3_vfs* vfs) { return ShimOf(vfs).base; }

// ---- xOpen ----

// A database file over which a shim lies already, somewhere beneath us. All is left to that one; so
// is the log, for which MainFile::OfLog() finds nothing. Two shims cannot work together: one of our
// threads may call xSync of a log of the lower one's while another thread is in the middle of a
// commit on it. The lower one would take that for the sync of the commit, and put it off.
class ShimmedFile final : public File {
 public:
  ShimmedFile(sqlite3_file* real, std::atomic<int>* open_files)
      : File(real), open_files_(open_files) {
    open_files_->fetch_add(1, std::memory_order_relaxed);
  }
  ~ShimmedFile() { open_files_->fetch_sub(1, std::memory_order_relaxed); }

 private:
  std::atomic<int>* const open_files_;
};

constexpr int kAlignment = alignof(std::max_align_t);
constexpr int kWrapperSize =
    (static_cast<int>(std::max(sizeof(MainFile), sizeof(WalFile))) + kAlignment - 1) / kAlignment *
    kAlignment;
static_assert(sizeof(ShimmedFile) <= sizeof(MainFile));

sqlite3_file* RealFile(sqlite3_file* file) {
  return reinterpret_cast<sqlite3_file*>(reinterpret_cast<char*>(file) + kWrapperSize);
}

bool PolicyFromUri(const char* name, std::optional<FlushPolicy>* policy, std::string* error) {
  PolicyParts parts;
  const auto read = [name](const char* key, std::optional<std::string_view>* part) {
    if (const char* value = sqlite3_uri_parameter(name, key)) *part = value;
  };
  read("flush_policy", &parts.flush_policy);
  read("max_wait_us", &parts.max_wait_us);
  read("max_batch", &parts.max_batch);
  read("max_delay_us", &parts.max_delay_us);
  if (parts.empty()) return true;
  FlushPolicy parsed;
  if (!ParsePolicyParts(parts, &parsed, error)) return false;
  *policy = parsed;
  return true;
}

// The reason comes first, as sqlite3_log() cuts a message off after some 200 bytes.
int Refuse(int rc, const char* name, const std::string& error) {
  sqlite3_log(rc, "groupcommit: %s; cannot open %s", error.c_str(), name);
  return rc;
}

// Opens the base VFS's file. Like SQLite, closes one that failed to open but has methods.
int OpenReal(ShimVfs* shim, const char* name, sqlite3_file* real, int flags, int* out_flags) {
  real->pMethods = nullptr;
  const int rc = shim->base->xOpen(shim->base, name, real, flags, out_flags);
  if (rc != SQLITE_OK && real->pMethods != nullptr) real->pMethods->xClose(real);
  return rc;
}

// Does a shim lie beneath, of this copy of the library or of another one? (A base VFS may say
// SQLITE_OK to whatever it is asked.)
bool IsShimmed(sqlite3_file* real) {
  constexpr Lsn kNoAnswer = ~Lsn{0};
  Lsns lsns = {kNoAnswer, kNoAnswer};
  const int rc = real->pMethods->xFileControl(real, kFcntlLsns, &lsns);
  return rc == SQLITE_OK && lsns.commit != kNoAnswer;
}

int OpenMain(ShimVfs* shim, const char* name, sqlite3_file* out, int flags, int* out_flags) {
  std::optional<FlushPolicy> policy;
  std::string error;
  if (!PolicyFromUri(name, &policy, &error)) return Refuse(SQLITE_MISUSE, name, error);

  sqlite3_file* real = RealFile(out);
  int rc = OpenReal(shim, name, real, flags, out_flags);
  if (rc != SQLITE_OK) return rc;
  if (IsShimmed(real)) {
    auto* file = new (out) ShimmedFile(real, &shim->open_files);
    file->pMethods = FileMethods<ShimmedFile>::For(*real->pMethods);
    return SQLITE_OK;
  }
  Database* database = nullptr;
  rc = Database::Join(shim->base, name, real, policy, shim->policy, &database, &error);
  if (rc != SQLITE_OK) {
    real->pMethods->xClose(real);
    return Refuse(rc, name, error);
  }
  auto* file = new (out) MainFile(real, &shim->vfs, name, database, &shim->open_files);
  file->pMethods = FileMethods<MainFile>::For(*real->pMethods);
  return SQLITE_OK;
}

int OpenLog(ShimVfs* shim, MainFile* main, const char* name, sqlite3_file* out, int flags,
            int* out_flags) {
  sqlite3_file* real = RealFile(out);
  int opened_as = flags;
  int rc = OpenReal(shim, name, real, flags, &opened_as);
  if (out_flags != nullptr) *out_flags = opened_as;
  if (rc != SQLITE_OK) return rc;
  sqlite3_int64 size = 0;
  rc = real->pMethods->xFileSize(real, &size);
  if (rc != SQLITE_OK) {
    real->pMethods->xClose(real);
    return rc;
  }
  try {
    auto* file = new (out) WalFile(real, size, (opened_as & SQLITE_OPEN_READONLY) != 0, main);
    file->pMethods = FileMethods<WalFile>::For(*real->pMethods);
    return SQLITE_OK;
  } catch (const std::bad_alloc&) {
    real->pMethods->xClose(real);
    return SQLITE_NOMEM;
  }
}

int Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* out, int flags,
         int* out_flags) noexcept {
  ShimVfs* shim = &ShimOf(vfs);
  out->pMethods = nullptr;  // SQLite closes a file that failed to open unless this is null
  try {
    if (name != nullptr && (flags & SQLITE_OPEN_MAIN_DB) != 0) {
      return OpenMain(shim, name, out, flags, out_flags);
    }
    if (name != nullptr && (flags & SQLITE_OPEN_WAL) != 0) {
      MainFile* main = MainFile::OfLog(vfs, name);
      if (main != nullptr && !main->inherited()) {
        return OpenLog(shim, main, name, out, flags, out_flags);
      }
    }
  } catch (const std::bad_alloc&) {
    return SQLITE_NOMEM;
  }
  // Journals, temporary files, and the log of a main file that is not ours: the base VFS's file as
  // it is.
  return shim->base->xOpen(shim->base, name, out, flags, out_flags);
}

// ---- The rest of the VFS: forwarded ----

int Delete(sqlite3_vfs* v, const char* name, int sync_directory) noexcept {
  return BaseOf(v)->xDelete(BaseOf(v), name, sync_directory);
}
int Access(sqlite3_vfs* v, const char* name, int flags, int* out) noexcept {
  return BaseOf(v)->xAccess(BaseOf(v), name, flags, out);
}
int FullPathname(sqlite3_vfs* v, const char* name, int n, char* out) noexcept {
  return BaseOf(v)->xFullPathname(BaseOf(v), name, n, out);
}
void* DlOpen(sqlite3_vfs* v, const char* name) noexcept {
  return BaseOf(v)->xDlOpen(BaseOf(v), name);
}
void DlError(sqlite3_vfs* v, int n, char* out) noexcept { BaseOf(v)->xDlError(BaseOf(v), n, out); }
using Symbol = void (*)();
Symbol DlSym(sqlite3_vfs* v, void* handle, const char* name) noexcept {
  return BaseOf(v)->xDlSym(BaseOf(v), handle, name);
}
void DlClose(sqlite3_vfs* v, void* handle) noexcept { BaseOf(v)->xDlClose(BaseOf(v), handle); }
int Randomness(sqlite3_vfs* v, int n, char* out) noexcept {
  return BaseOf(v)->xRandomness(BaseOf(v), n, out);
}
int Sleep(sqlite3_vfs* v, int micros) noexcept {
  if (LostRace::Sleep(micros)) return micros;
  return BaseOf(v)->xSleep(BaseOf(v), micros + LostRace::OwedMicros(micros));
}
int CurrentTime(sqlite3_vfs* v, double* out) noexcept {
  return BaseOf(v)->xCurrentTime(BaseOf(v), out);
}
int GetLastError(sqlite3_vfs* v, int n, char* out) noexcept {
  return BaseOf(v)->xGetLastError(BaseOf(v), n, out);
}
int CurrentTimeInt64(sqlite3_vfs* v, sqlite3_int64* out) noexcept {
  return BaseOf(v)->xCurrentTimeInt64(BaseOf(v), out);
}
int SetSystemCall(sqlite3_vfs* v, const char* name, sqlite3_syscall_ptr call) noexcept {
  return BaseOf(v)->xSetSystemCall(BaseOf(v), name, call);
}
sqlite3_syscall_ptr GetSystemCall(sqlite3_vfs* v, const char* name) noexcept {
  return BaseOf(v)->xGetSystemCall(BaseOf(v), name);
}
const char* NextSystemCall(sqlite3_vfs* v, const char* name) noexcept {
  return BaseOf(v)->xNextSystemCall(BaseOf(v), name);
}

// Offers what `base` offers, and no more.
void FillVfs(ShimVfs* shim, const sqlite3_vfs& base) {
  const auto if_has = [](auto theirs, auto ours) { return theirs != nullptr ? ours : nullptr; };
  constexpr int kNewestVersion = 3;
  sqlite3_vfs& vfs = shim->vfs;
  vfs.iVersion = std::min(base.iVersion, kNewestVersion);
  vfs.szOsFile = kWrapperSize + base.szOsFile;
  vfs.mxPathname = base.mxPathname;
  vfs.zName = shim->name.c_str();
  vfs.pAppData = shim;
  vfs.xOpen = Open;
  vfs.xDelete = if_has(base.xDelete, Delete);
  vfs.xAccess = if_has(base.xAccess, Access);
  vfs.xFullPathname = if_has(base.xFullPathname, FullPathname);
  vfs.xDlOpen = if_has(base.xDlOpen, DlOpen);
  vfs.xDlError = if_has(base.xDlError, DlError);
  vfs.xDlSym = if_has(base.xDlSym, DlSym);
  vfs.xDlClose = if_has(base.xDlClose, DlClose);
  vfs.xRandomness = if_has(base.xRandomness, Randomness);
  vfs.xSleep = if_has(base.xSleep, Sleep);
  vfs.xCurrentTime = if_has(base.xCurrentTime, CurrentTime);
  vfs.xGetLastError = if_has(base.xGetLastError, GetLastError);
  if (vfs.iVersion >= 2) vfs.xCurrentTimeInt64 = if_has(base.xCurrentTimeInt64, CurrentTimeInt64);
  if (vfs.iVersion >= 3) {
    vfs.xSetSystemCall = if_has(base.xSetSystemCall, SetSystemCall);
    vfs.xGetSystemCall = if_has(base.xGetSystemCall, GetSystemCall);
    vfs.xNextSystemCall = if_has(base.xNextSystemCall, NextSystemCall);
  }
}

// ---- Registration ----

int RefuseName(int rc, const char* name, const char* reason) {
  sqlite3_log(rc, "groupcommit: cannot register VFS \"%.*s\": %s", GROUPCOMMIT_MAX_NAME, name,
              reason);
  return rc;
}

// Of two shims the upper one would do nothing (ShimmedFile), not even by its own policy.
sqlite3_vfs* WithoutShim(sqlite3_vfs* vfs) { return vfs->xOpen == Open ? BaseOf(vfs) : vfs; }

int RegisterIfNew(std::unique_ptr<ShimVfs> shim, bool make_default) {
  MutexLock lock(ProcessMutex());
  if (sqlite3_vfs_find(shim->name.c_str()) != nullptr) return SQLITE_ERROR;
  AllVfses().push_back(std::move(shim));
  const int rc = sqlite3_vfs_register(&AllVfses().back()->vfs, make_default ? 1 : 0);
  if (rc != SQLITE_OK) AllVfses().pop_back();
  return rc;
}

int Register(const char* name, const char* base_name, bool make_default,
             const groupcommit_policy* c_policy) {
  if (name == nullptr) name = GROUPCOMMIT_VFS_NAME;
  if (name[0] == '\0') return RefuseName(SQLITE_MISUSE, name, "the name is empty");
  if (std::strlen(name) > GROUPCOMMIT_MAX_NAME) {
    const std::string most = std::to_string(GROUPCOMMIT_MAX_NAME);
    return RefuseName(SQLITE_MISUSE, name, ("the name has more than " + most + " bytes").c_str());
  }
  if (const char* reason = WhyTooOld(sqlite3_libversion_number())) {
    return RefuseName(SQLITE_ERROR, name, reason);
  }
  FlushPolicy policy = FlushPolicy::Auto();
  std::string error;
  if (c_policy != nullptr && !PolicyFromC(*c_policy, &policy, &error)) {
    return RefuseName(SQLITE_MISUSE, name, error.c_str());
  }
  // Also initializes SQLite, before ProcessMutex() is taken.
  sqlite3_vfs* base = sqlite3_vfs_find(base_name);
  if (base == nullptr) {
    error = base_name == nullptr ? "there is no default VFS to wrap"
                                 : "there is no VFS \"" + std::string(base_name) + "\" to wrap";
    return RefuseName(SQLITE_NOTFOUND, name, error.c_str());
  }

  auto shim = std::make_unique<ShimVfs>();
  shim->base = WithoutShim(base);
  shim->name = name;
  shim->policy = policy;
  FillVfs(shim.get(), *shim->base);
  const int rc = RegisterIfNew(std::move(shim), make_default);
  if (rc == SQLITE_ERROR) RefuseName(rc, name, "a VFS of this name is registered already");
  return rc;
}

int Unregister(const char* name) {
  if (name == nullptr) name = GROUPCOMMIT_VFS_NAME;
  // Initializes SQLite before ProcessMutex() is taken: that may call groupcommit_extra_init().
  sqlite3_vfs_find(name);
  MutexLock lock(ProcessMutex());
  for (auto& shim : AllVfses()) {
    if (!shim->registered || shim->name != name) continue;
    if (shim->open_files.load(std::memory_order_relaxed) > 0) return SQLITE_BUSY;
    shim->registered = false;
    return sqlite3_vfs_unregister(&shim->vfs);
  }
  return SQLITE_NOTFOUND;
}

}  // namespace

bool IsShim(const sqlite3_vfs& vfs) { return vfs.xOpen == Open; }

}  // namespace groupcommit

int groupcommit_register(const char* zName, const char* zBase, int makeDefault,
                         const groupcommit_policy* pPolicy) {
  try {
    return groupcommit::Register(zName, zBase, makeDefault != 0, pPolicy);
  } catch (const std::bad_alloc&) {
    return SQLITE_NOMEM;
  }
}

int groupcommit_unregister(const char* zName) { return groupcommit::Unregister(zName); }
