#include "support/wal_image.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace groupcommit::testing {
namespace {

struct Checksum {
  uint32_t a = 0;
  uint32_t b = 0;
  friend bool operator==(const Checksum&, const Checksum&) = default;
};

uint32_t GetLittle32(const Bytes& image, size_t at) {
  return __builtin_bswap32(GetBig32(image, at));
}

// `size` is a multiple of 8.
void Add(Checksum* sum, const Bytes& image, size_t at, size_t size, bool big_endian) {
  const auto word = big_endian ? GetBig32 : GetLittle32;
  for (size_t i = at; i < at + size; i += 8) {
    sum->a += word(image, i) + sum->b;
    sum->b += word(image, i + 4) + sum->a;
  }
}

Checksum Stored(const Bytes& image, size_t at) {
  return {GetBig32(image, at), GetBig32(image, at + 4)};
}

void Store(Bytes* image, size_t at, const Checksum& sum) {
  PutBig32(image, at, sum.a);
  PutBig32(image, at + 4, sum.b);
}

bool BigEndianChecksums(const Bytes& log) { return (GetBig32(log, 0) & 1) != 0; }

void AddFrame(Checksum* sum, const Bytes& log, size_t at) {
  Add(sum, log, at, kFrameSaltsAt, BigEndianChecksums(log));
  Add(sum, log, at + kFrameHeaderBytes, LogPageSize(log), BigEndianChecksums(log));
}

constexpr size_t kLogChecksumAt = 24;
constexpr size_t kFrameChecksumAt = 16;

void ExecOrDie(sqlite3* db, const char* sql) {
  if (sqlite3_exec(db, sql, nullptr, nullptr, nullptr) == SQLITE_OK) return;
  std::fprintf(stderr, "%s: %s\n", sql, sqlite3_errmsg(db));
  std::abort();
}

}  // namespace

uint32_t GetBig32(const Bytes& image, size_t at) {
  if (at + 4 > image.size()) return 0;
  uint32_t value;
  std::memcpy(&value, image.data() + at, sizeof(value));
  return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? value : __builtin_bswap32(value);
}

void PutBig32(Bytes* image, size_t at, uint32_t value) {
  PutNative32(image, at, __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? value : __builtin_bswap32(value));
}

void PutNative32(Bytes* image, size_t at, uint32_t value) {
  if (at + sizeof(value) <= image->size()) std::memcpy(image->data() + at, &value, sizeof(value));
}

void PutNative16(Bytes* image, size_t at, uint16_t value) {
  if (at + sizeof(value) <= image->size()) std::memcpy(image->data() + at, &value, sizeof(value));
}

size_t LogPageSize(const Bytes& log) {
  const uint32_t size = GetBig32(log, kLogPageSizeAt);
  return size >= 512 && size <= 65536 && (size & (size - 1)) == 0 ? size : 0;
}

size_t LogFrames(const Bytes& log) {
  if (log.size() < kLogHeaderBytes) return 0;
  return (log.size() - kLogHeaderBytes) / (kFrameHeaderBytes + LogPageSize(log));
}

size_t LogFrameAt(const Bytes& log, size_t i) {
  return kLogHeaderBytes + i * (kFrameHeaderBytes + LogPageSize(log));
}

int ValidFrames(const Bytes& log) {
  constexpr uint32_t kMagic = 0x377f0682;
  constexpr uint32_t kVersion = 3007000;
  if (log.size() < kLogHeaderBytes || (GetBig32(log, 0) & ~1u) != kMagic ||
      GetBig32(log, 4) != kVersion || LogPageSize(log) == 0) {
    return -1;
  }
  Checksum sum;
  Add(&sum, log, 0, kLogChecksumAt, BigEndianChecksums(log));
  if (sum != Stored(log, kLogChecksumAt)) return -1;
  const size_t frames = LogFrames(log);
  size_t valid = 0;
  for (; valid < frames; valid++) {
    const size_t at = LogFrameAt(log, valid);
    AddFrame(&sum, log, at);
    if (GetBig32(log, at) == 0 || GetBig32(log, at + kFrameSaltsAt) != GetBig32(log, kLogSaltsAt) ||
        GetBig32(log, at + kFrameSaltsAt + 4) != GetBig32(log, kLogSaltsAt + 4) ||
        sum != Stored(log, at + kFrameChecksumAt)) {
      break;
    }
  }
  return static_cast<int>(valid);
}

void RepairLog(Bytes* log, bool salts) {
  if (log->size() < kLogHeaderBytes) return;
  Checksum sum;
  Add(&sum, *log, 0, kLogChecksumAt, BigEndianChecksums(*log));
  Store(log, kLogChecksumAt, sum);
  if (LogPageSize(*log) == 0) return;
  for (size_t i = 0; i < LogFrames(*log); i++) {
    const size_t at = LogFrameAt(*log, i);
    if (salts) {
      std::copy_n(log->data() + kLogSaltsAt, 8, log->data() + at + kFrameSaltsAt);
    }
    AddFrame(&sum, *log, at);
    Store(log, at + kFrameChecksumAt, sum);
  }
}

void RepairIndex(Bytes* index) {
  constexpr size_t kChecksumAt = 40;
  if (index->size() < 2 * kIndexHeaderBytes) return;
  Checksum sum;
  Add(&sum, *index, 0, kChecksumAt, __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
  PutNative32(index, kChecksumAt, sum.a);
  PutNative32(index, kChecksumAt + 4, sum.b);
  std::copy_n(index->data(), kIndexHeaderBytes, index->data() + kIndexHeaderBytes);
}

Bytes ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void WriteFile(const std::string& path, const Bytes& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (out) return;
  std::perror(path.c_str());
  std::abort();
}

DatabaseImage MakeDatabase(const std::string& dir, int page_size, int rows) {
  const std::string path = dir + "/image.db";
  sqlite3* db = nullptr;
  if (sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix") !=
      SQLITE_OK) {
    std::fprintf(stderr, "%s: %s\n", path.c_str(), sqlite3_errmsg(db));
    std::abort();
  }
  const std::string several =
      "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<" +
      std::to_string(rows) + ") INSERT INTO t(x) SELECT printf('%d of " + std::to_string(rows) +
      " %.*c', i, i%50, 'x') FROM n";
  ExecOrDie(db, ("PRAGMA page_size=" + std::to_string(page_size)).c_str());
  ExecOrDie(db, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0");
  ExecOrDie(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT); CREATE INDEX t_x ON t(x)");
  ExecOrDie(db, several.c_str());
  ExecOrDie(db, "PRAGMA wal_checkpoint(TRUNCATE)");
  // The log: a commit that only changes rows, one that grows the file, one that changes the schema,
  // one that frees pages.
  ExecOrDie(db, "UPDATE t SET x='updated' WHERE id=3");
  ExecOrDie(db, several.c_str());
  ExecOrDie(db, "CREATE TABLE u(x); INSERT INTO u SELECT x FROM t");
  ExecOrDie(db, "DELETE FROM t WHERE id%3=0");
  const DatabaseImage image{ReadFile(path), ReadFile(path + "-wal"), ReadFile(path + "-shm")};
  sqlite3_close(db);
  std::filesystem::remove(path);
  return image;
}

}  // namespace groupcommit::testing
