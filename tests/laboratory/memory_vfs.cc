#include "laboratory/memory_vfs.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace groupcommit::testing {
namespace {

using Files = std::map<std::string, std::vector<uint8_t>>;
thread_local Files* files = nullptr;

struct Handle {
  sqlite3_file file;
  std::vector<uint8_t>* bytes;
};

std::vector<uint8_t>& BytesOf(sqlite3_file* f) { return *reinterpret_cast<Handle*>(f)->bytes; }

int Close(sqlite3_file*) noexcept { return SQLITE_OK; }

int Read(sqlite3_file* f, void* data, int size, sqlite3_int64 offset) noexcept {
  const auto& bytes = BytesOf(f);
  const auto have =
      std::clamp<sqlite3_int64>(static_cast<sqlite3_int64>(bytes.size()) - offset, 0, size);
  if (have > 0) std::memcpy(data, bytes.data() + offset, static_cast<size_t>(have));
  if (have == size) return SQLITE_OK;
  std::memset(static_cast<char*>(data) + have, 0, static_cast<size_t>(size - have));
  return SQLITE_IOERR_SHORT_READ;
}

int Write(sqlite3_file* f, const void* data, int size, sqlite3_int64 offset) noexcept {
  auto& bytes = BytesOf(f);
  const auto end = static_cast<size_t>(offset + size);
  if (bytes.size() < end) bytes.resize(end);
  std::memcpy(bytes.data() + offset, data, static_cast<size_t>(size));
  return SQLITE_OK;
}

int Truncate(sqlite3_file* f, sqlite3_int64 size) noexcept {
  BytesOf(f).resize(static_cast<size_t>(size));
  return SQLITE_OK;
}

int Sync(sqlite3_file*, int) noexcept { return SQLITE_OK; }
int FileSize(sqlite3_file* f, sqlite3_int64* size) noexcept {
  *size = static_cast<sqlite3_int64>(BytesOf(f).size());
  return SQLITE_OK;
}
int Lock(sqlite3_file*, int) noexcept { return SQLITE_OK; }
int CheckReservedLock(sqlite3_file*, int* out) noexcept {
  *out = 0;
  return SQLITE_OK;
}
int FileControl(sqlite3_file*, int, void*) noexcept { return SQLITE_NOTFOUND; }
int SectorSize(sqlite3_file*) noexcept { return 512; }
int DeviceCharacteristics(sqlite3_file*) noexcept { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

constexpr sqlite3_io_methods kMethods = {1,
                                         Close,
                                         Read,
                                         Write,
                                         Truncate,
                                         Sync,
                                         FileSize,
                                         Lock,
                                         Lock,
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

int Open(sqlite3_vfs*, const char* name, sqlite3_file* f, int flags, int* out_flags) noexcept {
  f->pMethods = nullptr;
  if (files == nullptr || name == nullptr) return SQLITE_CANTOPEN;
  if ((flags & SQLITE_OPEN_CREATE) == 0 && files->count(name) == 0) return SQLITE_CANTOPEN;
  reinterpret_cast<Handle*>(f)->bytes = &(*files)[name];
  f->pMethods = &kMethods;
  if (out_flags != nullptr) *out_flags = flags;
  return SQLITE_OK;
}

int Delete(sqlite3_vfs*, const char* name, int) noexcept {
  files->erase(name);
  return SQLITE_OK;
}

int Access(sqlite3_vfs*, const char* name, int, int* out) noexcept {
  *out = files != nullptr && files->count(name) != 0;
  return SQLITE_OK;
}

int FullPathname(sqlite3_vfs*, const char* name, int size, char* out) noexcept {
  std::snprintf(out, static_cast<size_t>(size), "%s", name);
  return SQLITE_OK;
}

}  // namespace

void RegisterMemoryVfs() {
  // Time and chance are unix's.
  static sqlite3_vfs vfs = *sqlite3_vfs_find("unix");
  vfs.pNext = nullptr;
  vfs.zName = kMemoryVfs;
  vfs.szOsFile = sizeof(Handle);
  vfs.xOpen = Open;
  vfs.xDelete = Delete;
  vfs.xAccess = Access;
  vfs.xFullPathname = FullPathname;
  sqlite3_vfs_register(&vfs, 0);
}

void SetMemoryFiles(Files* to) { files = to; }

}  // namespace groupcommit::testing
