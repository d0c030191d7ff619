// Images of -wal and -shm files to tamper with. What SQLite checks before it believes them is
// computed here, from https://sqlite.org/walformat.html and without the shim's code.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_WAL_IMAGE_H_
#define GROUPCOMMIT_TESTS_SUPPORT_WAL_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "support/file_image.h"

namespace groupcommit::testing {

// Where things are in a log.
inline constexpr size_t kLogHeaderBytes = 32;
inline constexpr size_t kLogPageSizeAt = 8;
inline constexpr size_t kLogSaltsAt = 16;
inline constexpr size_t kFrameHeaderBytes = 24;
inline constexpr size_t kFrameDatabaseSizeAt = 4;
inline constexpr size_t kFrameSaltsAt = 8;

// Where things are in a wal-index: two copies of the header, then what checkpoints and readers
// share.
inline constexpr size_t kIndexHeaderBytes = 48;
inline constexpr size_t kIndexPageSizeAt = 14;
inline constexpr size_t kIndexLastFrameAt = 16;
inline constexpr size_t kIndexDatabaseSizeAt = 20;
inline constexpr size_t kIndexSaltsAt = 32;
inline constexpr size_t kIndexBackfilledAt = 96;
inline constexpr size_t kIndexReadMarksAt = 100;
inline constexpr size_t kIndexHeadBytes = 136;

// Numbers as the log stores them (big-endian) and as the wal-index does (the machine's order).
// Writing beyond the end does nothing; reading there gives 0.
uint32_t GetBig32(const Bytes& image, size_t at);
void PutBig32(Bytes* image, size_t at, uint32_t value);
void PutNative32(Bytes* image, size_t at, uint32_t value);
void PutNative16(Bytes* image, size_t at, uint16_t value);

// The page size in a log's header, or 0 if there is none that SQLite would accept.
size_t LogPageSize(const Bytes& log);
// Number of whole frames, and where frame `i`, counted from 0, begins. REQUIRES: a page size.
size_t LogFrames(const Bytes& log);
size_t LogFrameAt(const Bytes& log, size_t i);

// Number of frames, counted from the start, whose salts and checksums are right; -1 if the header
// is not valid. Neither the version nor page numbers are looked at.
int ValidFrames(const Bytes& log);

// Makes the checksums of the header and of all frames right, and with `salts` the frames' salts
// too. A log without a valid page size keeps its frames.
void RepairLog(Bytes* log, bool salts);

// Makes the checksum of a wal-index header right and its two copies equal.
void RepairIndex(Bytes* index);

// Whole files; a file that is not there is empty.
Bytes ReadFile(const std::string& path);
void WriteFile(const std::string& path, const Bytes& bytes);

// A database in WAL mode and its companions, as they are while it is open. It has a table
// t(id INTEGER PRIMARY KEY, x TEXT) with an index on x, and a table u(x).
struct DatabaseImage {
  Bytes database;
  Bytes log;
  Bytes index;
};

// Made by stock SQLite in the directory `dir`. Other `rows` make other contents.
DatabaseImage MakeDatabase(const std::string& dir, int page_size, int rows);

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_WAL_IMAGE_H_
